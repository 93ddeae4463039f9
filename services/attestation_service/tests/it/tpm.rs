//! `POST /attest/Tpm`: both rounds, and what is refused.

use attestation_service::app::provider::document::unsigned_jws;
use attestation_service::app::tpm::request::bound_challenge;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PSS_SHA256;
use axum::http::StatusCode;
use public_api::encoding::{from_base64_any, to_base64url};
use serde_json::{Value, json};

use crate::azure_guest::forger::*;
use crate::support::*;

/// What the client sends in the second round; a test changes what its attack changes.
struct Round {
    header: Value,
    payload: Value,
    signer: &'static KeyPair,
}

fn jwk(key: &KeyPair) -> Value {
    let key = public(key);
    json!({"kty": "RSA", "n": key.jwk_n(), "e": key.jwk_e()})
}

async fn exchange(lab: &Lab, message: &Value) -> Result<Value, Value> {
    let body = json!({"data": to_base64url(message.to_string().as_bytes())});
    let (status, answer) = lab.post("/attest/Tpm?api-version=2022-08-01", body.to_string()).await;
    if status != StatusCode::OK {
        return Err(answer["error"].clone());
    }
    let data = from_base64_any(answer["data"].as_str().expect("data")).expect("base64url");
    Ok(serde_json::from_slice(&data).expect("JSON"))
}

impl Round {
    /// An honest second round for the challenge of a first one. `bound` binds the request key to the quote.
    async fn honest(lab: &Lab, certified: bool, bound: bool) -> Self {
        let first = exchange(lab, &json!({"type": "aikcert"})).await.expect("a challenge");
        let challenge = from_base64_any(first["challenge"].as_str().expect("a text")).expect("base64url");
        let mut guest = Guest::honest();
        guest.quote.nonce = if bound { bound_challenge(&challenge, &public(&ENC)) } else { challenge };
        let now = jiff::Timestamp::now().as_second();
        let certificate = lab.service.ak_authority.certify(VM_ID, &public(&AK), now).expect("certified");
        let values: Vec<Value> = guest
            .pcrs
            .0
            .iter()
            .map(|(index, digest)| json!({"index": index, "digest": to_base64url(digest)}))
            .collect();
        let quote = guest.quote.encode();
        let signature = [&[0, 0x14, 0, 0x0B, 1, 0][..], &sign(&AK, &quote)].concat();
        let payload = json!({
            "att_type": "basic",
            "att_data": {
                "rp_id": "https://relying.example",
                "rp_data": "cnAgZGF0YQ",
                "challenge": first["challenge"],
                "service_context": first["service_context"],
                "tpm_att_data": {"current_attestation": {
                    "logs": [{"type": "TCG", "log": to_base64url(LOG)}],
                    "aik_cert": if certified { to_base64url(&certificate) } else { String::new() },
                    "aik_pub": jwk(&AK),
                    "pcrs": [{"algorithm": 11, "values": values}],
                    "quote": to_base64url(&quote),
                    "signature": to_base64url(&signature),
                }},
                "request_key": {"jwk": jwk(&ENC), "info": {"tpm_quote": {"hash_alg": "sha-256"}}},
                "other_keys": [],
                "custom_claims": [],
            },
        });
        Self { header: json!({"alg": "PS256", "typ": "attReqV2"}), payload, signer: &ENC }
    }

    fn jws(&self) -> String {
        let part = |value: &Value| to_base64url(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&self.header), part(&self.payload));
        let mut signature = vec![0; self.signer.public_modulus_len()];
        self.signer
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("signed");
        format!("{signed}.{}", to_base64url(&signature))
    }

    async fn send(&self, lab: &Lab) -> Result<Value, Value> {
        let answer = exchange(lab, &json!({"request": self.jws()})).await?;
        Ok(lab.verified(answer["report"].as_str().expect("a report")).await)
    }

    fn current(&mut self) -> &mut Value {
        &mut self.payload["att_data"]["tpm_att_data"]["current_attestation"]
    }
}

