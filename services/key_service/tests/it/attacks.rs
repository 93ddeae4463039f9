//! Tokens that must not release a key, each refused for its own reason, on record, and without effect.

use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::{
    attestation, control_plane, decoded, encoded, hs256_token, numbers, stranger, unsigned_token,
};
use crate::support::vault::{Answer, Folder, OTHER_VM, VM, Vault, platform_conditions};

/// A vault with the platform key of [`VM`].
async fn vault_with_key() -> Vault {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    vault
}

/// Presents the token and expects a refusal with this code that names this claim, in the answer and in the log.
async fn refused(vault: &Vault, token: &str, code: &str, claim: &str) -> Answer {
    let before = vault.log().await.len();
    let answer = vault.release("/keys/platform/release", token).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
    assert_eq!(answer.code(), "Forbidden");
    let denial = answer.denial();
    assert_eq!((&denial["code"], &denial["claim"]), (&json!(code), &json!(claim)), "{denial}");
    for part in ["expected", "actual", "rule", "remedy"] {
        assert_ne!(denial[part], "", "{part}");
    }
    let log = vault.log().await;
    assert_eq!(log.len(), before + 1, "one entry");
    let logged = serde_json::to_value(log.last().unwrap()).unwrap();
    assert_eq!((&logged["decision"], &logged["denial"]), (&json!("refused"), denial));
    answer
}

/// The same for a change of the good claims. Afterwards the good token still works: the refusal had no effect.
async fn claims_refused(vault: &Vault, change: impl Fn(&mut Value), code: &str, claim: &str) -> Answer {
    let good = vault.evidence(0);
    let mut bad = good.clone();
    change(&mut bad);
    let answer = refused(vault, &attestation().token(&bad), code, claim).await;
    vault.release("/keys/platform/release", &attestation().token(&good)).await.ok();
    answer
}

fn without(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name).expect("the claim was there");
}

#[tokio::test]
async fn a_token_of_another_issuer() {
    let vault = vault_with_key().await;
    let issuer = "https://attest.evil.test";
    claims_refused(&vault, |claims| claims["iss"] = issuer.into(), "TokenIssuerUnknown", "iss").await;
}

#[tokio::test]
async fn a_token_signed_by_a_stranger_who_uses_the_issuers_name_and_key_id() {
    let vault = vault_with_key().await;
    let token = stranger().token(&vault.evidence(0));
    refused(&vault, &token, "TokenSignatureInvalid", "signature").await;
}

#[tokio::test]
async fn a_token_under_a_key_id_that_the_issuer_does_not_publish() {
    let vault = vault_with_key().await;
    let header = json!({"alg": "RS256", "kid": "attestation-2"});
    let token = attestation().token_with(&header, &vault.evidence(0));
    refused(&vault, &token, "TokenKeyUnknown", "kid").await;
}

#[tokio::test]
async fn a_token_without_a_key_id() {
    let vault = vault_with_key().await;
    let token = attestation().token_with(&json!({"alg": "RS256"}), &vault.evidence(0));
    refused(&vault, &token, "ClaimMissing", "kid").await;
}

#[tokio::test]
async fn a_token_that_brings_its_own_key() {
    let vault = vault_with_key().await;
    let mut header = stranger().header();
    header["jwk"] = stranger().jwk();
    let token = stranger().token_with(&header, &vault.evidence(0));
    refused(&vault, &token, "TokenSignatureInvalid", "signature").await;
}

#[tokio::test]
async fn a_token_with_algorithm_none() {
    let vault = vault_with_key().await;
    refused(&vault, &unsigned_token(&vault.evidence(0)), "TokenAlgorithmRefused", "alg").await;
    for alg in ["None", "NONE", "nOnE", "", "RS512", "PS256", "ES256", "rs256"] {
        let header = json!({"alg": alg, "kid": "attestation-1"});
        let token = attestation().token_with(&header, &vault.evidence(0));
        refused(&vault, &token, "TokenAlgorithmRefused", "alg").await;
    }
}

