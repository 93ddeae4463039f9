//! Providers are isolated from each other; isolated ones take signed policies only.

use attestation_service::app::provider::document::unsigned_jws;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::http::StatusCode;
use public_api::encoding::{to_base64, to_base64url};
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Attempt, ISSUER, LOG_TOKEN, Lab, payload};

const PERMIT: &str = r#"version=1.0; authorizationrules { => permit(); };
issuancerules { => issue(type="mine", value=true); };"#;

/// Somebody who signs policies.
struct Owner {
    key: EcdsaKeyPair,
    certificate: String,
}

impl Owner {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        let signing = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der());
        Self { key: signing.expect("the same key"), certificate: to_base64(certificate.der()) }
    }

    fn sign(&self, payload: &Value) -> String {
        self.sign_with_header(&json!({"alg": "ES256", "x5c": [self.certificate]}), &payload.to_string())
    }

    fn sign_with_header(&self, header: &Value, payload: &str) -> String {
        let message =
            format!("{}.{}", to_base64url(header.to_string().as_bytes()), to_base64url(payload.as_bytes()));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", to_base64url(signature.as_ref()))
    }

    fn policy(&self, text: &str) -> String {
        self.sign(&json!({"AttestationPolicy": to_base64url(text.as_bytes())}))
    }

    fn certificate_change(&self, other: &Owner) -> String {
        self.sign(&json!({"policyCertificate": {"kty": "EC", "x5c": [other.certificate]}}))
    }
}

async fn make(lab: &Lab, name: &str, settings: &Value) {
    let (status, view) = lab.put(&format!("/providers/{name}"), &settings.to_string(), ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::CREATED, "{view}");
    assert_eq!(view["attestUri"], format!("{ISSUER}/providers/{name}"));
}

async fn isolated(lab: &Lab, owner: &Owner) {
    let settings = json!({"trustModel": "Isolated", "policySigningCertificates": [owner.certificate]});
    make(lab, "theirs", &settings).await;
}

async fn refused(lab: &Lab, path: &str, body: &str, code: &str) {
    let (status, answer) = match path {
        "policy" => lab.put("/providers/theirs/policies/SevSnpVm", body, ADMIN_TOKEN).await,
        verb => lab.post_as(&format!("/providers/theirs{verb}"), body, ADMIN_TOKEN).await,
    };
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert_eq!(answer["error"]["denial"]["code"], code, "{answer}");
    let last = lab.service.store.entries_after(0).await.expect("the log").pop().expect("an entry");
    assert_eq!(last.denial.expect("a refusal").code, code, "the log tells it");
}

#[tokio::test]
async fn a_provider_has_its_own_keys_policies_and_issuer() {
    let lab = Lab::new().await;
    make(&lab, "mine", &json!({"tokenAlgorithm": "ES384"})).await;
    let (status, _) = lab.put("/providers/mine/policies/SevSnpVm", &unsigned_jws(PERMIT), ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK);
    let lab = lab.restarted().await;
    let body = Attempt::honest().body().to_string();
    let (_, answer) = lab.post("/providers/mine/attest/SevSnpVm?api-version=2022-08-01", body.clone()).await;
    let token = answer["token"].as_str().expect("a token");
    let claims = payload(token);
    assert_eq!((&claims["iss"], &claims["mine"]), (&json!(format!("{ISSUER}/providers/mine")), &json!(true)));
    assert_eq!(jsonwebtoken::decode_header(token).expect("a header").alg, jsonwebtoken::Algorithm::ES384);
    let at_root = lab.accepted(&Attempt::honest().body()).await;
    assert!(at_root.get("mine").is_none(), "the root's policy is another");
    let (_, ours) = lab.get("/providers/mine/certs").await;
    let (_, roots) = lab.get("/certs").await;
    assert_eq!((&ours["keys"][0]["alg"], &roots["keys"][0]["alg"]), (&json!("ES384"), &json!("RS256")));
    let (_, metadata) = lab.get("/providers/mine/.well-known/openid-configuration").await;
    assert_eq!(metadata["jwks_uri"], format!("{ISSUER}/providers/mine/certs"));
    let (_, history) = lab.get_as("/policies/SevSnpVm/versions", LOG_TOKEN).await;
    assert_eq!(history, json!([]));
}

