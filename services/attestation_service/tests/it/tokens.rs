//! What a token says, and what is recorded of it.

use attestation_service::app::platform_policy::DEFAULT_POLICY;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use expect_test::expect;
use policy::language::policy_hash;
use public_api::decision_log::{Decision, Entry, verify};
use public_api::encoding::{from_base64_any, to_base64url};
use serde_json::{Value, json};

use crate::support::*;

/// Takes out what differs from run to run, after looking at its form.
fn masked(mut claims: Value) -> Value {
    let (iat, nbf, exp) = (claims["iat"].as_i64(), claims["nbf"].as_i64(), claims["exp"].as_i64());
    assert_eq!((nbf, exp), (iat, iat.map(|iat| iat + 28_800)));
    let jti = claims["jti"].as_str().expect("an id").to_owned();
    assert!(
        jti.len() == 64 && jti.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
    );
    for claim in ["iat", "nbf", "exp", "jti"] {
        claims.as_object_mut().expect("an object").remove(claim);
    }
    assert_eq!(claims["x-casemate-chip-id"], json!(hex::encode(OURS.authority.chip_id())));
    assert_eq!(claims["x-casemate-trust-root-id"], json!(hex::encode(OURS.authority.root_id())));
    claims["x-casemate-chip-id"] = json!("CHIP");
    claims["x-casemate-trust-root-id"] = json!("ROOT");
    claims
}