#[tokio::test]
async fn a_token_with_hs256_under_the_public_key() {
    let vault = vault_with_key().await;
    let (n, _) = numbers(&attestation().key);
    let secrets = [
        attestation().key.public_key().as_ref().to_vec(),
        decoded(&n),
        n.into_bytes(),
        attestation().jwk().to_string().into_bytes(),
    ];
    for secret in secrets {
        let token = hs256_token(&secret, "attestation-1", &vault.evidence(0));
        refused(&vault, &token, "TokenAlgorithmRefused", "alg").await;
    }
}

#[tokio::test]
async fn a_token_with_an_extension_that_must_be_understood() {
    let vault = vault_with_key().await;
    let mut header = attestation().header();
    header["crit"] = json!(["b64"]);
    header["b64"] = json!(false);
    let token = attestation().token_with(&header, &vault.evidence(0));
    refused(&vault, &token, "TokenExtensionRefused", "crit").await;
}

#[tokio::test]
async fn a_token_whose_payload_was_changed_after_signing() {
    let vault = vault_with_key().await;
    let mut claims = vault.evidence(0);
    let token = attestation().token(&claims);
    claims["exp"] = json!(vault.now() + 99_999);
    let parts: Vec<&str> = token.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], encoded(claims.to_string()), parts[2]);
    refused(&vault, &forged, "TokenSignatureInvalid", "signature").await;
}

#[tokio::test]
async fn something_that_is_no_token() {
    let vault = vault_with_key().await;
    let good = attestation().token(&vault.evidence(0));
    let cut = good.rsplit_once('.').unwrap().0.to_owned();
    let padded = format!("{good}=");
    for text in ["", "..", "a.b.c", "e30.e30", "e30.e30.e30.e30", "e30.W10.e30", &cut, &padded] {
        refused(&vault, text, "TokenMalformed", "token").await;
    }
}

#[tokio::test]
async fn an_expired_token() {
    let vault = vault_with_key().await;
    claims_refused(&vault, |claims| claims["exp"] = claims["iat"].clone(), "TokenExpired", "exp").await;
}

#[tokio::test]
async fn a_token_that_is_not_yet_valid() {
    let vault = vault_with_key().await;
    let later = |claims: &Value| json!(claims["iat"].as_i64().unwrap() + 3600);
    claims_refused(&vault, |claims| claims["nbf"] = later(claims), "TokenNotYetValid", "nbf").await;
    claims_refused(&vault, |claims| claims["iat"] = later(claims), "TokenNotYetValid", "iat").await;
}

#[tokio::test]
async fn a_token_that_was_issued_too_long_ago() {
    let vault = vault_with_key().await;
    let token = attestation().token(&vault.evidence(0));
    vault.set_clock(vault.now() + 601);
    refused(&vault, &token, "TokenTooOld", "iat").await;
    vault.set_clock(vault.now() - 1);
    vault.release("/keys/platform/release", &token).await.ok();
}

#[tokio::test]
async fn a_token_with_times_that_are_no_times() {
    let vault = vault_with_key().await;
    for name in ["exp", "nbf", "iat"] {
        for value in [json!("soon"), json!(null), json!(-1.5), json!(1e300), json!([1]), json!(u64::MAX)] {
            claims_refused(&vault, |claims| claims[name] = value.clone(), "TokenMalformed", name).await;
        }
    }
}

#[tokio::test]
async fn a_token_without_a_claim_that_decides() {
    let vault = vault_with_key().await;
    for name in ["iss", "exp", "iat", "jti", "x-casemate-trust-root"] {
        claims_refused(&vault, |claims| without(claims, name), "ClaimMissing", name).await;
    }
    for id in [json!(""), json!(7), json!("x".repeat(257))] {
        claims_refused(&vault, |claims| claims["jti"] = id.clone(), "ClaimMissing", "jti").await;
    }
}