#[tokio::test]
async fn a_provider_that_is_not_there_answers_nothing() {
    let lab = Lab::new().await;
    let body = Attempt::honest().body().to_string();
    let (status, answer) = lab.post("/providers/nobody/attest/SevSnpVm", body).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("ProviderNotFound")));
    for name in ["no", "Upper_case", "1st", "a-", "default"] {
        let (status, answer) = lab.put(&format!("/providers/{name}"), "{}", ADMIN_TOKEN).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name}: {answer}");
    }
    let (status, answer) = lab.put("/providers/mine", r#"{"trustmodel": "AAD"}"#, ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
}

#[tokio::test]
async fn making_a_provider_again_is_the_same_and_removing_it_leaves_nothing() {
    let lab = Lab::new().await;
    make(&lab, "mine", &json!({})).await;
    lab.put("/providers/mine/policies/SevSnpVm", &unsigned_jws(PERMIT), ADMIN_TOKEN).await;
    assert_eq!(lab.put("/providers/mine", "{}", ADMIN_TOKEN).await.0, StatusCode::OK);
    let other = r#"{"tokenAlgorithm": "ES384"}"#;
    assert_eq!(lab.put("/providers/mine", other, ADMIN_TOKEN).await.0, StatusCode::CONFLICT);
    let (_, before) = lab.get("/providers/mine/certs").await;
    assert_eq!(lab.delete("/providers/mine", ADMIN_TOKEN).await.0, StatusCode::NO_CONTENT);
    assert_eq!(lab.delete("/providers/mine", ADMIN_TOKEN).await.0, StatusCode::NOT_FOUND);
    assert_eq!(lab.get("/providers/mine/certs").await.0, StatusCode::NOT_FOUND);
    make(&lab, "mine", &json!({})).await;
    assert_ne!(lab.get("/providers/mine/certs").await.1, before, "with keys of its own");
    let (_, history) = lab.get_as("/providers/mine/policies/SevSnpVm/versions", LOG_TOKEN).await;
    assert_eq!(history, json!([]));
}

/// A file of a key that a crash left, or that could not be removed, is not taken over.
#[tokio::test]
async fn keys_of_a_former_provider_of_the_same_name_sign_nothing() {
    let lab = Lab::new().await;
    make(&lab, "mine", &json!({})).await;
    let (_, former) = lab.get("/providers/mine/certs").await;
    let keys = lab.config.data_dir.join("providers/mine");
    let saved = tempfile::tempdir().expect("a directory");
    for file in std::fs::read_dir(&keys).expect("listed") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), saved.path().join(file.file_name())).expect("copied");
    }
    assert_eq!(lab.delete("/providers/mine", ADMIN_TOKEN).await.0, StatusCode::NO_CONTENT);
    std::fs::create_dir(&keys).expect("made");
    for file in std::fs::read_dir(saved.path()).expect("listed") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), keys.join(file.file_name())).expect("copied back");
    }
    make(&lab, "mine", &json!({})).await;
    assert_ne!(lab.get("/providers/mine/certs").await.1, former);
}

