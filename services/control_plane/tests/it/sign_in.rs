//! The token endpoint and what its tokens are good for.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use reqwest::Method;
use serde_json::{Value, json};

use crate::installation::{CLIENT, Installation, OTHER_TENANT, SECRET, TENANT};

fn form<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut form = vec![
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("client_secret", SECRET),
        ("scope", "https://management.azure.com/.default"),
    ];
    form.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    form.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    form
}

#[tokio::test]
async fn a_token_verifies_under_the_published_keys_and_survives_a_restart() {
    let mut installation = Installation::new().await;
    let (_, answer) = installation.sign_in(TENANT, &form(&[("client_info", "1")])).await;
    assert_eq!(answer["token_type"], "Bearer");
    let token = answer["access_token"].as_str().unwrap().to_owned();
    installation.kill().await;
    installation.start().await;
    let nobody = installation.bare(None);
    let base = installation.config.public_url.clone();
    let discovery =
        nobody.send(Method::GET, &format!("/{TENANT}/v2.0/.well-known/openid-configuration"), None).await;
    let keys = nobody.send(Method::GET, discovery.body["jwks_uri"].as_str().unwrap(), None).await;
    let keys: JwkSet = serde_json::from_value(keys.body).unwrap();
    let header = decode_header(&token).unwrap();
    let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["https://management.azure.com"]);
    validation.set_issuer(&[discovery.body["issuer"].as_str().unwrap()]);
    let claims = decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(claims["iss"], format!("{base}/{TENANT}/v2.0"));
    assert_eq!(claims["tid"], TENANT);
    assert_eq!(claims["appid"], CLIENT);
    assert_eq!((claims["idtyp"].as_str(), claims["ver"].as_str()), (Some("app"), Some("1.0")));
    assert_eq!(claims["roles"], json!(["Key Vault Crypto Officer"]));
    for name in ["oid", "sub", "iat", "nbf", "exp", "jti"] {
        assert!(!claims[name].is_null(), "{name}");
    }
    assert_eq!(installation.bare(Some(token)).get("/subscriptions").await.status, 200);
}

#[tokio::test]
async fn ad_fs_style_and_every_audience_of_the_flow_work() {
    let installation = Installation::new().await;
    let base = installation.config.public_url.clone();
    let discovery =
        installation.bare(None).send(Method::GET, "/adfs/.well-known/openid-configuration", None).await;
    assert_eq!(discovery.body["token_endpoint"], format!("{base}/adfs/oauth2/v2.0/token"));
    let doubled = format!("{base}//.default");
    for (scope, audience) in [
        (doubled.as_str(), format!("{base}/")),
        ("https://management.core.windows.net//.default", "https://management.core.windows.net/".to_owned()),
        ("https://vault.azure.net/.default", "https://vault.azure.net".to_owned()),
        ("https://attest.azure.net/.default", "https://attest.azure.net".to_owned()),
    ] {
        let (status, answer) = installation.sign_in("adfs", &form(&[("scope", scope)])).await;
        assert_eq!(status, 200, "{scope}: {answer}");
        let token = answer["access_token"].as_str().unwrap();
        let payload = public_api::encoding::from_base64_any(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(claims["aud"], audience);
    }
}

#[tokio::test]
async fn what_is_wrong_gets_no_token() {
    let installation = Installation::new().await;
    for (tenant, changes, status, error) in [
        (TENANT, [("client_secret", "guess")], 401, "invalid_client"),
        (TENANT, [("client_id", "eeeeeeee-0000-0000-0000-000000000000")], 401, "invalid_client"),
        (OTHER_TENANT, [("client_info", "1")], 401, "invalid_client"),
        ("33333333-3333-3333-3333-333333333333", [("client_info", "1")], 400, "invalid_request"),
        ("common", [("client_info", "1")], 400, "invalid_request"),
        (TENANT, [("grant_type", "password")], 400, "unsupported_grant_type"),
        (TENANT, [("client_secret", "")], 400, "invalid_request"),
        (TENANT, [("client_id", "")], 400, "invalid_request"),
        (TENANT, [("scope", "")], 400, "invalid_request"),
        (TENANT, [("scope", "https://management.azure.com")], 400, "invalid_request"),
        (TENANT, [("scope", "https://evil.test/.default")], 400, "invalid_resource"),
    ] {
        let (given, answer) = installation.sign_in(tenant, &form(&changes)).await;
        assert_eq!((given, answer["error"].as_str()), (status, Some(error)), "{tenant} {changes:?}");
        assert!(answer["error_description"].as_str().unwrap().starts_with("AADSTS"));
        assert!(answer.get("access_token").is_none());
    }
}

#[tokio::test]
async fn the_cloud_describes_itself_in_both_versions() {
    let installation = Installation::new().await;
    let nobody = installation.bare(None);
    let base = &installation.config.public_url;
    let one = nobody.send(Method::GET, "/metadata/endpoints?api-version=2022-09-01", None).await;
    assert_eq!(one.body["resourceManager"], *base);
    assert_eq!(one.body["authentication"]["loginEndpoint"], *base);
    assert!(one.body["suffixes"]["keyVaultDns"].is_string());
    let old = nobody.send(Method::GET, "/metadata/endpoints?api-version=2019-05-01", None).await;
    assert_eq!(old.body[0]["name"], "Casemate");
    let health = nobody.send(Method::GET, "/health", None).await;
    assert_eq!((health.status, &health.body["allowDevelopmentRoots"]), (200, &json!(true)));
}