#[tokio::test]
async fn a_replayed_token() {
    let vault = vault_with_key().await;
    let token = attestation().token(&vault.evidence(0));
    vault.release("/keys/platform/release", &token).await.ok();
    refused(&vault, &token, "TokenReplayed", "jti").await;
}

#[tokio::test]
async fn a_token_replayed_at_another_key() {
    let vault = vault_with_key().await;
    vault.exportable("second", platform_conditions()).await;
    let token = attestation().token(&vault.evidence(0));
    vault.release("/keys/second/release", &token).await.ok();
    refused(&vault, &token, "TokenReplayed", "jti").await;
}

#[tokio::test]
async fn a_token_replayed_with_another_signature_over_the_same_id() {
    let vault = vault_with_key().await;
    let mut claims = vault.evidence(0);
    vault.release("/keys/platform/release", &attestation().token(&claims)).await.ok();
    claims["extra"] = json!(1);
    refused(&vault, &attestation().token(&claims), "TokenReplayed", "jti").await;
}

#[tokio::test]
async fn a_token_replayed_after_a_restart() {
    let vault = vault_with_key().await;
    let token = attestation().token(&vault.evidence(0));
    vault.release("/keys/platform/release", &token).await.ok();
    let vault = vault.restart().await;
    refused(&vault, &token, "TokenReplayed", "jti").await;
}

#[tokio::test]
async fn another_vms_token() {
    let vault = vault_with_key().await;
    let answer = claims_refused(
        &vault,
        |claims| {
            claims["x-ms-inittime"]["vmId"] = OTHER_VM.into();
            claims["x-ms-runtime"]["guest-state"]["vm-id"] = OTHER_VM.into();
        },
        "ReleasePolicyNotMet",
        "x-ms-inittime.vmId",
    )
    .await;
    assert_eq!(answer.denial()["expected"], format!("{VM:?}"));
    assert_eq!(answer.denial()["actual"], format!("{OTHER_VM:?}"));
}

#[tokio::test]
async fn another_vms_guest_state_in_this_vm() {
    let vault = vault_with_key().await;
    let claim = "x-ms-runtime.guest-state.vm-id";
    claims_refused(
        &vault,
        |claims| claims["x-ms-runtime"]["guest-state"]["vm-id"] = OTHER_VM.into(),
        "GuestStateOfAnotherVm",
        claim,
    )
    .await;
}

#[tokio::test]
async fn a_guest_state_claim_of_another_form() {
    let vault = vault_with_key().await;
    let forms = [
        json!(null),
        json!("state"),
        json!({"vm-id": VM}),
        json!({"vm-id": VM, "generation": -1}),
        json!({"vm-id": VM, "generation": "0"}),
        json!({"vm-id": "me", "generation": 0}),
        json!({"vm-id": VM, "generation": 0, "and": 1}),
    ];
    let claim = "x-ms-runtime.guest-state";
    for form in forms {
        claims_refused(
            &vault,
            |claims| claims["x-ms-runtime"]["guest-state"] = form.clone(),
            "ClaimMalformed",
            claim,
        )
        .await;
    }
}

#[tokio::test]
async fn a_claim_that_the_policy_does_not_accept() {
    let vault = vault_with_key().await;
    let status = "x-ms-compliance-status";
    claims_refused(&vault, |claims| claims[status] = "none".into(), "ReleasePolicyNotMet", status).await;
    claims_refused(&vault, |claims| without(claims, status), "ReleasePolicyNotMet", status).await;
    let source = "x-casemate-nonce-source";
    claims_refused(&vault, |claims| claims[source] = "client".into(), "ReleasePolicyNotMet", source).await;
}