#[tokio::test]
async fn a_certified_key_quotes_for_a_challenge() {
    let lab = Lab::new().await;
    let claims = Round::honest(&lab, true, true).await.send(&lab).await.expect("a token");
    assert_eq!(claims["x-ms-attestation-type"], "tpm");
    for name in ["aikValidated", "secureBootEnabled"] {
        assert_eq!(claims[name], true, "{name}");
    }
    assert_eq!((&claims["tpmVersion"], &claims["rp_data"]), (&json!(2), &json!("cnAgZGF0YQ")));
    assert_eq!(claims["x-casemate-vtpm-boundary"], "unknown");
    assert_eq!(claims["cnf"]["jwk"], jwk(&ENC));
    assert_eq!(claims["x-casemate-replayed-pcrs"], json!([0, 1, 2, 3, 4, 5, 6, 7]));
    assert!(claims.get("x-ms-isolation-tee").is_none() && claims.get("x-ms-compliance-status").is_none());
    let unbound = Round::honest(&lab, true, false).await.send(&lab).await.expect("a token");
    assert!(unbound.get("cnf").is_none(), "the request key is not bound to the quote");
}

#[tokio::test]
async fn messages_may_be_wrapped_in_a_payload() {
    let lab = Lab::new().await;
    let first = exchange(&lab, &json!({"payload": {"type": "aikcert"}})).await.expect("a challenge");
    assert!(first["payload"]["challenge"].is_string());
    let round = Round::honest(&lab, true, true).await;
    let answer = exchange(&lab, &json!({"payload": {"request": round.jws()}})).await.expect("a token");
    lab.verified(answer["payload"]["report"].as_str().expect("a report")).await;
}

#[tokio::test]
async fn a_challenge_counts_once() {
    let lab = Lab::new().await;
    let round = Round::honest(&lab, true, true).await;
    round.send(&lab).await.expect("a token");
    assert_eq!(round.send(&lab).await.expect_err("a replay")["denial"]["code"], "NonceReplayed");
}

#[tokio::test]
async fn what_does_not_hold_is_refused() {
    type Change = fn(&mut Round);
    let cases: [(Change, &str); 9] = [
        (|r| r.current()["aik_cert"] = json!(""), "AttestationKeyNotCertified"),
        (|r| r.current()["aik_cert"] = json!("AAAA"), "AttestationKeyNotCertified"),
        (|r| r.current()["aik_pub"] = jwk(&STRANGER), "QuoteSignatureInvalid"),
        (|r| r.current()["logs"][0]["log"] = json!(to_base64url(&LOG[..LOG.len() - 1])), "EventLogMalformed"),
        (
            |r| r.current()["pcrs"][0]["values"][4]["digest"] = json!(to_base64url(&[0; 32])),
            "QuotedPcrsDiffer",
        ),
        (|r| r.current()["quote"] = json!("AAAA"), "QuoteMalformed"),
        (|r| r.payload["att_data"]["challenge"] = json!(to_base64url(&[7; 32])), "ChallengeUnknown"),
        (|r| r.payload["att_data"]["service_context"] = json!("AAAA"), "ChallengeUnknown"),
        (
            |r| {
                let guest = Guest::with(|guest| guest.quote.nonce = vec![7; 32]);
                let quote = guest.quote.encode();
                r.current()["signature"] = json!(to_base64url(&sign(&AK, &quote)));
                r.current()["quote"] = json!(to_base64url(&quote));
            },
            "QuoteNonceMismatch",
        ),
    ];
    let lab = Lab::new().await;
    for (change, code) in cases {
        let mut round = Round::honest(&lab, true, true).await;
        change(&mut round);
        let error = round.send(&lab).await.expect_err(code);
        assert_eq!(error["denial"]["code"], code, "{error}");
    }
}