#[tokio::test]
async fn an_isolated_provider_takes_policies_of_its_signers_only() {
    let lab = Lab::new().await;
    let (owner, stranger) = (Owner::new(), Owner::new());
    isolated(&lab, &owner).await;
    refused(&lab, "policy", &unsigned_jws(PERMIT), "PolicyNotSigned").await;
    refused(&lab, "policy", &stranger.policy(PERMIT), "PolicySignerUnknown").await;
    let forged = stranger.sign_with_header(
        &json!({"alg": "ES256", "x5c": [owner.certificate]}),
        &json!({"AttestationPolicy": to_base64url(PERMIT.as_bytes())}).to_string(),
    );
    refused(&lab, "policy", &forged, "PolicySignatureInvalid").await;
    refused(&lab, "/policies/SevSnpVm:reset", "eyJhbGciOiJub25lIn0..", "PolicyNotSigned").await;
    let (status, answer) =
        lab.put("/providers/theirs/policies/SevSnpVm", &owner.policy(PERMIT), ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let answer = payload(answer["token"].as_str().expect("a token"));
    assert_eq!(answer["x-ms-policy-signer"]["x5c"][0], owner.certificate);
    let body = Attempt::honest().body().to_string();
    let (_, answer) = lab.post("/providers/theirs/attest/SevSnpVm", body).await;
    let claims = payload(answer["token"].as_str().expect("a token"));
    assert_eq!(claims["x-ms-policy-signer"]["x5c"][0], owner.certificate);
    let header = json!({"alg": "ES256", "jwk": {"x5c": [owner.certificate]}});
    let reset = owner.sign_with_header(&header, "");
    let (status, answer) =
        lab.post_as("/providers/theirs/policies/SevSnpVm:reset", &reset, ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn policy_signers_are_changed_by_policy_signers_and_the_last_one_stays() {
    let lab = Lab::new().await;
    let (owner, second) = (Owner::new(), Owner::new());
    isolated(&lab, &owner).await;
    refused(&lab, "/certificates:add", &second.certificate_change(&second), "PolicySignerUnknown").await;
    refused(&lab, "/certificates:remove", &owner.certificate_change(&owner), "PolicySignerIsTheLast").await;
    let added = owner.certificate_change(&second);
    let (status, answer) = lab.post_as("/providers/theirs/certificates:add", &added, ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let answer = payload(answer["token"].as_str().expect("a token"));
    assert_eq!(answer["x-ms-policycertificates-result"], "IsPresent");
    let lab = lab.restarted().await;
    let removed = second.certificate_change(&owner);
    let (status, answer) = lab.post_as("/providers/theirs/certificates:remove", &removed, ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (_, answer) = lab.get_as("/providers/theirs/certificates", LOG_TOKEN).await;
    let shown = payload(answer["token"].as_str().expect("a token"));
    assert_eq!(shown["x-ms-policy-certificates"]["keys"][0]["x5c"][0], second.certificate);
    refused(&lab, "policy", &owner.policy(PERMIT), "PolicySignerUnknown").await;
}

/// A signer who was removed cannot come back through the history.
#[tokio::test]
async fn rolling_back_to_a_policy_of_a_removed_signer_is_refused() {
    let lab = Lab::new().await;
    let (owner, second) = (Owner::new(), Owner::new());
    isolated(&lab, &owner).await;
    lab.put("/providers/theirs/policies/SevSnpVm", &owner.policy(PERMIT), ADMIN_TOKEN).await;
    lab.post_as("/providers/theirs/certificates:add", &owner.certificate_change(&second), ADMIN_TOKEN).await;
    lab.post_as("/providers/theirs/certificates:remove", &second.certificate_change(&owner), ADMIN_TOKEN)
        .await;
    refused(&lab, "/policies/SevSnpVm:rollback?version=1", "", "PolicySignerUnknown").await;
}

#[tokio::test]
async fn signing_keys_rotate_with_overlap() {
    let lab = Lab::new().await;
    let old = lab.accepted(&Attempt::honest().body()).await;
    let (status, set) = lab.post_as("/signingKeys:rotate", "", ADMIN_TOKEN).await;
    assert_eq!((status, set["keys"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)), "{set}");
    let new = lab.accepted(&Attempt::honest().body()).await;
    assert_eq!(old["iss"], new["iss"]);
    let lab = lab.restarted().await;
    assert_eq!(lab.get("/certs").await.1, set, "the next key is kept over a restart");
}