#[tokio::test]
async fn the_claims_of_a_token() {
    let lab = Lab::new().await;
    let claims = masked(lab.accepted(&Attempt::honest().body()).await);
    expect![[r#"
        {
          "iss": "https://attest.example",
          "x-casemate-alias-check-complete": true,
          "x-casemate-chip-id": "CHIP",
          "x-casemate-ciphertext-hiding": false,
          "x-casemate-committed-tcb": "db18000000000004",
          "x-casemate-current-tcb": "db18000000000004",
          "x-casemate-ecc-enabled": true,
          "x-casemate-launch-tcb": "db18000000000004",
          "x-casemate-nonce-source": "none",
          "x-casemate-product": "Milan",
          "x-casemate-rapl-disabled": false,
          "x-casemate-reference": "ovmf-test/paravisor-test/EPYC-Milan/2",
          "x-casemate-reported-tcb": "db18000000000004",
          "x-casemate-signing-key": "VCEK",
          "x-casemate-smt-enabled": true,
          "x-casemate-trust-root": "development",
          "x-casemate-trust-root-id": "ROOT",
          "x-casemate-tsme-enabled": false,
          "x-ms-attestation-type": "sevsnpvm",
          "x-ms-compliance-status": "azure-compliant-cvm",
          "x-ms-inittime": {
            "version": 1,
            "vmId": "0B5E7F6C-2C8D-4C4A-9C62-0F0A8B4C7D11"
          },
          "x-ms-policy-hash": "eAGNTNyfukD8xtvc6k9ng2avCdiStXDhrA2TOZY-yq8",
          "x-ms-runtime": {
            "keys": [],
            "vm-configuration": {
              "secure-boot": true
            }
          },
          "x-ms-sevsnpvm-authorkeydigest": "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
          "x-ms-sevsnpvm-bootloader-svn": 4,
          "x-ms-sevsnpvm-familyId": "00000000000000000000000000000000",
          "x-ms-sevsnpvm-guestsvn": 0,
          "x-ms-sevsnpvm-hostdata": "b0a41bcdf78cea91966c7a09c692ee2e5eabf2937260215424753d69699fc638",
          "x-ms-sevsnpvm-idkeydigest": "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
          "x-ms-sevsnpvm-imageId": "00000000000000000000000000000000",
          "x-ms-sevsnpvm-is-debuggable": false,
          "x-ms-sevsnpvm-launchmeasurement": "bd2a67a8bb881ea88711992ee52afc2bed65624cf267cf093273b8cda59e290f764970bf2040dc96f10e8a0075043955",
          "x-ms-sevsnpvm-microcode-svn": 219,
          "x-ms-sevsnpvm-migration-allowed": false,
          "x-ms-sevsnpvm-reportdata": "21147c9b5b75f281f650e5efa6ec64a7e8daed6cc88aee9c4698ac89ff951e1e0000000000000000000000000000000000000000000000000000000000000000",
          "x-ms-sevsnpvm-reportid": "1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d",
          "x-ms-sevsnpvm-smt-allowed": true,
          "x-ms-sevsnpvm-snpfw-svn": 24,
          "x-ms-sevsnpvm-tee-svn": 0,
          "x-ms-sevsnpvm-vmpl": 0,
          "x-ms-ver": "1.0"
        }"#]].assert_eq(&serde_json::to_string_pretty(&claims).expect("JSON"));
    assert_eq!(claims["x-ms-policy-hash"], json!(policy_hash(DEFAULT_POLICY)));
}

#[tokio::test]
async fn data_that_are_not_json_are_shown_in_base64url() {
    let lab = Lab::new().await;
    let mut attempt = Attempt::honest();
    attempt.report.report_data[..32].copy_from_slice(&sha256(b"\xff\x00raw"));
    let mut body = attempt.body();
    body["runtimeData"] = json!({"data": to_base64url(b"\xff\x00raw"), "dataType": "Binary"});
    let claims = lab.accepted(&body).await;
    assert_eq!(claims["x-ms-runtime"], json!(to_base64url(b"\xff\x00raw")));
}

#[tokio::test]
async fn evidence_without_attached_data_gives_a_token_without_them() {
    let lab = Lab::new().await;
    let mut body = Attempt::honest().body();
    body.as_object_mut().expect("an object").remove("runtimeData");
    body.as_object_mut().expect("an object").remove("initTimeData");
    let claims = lab.accepted(&body).await;
    assert!(claims.get("x-ms-runtime").is_none() && claims.get("x-ms-inittime").is_none());
}

#[tokio::test]
async fn tokens_outlive_a_restart_of_the_service() {
    let lab = Lab::new().await;
    let (_, answer) = lab.attest(&Attempt::honest().body()).await;
    let lab = lab.restarted().await;
    lab.verified(answer["token"].as_str().expect("a token")).await;
}

async fn log(lab: &Lab, query: &str, bearer: Option<&str>) -> (StatusCode, Value) {
    let mut request = Request::get(format!("/log{query}"));
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    lab.send(request.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn every_verdict_is_in_the_log() {
    let lab = Lab::new().await;
    let claims = lab.accepted(&Attempt::honest().body()).await;
    lab.denied(&Attempt::of(&STRANGERS).body()).await;
    lab.denied(&Attempt::with(|report| report.vmpl = 1).body()).await;
    let (status, entries) = log(&lab, "", Some(LOG_TOKEN)).await;
    assert_eq!(status, StatusCode::OK);
    let entries: Vec<Entry> = serde_json::from_value(entries).expect("entries");
    assert_eq!(verify(None, &entries), Ok(3));
    let told: Vec<_> = entries.iter().map(|entry| (entry.decision, entry.subject.as_str())).collect();
    assert_eq!(
        told,
        [(Decision::Attested, VM_ID), (Decision::Refused, "unverified evidence"), (Decision::Refused, VM_ID),]
    );
    assert_eq!(entries[0].detail["tokenId"], claims["jti"]);
    let (_, later) = log(&lab, "?after=2", Some(LOG_TOKEN)).await;
    assert_eq!(later, json!([entries[2]]));
}

#[tokio::test]
async fn the_log_is_not_for_everybody() {
    let lab = Lab::new().await;
    for bearer in [None, Some(""), Some("let me reaD"), Some("let me read2")] {
        let (status, answer) = log(&lab, "", bearer).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")));
    }
    let (status, answer) = log(&lab, "?after=x", Some(LOG_TOKEN)).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("InvalidParameter")));
    let closed = Lab::with(|config| config.administrator.clear()).await;
    assert_eq!(log(&closed, "", Some("")).await.0, StatusCode::UNAUTHORIZED);
}

/// A policy as clients send it.
fn draft(policy: &str) -> Value {
    let payload = json!({"AttestationPolicy": to_base64url(policy.as_bytes())}).to_string();
    json!(format!("{}.{}.", to_base64url(br#"{"alg":"none"}"#), to_base64url(payload.as_bytes())))
}

#[tokio::test]
async fn a_draft_policy_gives_a_result_that_nobody_can_take_for_a_token() {
    let lab = Lab::new().await;
    let mut body = Attempt::honest().body();
    body["draftPolicyForAttestation"] = draft(
        r#"version=1.0; authorizationrules { => permit(); };
        issuancerules { c:[type=="x-casemate-product"] => issue(type="product", value=c.value); };"#,
    );
    let (status, answer) = lab.attest(&body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let token = answer["token"].as_str().expect("a result");
    assert!(token.ends_with('.'), "there is no signature");
    let header = from_base64_any(token.split('.').next().expect("a header")).expect("base64");
    assert_eq!(header, br#"{"alg":"none","typ":"JWT"}"#);
    let claims = payload(token);
    assert_eq!(claims["product"], "Milan");
    assert!(claims.get("x-ms-compliance-status").is_none(), "the shipped policy was not asked");
}

#[tokio::test]
async fn a_draft_policy_that_denies_or_does_not_parse_says_why() {
    let lab = Lab::new().await;
    let mut body = Attempt::honest().body();
    body["draftPolicyForAttestation"] = draft(
        r#"version=1.0; authorizationrules { [type=="x-casemate-product", value=="Genoa"] => permit(); };"#,
    );
    let (status, answer) = lab.attest(&body).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("PolicyEvaluationError"))
    );
    expect![[r#"
        code: PolicyDenied
        claim: x-casemate-product
        expected: "Genoa"
        actual: "Milan"
        rule: line 1 of the attestation policy: [type=="x-casemate-product", value=="Genoa"] => permit()
        remedy: see the rule of the attestation policy"#]]
    .assert_eq(&shown(&answer["error"]["denial"]));
    body["draftPolicyForAttestation"] = draft("version=1.0; authorizationrules { => allow(); };");
    let (_, answer) = lab.attest(&body).await;
    expect![[r#"{"code":"InvalidParameter","message":"`draftPolicyForAttestation`: the draft policy cannot be read: line 1, column 38: expected `permit`, `deny`, `add` or `issue`, found `allow`","target":"draftPolicyForAttestation"}"#]].assert_eq(&answer["error"].to_string());
    // Genuine evidence is needed for a draft, too.
    let mut stranger = Attempt::of(&STRANGERS).body();
    stranger["draftPolicyForAttestation"] = draft("version=1.0; authorizationrules { => permit(); };");
    lab.denied_with(&stranger, "RootNotTrusted").await;
}

#[tokio::test]
async fn the_policy_in_force_can_be_read() {
    let lab = Lab::new().await;
    let (status, answer) = lab.get("/policies/SevSnpVm?api-version=2022-08-01").await;
    assert_eq!(status, StatusCode::OK);
    let claims = lab.verified(answer["token"].as_str().expect("a token")).await;
    let jws = claims["x-ms-policy"].as_str().expect("a policy");
    assert!(jws.starts_with("eyJhbGciOiJub25lIn0.") && jws.ends_with('.'), "{jws}");
    let text =
        payload(jws)["AttestationPolicy"].as_str().map(from_base64_any).expect("a text").expect("base64");
    assert_eq!(text, DEFAULT_POLICY.as_bytes());
    assert_eq!(claims["exp"].as_i64(), claims["iat"].as_i64().map(|iat| iat + 3600));
}