#[tokio::test]
async fn a_token_without_a_key_to_wrap_to() {
    let vault = vault_with_key().await;
    let claim = "x-ms-runtime.keys";
    let changes: [fn(&mut Value); 7] = [
        |claims| without(claims, "x-ms-runtime"),
        |claims| without(&mut claims["x-ms-runtime"], "keys"),
        |claims| claims["x-ms-runtime"]["keys"] = json!([]),
        |claims| claims["x-ms-runtime"]["keys"][0]["key_ops"] = json!(["verify"]),
        |claims| claims["x-ms-runtime"]["keys"][0]["kty"] = json!("EC"),
        |claims| without(&mut claims["x-ms-runtime"]["keys"][0], "kid"),
        |claims| claims["x-ms-runtime"]["keys"][0]["n"] = json!("!"),
    ];
    for change in changes {
        claims_refused(&vault, change, "WrapKeyMissing", claim).await;
    }
}

#[tokio::test]
async fn a_key_to_wrap_to_that_only_the_inner_claims_name() {
    let vault = vault_with_key().await;
    let hide = |claims: &mut Value| {
        let runtime = claims["x-ms-runtime"].take();
        claims["x-ms-isolation-tee"] = json!({"x-ms-runtime": runtime});
    };
    claims_refused(&vault, hide, "WrapKeyMissing", "x-ms-runtime.keys").await;
}

#[tokio::test]
async fn a_key_to_wrap_to_that_is_too_small() {
    let vault = vault_with_key().await;
    let small = |claims: &mut Value| claims["x-ms-runtime"]["keys"][0]["n"] = json!(encoded([0xC1; 128]));
    let answer = claims_refused(&vault, small, "WrapKeyTooSmall", "x-ms-runtime.keys").await;
    assert_eq!(answer.denial()["actual"], "1024 bits");
    // Leading zeros do not make it larger.
    let padded = |claims: &mut Value| {
        let number = [vec![0; 128], vec![0xC1; 128]].concat();
        claims["x-ms-runtime"]["keys"][0]["n"] = json!(encoded(number));
    };
    claims_refused(&vault, padded, "WrapKeyTooSmall", "x-ms-runtime.keys").await;
}

#[tokio::test]
async fn a_key_to_wrap_to_with_an_exponent_that_encrypts_nothing() {
    let vault = vault_with_key().await;
    for exponent in [json!("AQ"), json!("AA"), json!("Ag")] {
        claims_refused(
            &vault,
            |claims| claims["x-ms-runtime"]["keys"][0]["e"] = exponent.clone(),
            "WrapKeyMissing",
            "x-ms-runtime.keys",
        )
        .await;
    }
}

#[tokio::test]
async fn a_development_token_where_the_installation_trusts_only_amd() {
    let folder = Folder { allow_development_roots: false, ..Folder::new() };
    let vault = folder.open().await;
    vault.exportable("platform", platform_conditions()).await;
    let token = attestation().token(&vault.evidence(0));
    refused(&vault, &token, "DevelopmentRootRefused", "x-casemate-trust-root").await;
}

#[tokio::test]
async fn a_development_token_where_the_keys_policy_does_not_say_so() {
    let vault = Vault::new().await;
    let compliant = json!({"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"});
    let development = json!({"claim": "x-casemate-trust-root", "equals": "development"});
    let policies = [json!([compliant]), json!([{"anyOf": [compliant, development]}])];
    for policy in policies {
        vault.exportable("platform", policy).await;
        let token = attestation().token(&vault.evidence(0));
        refused(&vault, &token, "DevelopmentRootNotInPolicy", "x-casemate-trust-root").await;
    }
}

#[tokio::test]
async fn a_root_that_nobody_knows() {
    let vault = vault_with_key().await;
    let claim = "x-casemate-trust-root";
    for root in ["", "AMD", "intel"] {
        claims_refused(&vault, |claims| claims[claim] = root.into(), "TrustRootUnknown", claim).await;
    }
}

