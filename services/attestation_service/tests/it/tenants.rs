//! Providers that belong to Resource Manager resources: whoever has a role over the resource administers the provider's own
//! things, a stranger does not, and nobody reaches the service's things through a provider's path.

use attestation_service::app::provider::document::unsigned_jws;
use attestation_service::app::signing::Signer;
use attestation_service::config::CallersConfig;
use axum::http::StatusCode;
use public_api::attestation::Claims;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Lab, payload};

const HOME: &str = "https://login.example/home/v2.0";
const OTHER: &str = "https://login.example/other/v2.0";
const AUDIENCE: &str = "https://attest.azure.net";
const SUBSCRIPTION: &str = "/subscriptions/aaaaaaaa-0000-0000-0000-000000000001";
const PERMIT: &str = "version=1.0; authorizationrules { => permit(); };";

/// A service with two tenants' sign-in, and a provider of the first tenant's.
struct Tenants {
    lab: Lab,
    home: Signer,
    other: Signer,
    _keys: tempfile::TempDir,
}

fn resource() -> String {
    format!("{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Attestation/attestationProviders/Mine")
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Tenants {
    async fn new() -> Self {
        Self::with("Disabled").await
    }

    async fn with(tpm_attestation_authentication: &str) -> Self {
        let keys = tempfile::tempdir().expect("a directory");
        let signer = |name: &str, issuer: &str| {
            let signer = Signer::open(&keys.path().join(name), issuer, Default::default(), now());
            signer.expect("a sign-in")
        };
        let (home, other) = (signer("home", HOME), signer("other", OTHER));
        let published = [&home, &other].map(|signer| signer.jwk_set(now()).keys).concat();
        let file = keys.path().join("keys.json");
        std::fs::write(&file, json!({"keys": published}).to_string()).expect("written");
        let lab = Lab::with(|config| {
            config.callers = Some(CallersConfig {
                issuer: HOME.to_owned(),
                further_issuers: vec![OTHER.to_owned()],
                audiences: vec![AUDIENCE.to_owned()],
                authorization: None,
                jwks_url: None,
                jwks_file: Some(file),
                ca: None,
            });
        })
        .await;
        let settings = json!({
            "tpmAttestationAuthentication": tpm_attestation_authentication,
            "resource": {"id": resource(), "incarnation": "1"},
        });
        let (status, view) = lab.put("/providers/mine", &settings.to_string(), ADMIN_TOKEN).await;
        assert_eq!(status, StatusCode::CREATED, "{view}");
        assert_eq!(view["resource"]["id"], resource());
        let (status, _) = lab.put("/providers/operators", "{}", ADMIN_TOKEN).await;
        assert_eq!(status, StatusCode::CREATED);
        Self { lab, home, other, _keys: keys }
    }

    /// A token with one assignment.
    fn token(signer: &Signer, role: &str, scope: &str) -> String {
        let claims = json!({
            "iss": signer.issuer(), "aud": AUDIENCE, "appid": "somebody", "iat": now(), "nbf": now(),
            "exp": now() + 600, "x-casemate-assignments": [{"role": role, "scope": scope}],
        });
        let claims: Claims = serde_json::from_value(claims).expect("claims");
        signer.sign(&claims, now(), now() + 600).expect("signed")
    }

    async fn set(&self, provider: &str, token: &str) -> (StatusCode, Value) {
        let path = format!("/providers/{provider}/policies/SevSnpVm");
        self.lab.put(&path, &unsigned_jws(PERMIT), token).await
    }
}

#[tokio::test]
async fn roles_over_the_resource_or_above_it_administer_the_provider() {
    let tenants = Tenants::new().await;
    let group = format!("{SUBSCRIPTION}/RESOURCEGROUPS/rg");
    for (role, scope) in
        [("Contributor", SUBSCRIPTION.to_owned()), ("Owner", group), ("Attestation Contributor", resource())]
    {
        let token = Tenants::token(&tenants.home, role, &scope);
        let (status, answer) = tenants.set("mine", &token).await;
        assert_eq!(status, StatusCode::OK, "{role}: {answer}");
        let rotated = tenants.lab.post_as("/providers/mine/signingKeys:rotate", "", &token).await;
        assert_eq!(rotated.0, StatusCode::OK, "{role}: {}", rotated.1);
    }
    let reader = Tenants::token(&tenants.home, "Reader", SUBSCRIPTION);
    let (status, versions) = tenants.lab.get_as("/providers/mine/policies/SevSnpVm/versions", &reader).await;
    assert_eq!((status, versions[0]["setBy"].as_str()), (StatusCode::OK, Some("somebody")), "{versions}");
    assert_eq!(tenants.set("mine", &reader).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn attack_a_stranger_administers_another_tenants_provider() {
    let tenants = Tenants::new().await;
    let theirs = "/subscriptions/bbbbbbbb-0000-0000-0000-000000000001";
    let shorter = SUBSCRIPTION.strip_suffix('1').expect("its last digit");
    for (signer, role, scope) in [
        (&tenants.other, "Owner", theirs),
        (&tenants.home, "Owner", theirs),
        (&tenants.home, "Owner", shorter),
        (&tenants.home, "Owner", "/"),
        (&tenants.home, "Owner", ""),
        (&tenants.home, "owner of everything", SUBSCRIPTION),
        (&tenants.home, "Virtual Machine Contributor", SUBSCRIPTION),
    ] {
        let token = Tenants::token(signer, role, scope);
        let (status, answer) = tenants.set("mine", &token).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{role} over {scope}: {answer}");
        let denial = &answer["error"]["denial"];
        assert_eq!(denial["code"], "RoleMissing");
        assert!(
            !answer.to_string().contains("aaaaaaaa-0000"),
            "the resource is not told to strangers: {answer}"
        );
        let (status, _) = tenants.lab.get_as("/providers/mine/policies/SevSnpVm/versions", &token).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{role} over {scope}");
    }
    let (_, shown) = tenants.lab.get("/providers/mine/policies/SevSnpVm").await;
    let policy =
        payload(payload(shown["token"].as_str().expect("a token"))["x-ms-policy"].as_str().expect("a JWS"));
    let shipped =
        attestation_service::app::shipped_policy(public_api::attestation_policy::AttestationType::SevSnpVm);
    assert_eq!(policy["AttestationPolicy"], public_api::encoding::to_base64url(shipped.as_bytes()));
}

/// The other tenant's token says that it is the first tenant's.
#[tokio::test]
async fn attack_a_tenants_key_signs_as_another_tenant() {
    let tenants = Tenants::new().await;
    let claims = json!({
        "iss": "https://login.example/third/v2.0", "aud": AUDIENCE, "appid": "x", "iat": now(), "nbf": now(),
        "exp": now() + 600, "x-casemate-assignments": [{"role": "Owner", "scope": SUBSCRIPTION}],
    });
    let claims: Claims = serde_json::from_value(claims).expect("claims");
    let token = tenants.other.sign(&claims, now(), now() + 600).expect("signed");
    let (status, answer) = tenants.set("mine", &token).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{answer}");
    assert_eq!(answer["error"]["denial"]["code"], "TokenIssuerUnknown");
}

/// Everything that is not the provider's own: other providers, the root's policies, what all providers share.
#[tokio::test]
async fn attack_the_owner_of_a_provider_reaches_beyond_it() {
    let tenants = Tenants::new().await;
    let token = Tenants::token(&tenants.home, "Owner", SUBSCRIPTION);
    let lab = &tenants.lab;
    assert_eq!(tenants.set("operators", &token).await.0, StatusCode::FORBIDDEN);
    for path in
        ["/policies/SevSnpVm", "/providers/default/policies/SevSnpVm", "/providers/other1", "/providers/mine"]
    {
        let (status, answer) = lab.put(path, &unsigned_jws(PERMIT), &token).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "PUT {path}: {answer}");
    }
    assert_eq!(lab.delete("/providers/mine", &token).await.0, StatusCode::FORBIDDEN);
    for base in ["", "/providers/mine"] {
        for path in ["/minimumTcb", "/referenceValues"] {
            let (status, answer) = lab.put(&format!("{base}{path}"), "x", &token).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "PUT {base}{path}: {answer}");
        }
        for path in ["/collateral:prefetch", "/collateral/bundle", "/minimumTcb:dryRun"] {
            let (status, answer) = lab.post_as(&format!("{base}{path}"), "{}", &token).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "POST {base}{path}: {answer}");
        }
        for path in ["/log", "/collateral/bundle", "/providers", "/providers/mine"] {
            let (status, answer) = lab.get_as(&format!("{base}{path}"), &token).await;
            let refused = [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&status);
            assert!(refused, "GET {base}{path}: {status} {answer}");
        }
    }
}

#[tokio::test]
async fn tpm_attestation_needs_a_token_where_the_provider_says_so() {
    let body = r#"{"data": "e30"}"#;
    let open = Tenants::new().await;
    let (status, _) = open.lab.post("/providers/mine/attest/Tpm", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "it is read without a token");
    let closed = Tenants::with("Enabled").await;
    let (status, answer) = closed.lab.post("/providers/mine/attest/Tpm", body).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{answer}");
    let stranger = Tenants::token(&closed.home, "Reader", "/subscriptions/bb");
    let (status, answer) = closed.lab.post_as("/providers/mine/attest/Tpm", body, &stranger).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    let reader = Tenants::token(&closed.home, "Reader", SUBSCRIPTION);
    let (status, answer) = closed.lab.post_as("/providers/mine/attest/Tpm", body, &reader).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
}
