//! What the service says about itself.

use expect_test::expect;
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn health_shows_what_is_trusted() {
    let lab = Lab::new().await;
    let (_, mut health) = lab.get("/health").await;
    health["policyHash"] = json!("HASH");
    let text = serde_json::to_string_pretty(&health).expect("JSON");
    let text = text.replace(&hex::encode(OURS.authority.root_id()), "OUR-ROOT");
    expect![[r#"
        {
          "developmentRootsAllowed": true,
          "issuer": "https://attest.example",
          "keyDistributionServices": [],
          "pinnedRoots": {
            "AMD Genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
            "AMD Milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
            "AMD Turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
            "development root OUR-ROOT": "OUR-ROOT"
          },
          "policyHash": "HASH",
          "providers": 1,
          "references": [
            "ovmf-test/paravisor-test/EPYC-Milan/1",
            "ovmf-test/paravisor-test/EPYC-Milan/2",
            "ovmf-test/paravisor-test/EPYC-Milan/4",
            "ovmf-test/paravisor-test/EPYC-v4/1",
            "ovmf-test/paravisor-test/EPYC-v4/2",
            "ovmf-test/paravisor-test/EPYC-v4/4"
          ],
          "revocationLists": {
            "AMD Genoa": null,
            "AMD Milan": null,
            "AMD Turin": null,
            "development root OUR-ROOT": null
          },
          "status": "ok",
          "trustRoots": [
            "amd",
            "development"
          ],
          "version": "0.1.0",
          "vlekRevocationLists": {
            "AMD Genoa": null,
            "AMD Milan": null,
            "AMD Turin": null,
            "development root OUR-ROOT": null
          }
        }"#]]
    .assert_eq(&text);
    let lab = Lab::with(|config| config.allow_development_roots = false).await;
    let (_, health) = lab.get("/health").await;
    assert_eq!((&health["trustRoots"], &health["developmentRootsAllowed"]), (&json!(["amd"]), &json!(false)));
}

#[tokio::test]
async fn the_openid_configuration_leads_to_the_keys() {
    let lab = Lab::new().await;
    let (_, configuration) = lab.get("/.well-known/openid-configuration").await;
    assert_eq!(configuration["issuer"], ISSUER);
    assert_eq!(configuration["jwks_uri"], format!("{ISSUER}/certs"));
    let (_, certs) = lab.get("/certs").await;
    let keys = certs["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 1);
    for member in ["kid", "n", "e"] {
        assert!(keys[0][member].is_string(), "{member}");
    }
    assert_eq!(
        (&keys[0]["kty"], &keys[0]["alg"], &keys[0]["use"]),
        (&json!("RSA"), &json!("RS256"), &json!("sig"))
    );
    assert_eq!(keys[0]["x5c"].as_array().map(Vec::len), Some(1));
}