#[tokio::test]
async fn what_is_not_spoken_here_is_named() {
    type Change = fn(&mut Round);
    let cases: [(Change, &str); 13] = [
        (|r| r.header["alg"] = json!("none"), "request header.alg"),
        (|r| r.header["typ"] = json!("attReq"), "request header.typ"),
        (|r| r.signer = &STRANGER, "request"),
        (|r| r.payload["att_type"] = json!("vbs"), "request.att_type"),
        (|r| r.payload["att_data"]["custom_claims"] = json!([1]), "request.att_data.custom_claims"),
        (|r| r.payload["att_data"]["other_keys"] = json!([1]), "request.att_data.other_keys"),
        (|r| r.payload["att_data"]["extra"] = json!(1), "request.att_data.extra"),
        (
            |r| r.payload["att_data"]["tpm_att_data"]["boot_attestation"] = json!({}),
            "request.att_data.tpm_att_data.boot_attestation",
        ),
        (|r| r.current()["logs"] = json!([]), "request.att_data.tpm_att_data.current_attestation.logs"),
        (
            |r| r.current()["logs"][0]["type"] = json!("IMA"),
            "request.att_data.tpm_att_data.current_attestation.logs.type",
        ),
        (
            |r| r.current()["pcrs"][0]["algorithm"] = json!(4),
            "request.att_data.tpm_att_data.current_attestation.pcrs.algorithm",
        ),
        (
            |r| r.current()["pcrs"][0]["values"][0]["index"] = json!(24),
            "request.att_data.tpm_att_data.current_attestation.pcrs.values.index",
        ),
        (
            |r| r.payload["att_data"]["request_key"]["jwk"]["kty"] = json!("EC"),
            "request.att_data.request_key.jwk.kty",
        ),
    ];
    let lab = Lab::new().await;
    for (change, place) in cases {
        let mut round = Round::honest(&lab, true, true).await;
        change(&mut round);
        let error = round.send(&lab).await.expect_err(place);
        assert_eq!(error["target"], place, "{error}");
    }
    for (message, place) in [
        (json!({"type": "ekcert"}), "data.type"),
        (json!({}), "data.type"),
        (json!({"request": "a.b"}), "request"),
        (json!({"other": 1}), "data.other"),
    ] {
        assert_eq!(exchange(&lab, &message).await.expect_err(place)["target"], place);
    }
}

/// Sets the provider's policy for quotes, with these configuration rules.
async fn configure(lab: &Lab, rules: &str) {
    let text = format!(
        "version=1.2; configurationrules {{ {rules} }}; authorizationrules {{ => permit(); }}; issuancerules {{ }};"
    );
    let (status, answer) = lab.put("/policies/Tpm", &unsigned_jws(&text), ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn configuration_rules_ask_for_pcrs_and_waive_the_keys_certificate() {
    let lab = Lab::new().await;
    configure(&lab, r#"=> issueproperty(type="required_pcr_mask", value=255);"#).await;
    Round::honest(&lab, true, true).await.send(&lab).await.expect("PCRs 0 to 7 are quoted");
    let denied = Round::honest(&lab, false, true).await.send(&lab).await.expect_err("no certificate");
    assert_eq!(denied["denial"]["code"], "AttestationKeyNotCertified", "{denied}");
    configure(&lab, r#"=> issueproperty(type="required_pcr_mask", value=16777215);"#).await;
    let denied = Round::honest(&lab, true, true).await.send(&lab).await.expect_err("not all PCRs are quoted");
    assert_eq!(denied["denial"]["code"], "RequiredPcrNotQuoted", "{denied}");
    configure(&lab, r#"=> issueproperty(type="require_valid_aik_cert", value=false);"#).await;
    Round::honest(&lab, false, true).await.send(&lab).await.expect("the policy waives the certificate");
}

/// A verifier far from the service finds the signing certificate in the token.
#[tokio::test]
async fn a_token_about_a_tpm_carries_its_certificate() {
    let lab = Lab::new().await;
    let answer = exchange(&lab, &json!({"request": Round::honest(&lab, true, true).await.jws()})).await;
    let answer = answer.expect("a token");
    let token = answer["report"].as_str().expect("a report");
    let header = from_base64_any(token.split('.').next().expect("a header")).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    let (_, certs) = lab.get("/certs").await;
    assert_eq!(header["x5c"], certs["keys"][0]["x5c"]);
}