#[tokio::test]
async fn amds_root_needs_no_consent() {
    let folder = Folder { allow_development_roots: false, ..Folder::new() };
    let vault = folder.open().await;
    let compliant = json!({"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"});
    vault.exportable("platform", json!([compliant])).await;
    let mut claims = vault.evidence(0);
    claims["x-casemate-trust-root"] = "amd".into();
    vault.release("/keys/platform/release", &attestation().token(&claims)).await.ok();
}

#[tokio::test]
async fn the_control_planes_own_token_as_evidence() {
    let vault = vault_with_key().await;
    let token = control_plane().token(&vault.caller_claims(&["Key Vault Crypto Officer"]));
    refused(&vault, &token, "TokenIssuerUnknown", "iss").await;
    let token = control_plane().token(&vault.evidence(0));
    refused(&vault, &token, "TokenKeyUnknown", "kid").await;
}

#[tokio::test]
async fn a_token_of_an_authority_that_the_service_knows_but_the_policy_does_not() {
    let vault = Vault::new().await;
    let authority = json!({
        "authority": "https://attest.other.test",
        "allOf": [{"claim": "x-casemate-trust-root", "equals": "development"}],
    });
    let policy = json!({"version": "1.0.0", "anyOf": [authority]}).to_string();
    let body = json!({
        "kty": "RSA-HSM", "attributes": {"exportable": true}, "release_policy": {"data": encoded(policy)},
    });
    vault.officer("POST", "/keys/platform/create", &body).await.ok();
    refused(&vault, &attestation().token(&vault.evidence(0)), "ReleasePolicyNotMet", "iss").await;
}

#[tokio::test]
async fn a_disabled_key() {
    let vault = vault_with_key().await;
    let disable = json!({"attributes": {"enabled": false}});
    vault.officer("PATCH", "/keys/platform/", &disable).await.ok();
    let token = attestation().token(&vault.evidence(0));
    refused(&vault, &token, "KeyDisabled", "attributes.enabled").await;
    vault.officer("PATCH", "/keys/platform/", &json!({"attributes": {"enabled": true}})).await.ok();
    vault.release("/keys/platform/release", &token).await.ok();
}

#[tokio::test]
async fn a_key_that_is_not_exportable() {
    let vault = Vault::new().await;
    vault.officer("POST", "/keys/platform/create", &json!({"kty": "RSA-HSM"})).await.ok();
    let token = attestation().token(&vault.evidence(0));
    refused(&vault, &token, "KeyNotExportable", "attributes.exportable").await;
}

#[tokio::test]
async fn a_deleted_key() {
    let vault = vault_with_key().await;
    vault.officer("DELETE", "/keys/platform", &Value::Null).await.ok();
    let token = attestation().token(&vault.evidence(0));
    let answer = vault.release("/keys/platform/release", &token).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "KeyNotFound"));
}

#[tokio::test]
async fn the_key_is_wrapped_to_nobody_but_the_first_key_in_the_token() {
    let vault = vault_with_key().await;
    let mut claims = vault.evidence(0);
    let (n, e) = numbers(&KeyPair::generate(KeySize::Rsa2048).unwrap());
    let intruder = json!({"kid": "Intruder", "kty": "RSA", "use": "enc", "n": n, "e": e});
    claims["x-ms-runtime"]["keys"].as_array_mut().unwrap().push(intruder);
    let answer = vault.release("/keys/platform/release", &attestation().token(&claims)).await.ok();
    let (_, payload) = crate::support::unwrap::verified(answer["value"].as_str().unwrap());
    let wrapped = payload["response"]["key"]["key"]["key_hsm"].as_str().unwrap();
    let wrapped: Value = serde_json::from_slice(&decoded(wrapped)).unwrap();
    assert_eq!(wrapped["header"]["kid"], "HCLTransferKey");
    crate::support::unwrap::released_modulus(&payload, crate::support::issuer::transfer_key());
}
