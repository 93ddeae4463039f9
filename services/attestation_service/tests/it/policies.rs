//! Policies of a provider: set, shown, decided by, staged, tried, rolled back; each refusal with its reason.

use attestation_service::app::provider::document::unsigned_jws;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Attempt, LOG_TOKEN, Lab, payload};

const PERMIT: &str = "version=1.0; authorizationrules { => permit(); };";
const PRODUCT: &str = r#"version=1.0; authorizationrules { => permit(); };
issuancerules { c:[type=="x-casemate-product"] => issue(type="product", value=c.value); };"#;
const DENY: &str = r#"version=1.0; authorizationrules {
    [type=="x-ms-sevsnpvm-guestsvn", value>=7] => permit(); };"#;

async fn set(lab: &Lab, text: &str) {
    let (status, answer) = lab.put("/policies/SevSnpVm", &unsigned_jws(text), ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

async fn act(lab: &Lab, verb: &str, body: &str) -> (StatusCode, Value) {
    lab.post_as(&format!("/policies/SevSnpVm:{verb}"), body, ADMIN_TOKEN).await
}

async fn history(lab: &Lab) -> Vec<(u64, String)> {
    let (status, versions) = lab.get_as("/policies/SevSnpVm/versions", LOG_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{versions}");
    let version = |version: &Value| {
        (
            version["version"].as_u64().expect("a number"),
            version["state"].as_str().expect("a text").to_owned(),
        )
    };
    versions.as_array().expect("a list").iter().map(version).collect()
}

#[tokio::test]
async fn a_policy_decides_from_its_setting_to_its_reset_and_survives_restarts() {
    let lab = Lab::new().await;
    set(&lab, PRODUCT).await;
    let claims = lab.accepted(&Attempt::honest().body()).await;
    assert_eq!(claims["product"], "Milan");
    assert_eq!(claims["x-ms-policy-hash"], policy::language::policy_hash(PRODUCT));
    set(&lab, DENY).await;
    let lab = lab.restarted().await;
    let denial = lab.denied_with(&Attempt::honest().body(), "PolicyDenied").await;
    assert!(denial["rule"].as_str().expect("a rule").contains("guestsvn"), "{denial}");
    let (status, answer) = act(&lab, "reset", "eyJhbGciOiJub25lIn0..").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(lab.verified_policy(&answer).await["x-ms-policy-result"], "Removed");
    let claims = lab.accepted(&Attempt::honest().body()).await;
    assert!(claims.get("product").is_none());
    assert_eq!(history(&lab).await, [(2, "former".to_owned()), (1, "former".to_owned())]);
}

/// A provider's owner can be lenient about who gets a token, but not about what the token says.
#[tokio::test]
async fn a_policy_that_permits_everything_makes_no_vm_compliant() {
    let lab = Lab::new().await;
    set(&lab, PERMIT).await;
    let good = lab.accepted(&Attempt::honest().body()).await;
    assert_eq!(good["x-ms-compliance-status"], "azure-compliant-cvm");
    let debuggable = Attempt::with(|report| report.policy = snp::GuestPolicy(report.policy.0 | 1 << 19));
    let bad = lab.accepted(&debuggable.body()).await;
    assert_eq!(bad["x-ms-sevsnpvm-is-debuggable"], true);
    assert!(bad.get("x-ms-compliance-status").is_none(), "{bad}");
    assert_eq!(bad["x-casemate-trust-root"], "development");
}

#[tokio::test]
async fn a_policy_cannot_speak_in_the_services_name() {
    let lab = Lab::new().await;
    for claim in ["x-ms-compliance-status", "x-casemate-trust-root", "iss", "secureboot"] {
        set(
            &lab,
            &format!(
                r#"version=1.0; authorizationrules {{ => permit(); }};
                   issuancerules {{ => issue(type="{claim}", value="amd"); }};"#
            ),
        )
        .await;
        let denial = lab.denied_with(&Attempt::honest().body(), "PolicyIssuesReservedClaim").await;
        assert_eq!(denial["claim"], claim);
    }
    set(
        &lab,
        r#"version=1.0; authorizationrules { => permit(); };
           issuancerules { c:[type=="x-ms-sevsnpvm-vmpl"] => issue(claim=c); };"#,
    )
    .await;
    assert_eq!(lab.accepted(&Attempt::honest().body()).await["x-ms-sevsnpvm-vmpl"], 0);
}

#[tokio::test]
async fn what_is_shown_is_what_was_sent_and_its_hash_is_told() {
    let lab = Lab::new().await;
    let jws = unsigned_jws(PRODUCT);
    let (_, answer) =
        lab.put("/policies/sevsnpvm?api-version=2020-10-01", &json!(jws).to_string(), ADMIN_TOKEN).await;
    let claims = lab.verified_policy(&answer).await;
    let hash = public_api::encoding::to_base64url(&crate::support::sha256(jws.as_bytes()));
    assert_eq!(
        (&claims["x-ms-policy-result"], &claims["x-ms-policy-token-hash"]),
        (&json!("Updated"), &json!(hash))
    );
    let (_, shown) = lab.get("/policies/SevSnpVm?api-version=2020-10-01").await;
    assert_eq!(payload(shown["token"].as_str().expect("a token"))["x-ms-policy"], jws);
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_refused_with_its_place_and_changes_nothing() {
    let lab = Lab::new().await;
    let cases = [
        (
            unsigned_jws("version=1.0; authorizationrules {\n => alow(); };"),
            "InvalidPolicy",
            "line 2, column 5",
        ),
        ("nonsense".to_owned(), "InvalidParameter", "three parts"),
        ("eyJhbGciOiJub25lIn0..".to_owned(), "InvalidParameter", ":reset"),
        (format!("{}AA", unsigned_jws(PERMIT)), "InvalidParameter", "there is a signature"),
    ];
    for (body, code, part) in cases {
        let (status, answer) = lab.put("/policies/SevSnpVm", &body, ADMIN_TOKEN).await;
        let message = answer["error"]["message"].as_str().expect("a message");
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(code)), "{answer}");
        assert!(message.contains(part), "{message}");
    }
    assert!(history(&lab).await.is_empty());
}

#[tokio::test]
async fn changing_needs_a_contributor_and_reading_a_reader() {
    let lab = Lab::new().await;
    let jws = unsigned_jws(PERMIT);
    for (token, expected) in [("", StatusCode::UNAUTHORIZED), (LOG_TOKEN, StatusCode::FORBIDDEN)] {
        assert_eq!(lab.put("/policies/SevSnpVm", &jws, token).await.0, expected);
        for verb in ["reset", "stage", "promote", "withdraw", "rollback"] {
            let path = format!("/policies/SevSnpVm:{verb}?version=1");
            assert_eq!(lab.post_as(&path, &jws, token).await.0, expected, "{verb}");
        }
        for path in ["/certificates:add", "/certificates:remove", "/signingKeys:rotate"] {
            assert_eq!(lab.post_as(path, &jws, token).await.0, expected, "{path}");
        }
        assert_eq!(lab.put("/providers/another", "{}", token).await.0, expected);
        assert_eq!(lab.delete("/providers/another", token).await.0, expected);
    }
    for path in ["/policies/SevSnpVm/versions", "/certificates", "/providers", "/log"] {
        assert_eq!(lab.get_as(path, "").await.0, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(lab.get_as(path, LOG_TOKEN).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(lab.post_as("/policies/SevSnpVm:dryRun", &jws, "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(lab.post_as("/policies/SevSnpVm:dryRun", &jws, LOG_TOKEN).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_staged_policy_refuses_nothing_and_what_it_would_refuse_is_logged() {
    let lab = Lab::new().await;
    assert_eq!(act(&lab, "stage", &unsigned_jws(DENY)).await.0, StatusCode::OK);
    lab.accepted(&Attempt::honest().body()).await;
    let entries = lab.service.store.entries_after(0).await.expect("the log");
    let staged = &entries.last().expect("an entry").detail["stagedPolicy"];
    assert_eq!((&staged["version"], &staged["wouldRefuse"]["code"]), (&json!(1), &json!("PolicyDenied")));
    assert_eq!(history(&lab).await, [(1, "staged".to_owned())]);
    assert_eq!(act(&lab, "promote", "").await.0, StatusCode::OK);
    lab.denied_with(&Attempt::honest().body(), "PolicyDenied").await;
    let (status, answer) = act(&lab, "promote", "").await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::CONFLICT, &json!("NoStagedPolicy")));
}

#[tokio::test]
async fn history_differences_and_a_way_back() {
    let lab = Lab::new().await;
    set(&lab, PRODUCT).await;
    set(&lab, DENY).await;
    let (_, difference) = lab.get_as("/policies/SevSnpVm/difference?from=1&to=2", LOG_TOKEN).await;
    let text = difference["difference"].as_str().expect("a text");
    assert!(text.starts_with("--- version 1\n+++ version 2\n") && text.contains("\n+    [type=="), "{text}");
    let (_, difference) = lab.get_as("/policies/SevSnpVm/difference?from=2&to=2", LOG_TOKEN).await;
    assert_eq!(difference["difference"], "");
    assert_eq!(act(&lab, "rollback?version=1", "").await.0, StatusCode::OK);
    let lab = lab.restarted().await;
    assert_eq!(lab.accepted(&Attempt::honest().body()).await["product"], "Milan");
    assert_eq!(history(&lab).await, [(2, "former".to_owned()), (1, "active".to_owned())]);
    let (status, answer) = act(&lab, "rollback?version=9", "").await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("PolicyVersionNotFound")));
    let (status, _) = act(&lab, "rollback", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_dry_run_tells_which_vms_a_policy_would_refuse() {
    let lab = Lab::new().await;
    lab.accepted(&Attempt::honest().body()).await;
    let mut newer = Attempt::with(|report| report.guest_svn = 7);
    newer.init_time["vmId"] = json!("NEWER");
    newer.bind();
    lab.accepted(&newer.body()).await;
    // One that the shipped policy refuses and a more lenient one would permit.
    let mut debuggable = Attempt::with(|report| report.policy = snp::GuestPolicy(report.policy.0 | 1 << 19));
    debuggable.init_time["vmId"] = json!("DEBUGGABLE");
    debuggable.bind();
    lab.denied_with(&debuggable.body(), "GuestDebugAllowed").await;
    let (status, result) = act(&lab, "dryRun", &unsigned_jws(DENY)).await;
    assert_eq!(status, StatusCode::OK, "{result}");
    assert_eq!((&result["evaluated"], &result["permitted"]), (&json!(3), &json!(1)));
    let changes = result["changes"].as_array().expect("a list");
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0]["refusedThen"]["code"], "PolicyDenied");
    let (_, result) = act(&lab, "dryRun", &unsigned_jws(PERMIT)).await;
    assert_eq!(result["permitted"], 3);
    assert_eq!(result["changes"][0]["subject"], "DEBUGGABLE");
    assert_eq!(result["changes"][0]["refusedNow"]["code"], "GuestDebugAllowed");
    let (_, unchanged) = act(&lab, "dryRun", "eyJhbGciOiJub25lIn0..").await;
    assert_eq!(unchanged["changes"], json!([]));
}

#[tokio::test]
async fn every_change_is_in_the_log_with_its_caller() {
    let lab = Lab::new().await;
    set(&lab, PERMIT).await;
    act(&lab, "reset", "eyJhbGciOiJub25lIn0..").await;
    let entries = lab.service.store.entries_after(0).await.expect("the log");
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.subject.as_str(), &entry.detail["operation"], &entry.detail["caller"]))
        .collect();
    let subject = "providers/default/policies/SevSnpVm";
    let (active, reset, caller) = (json!("Active"), json!("Reset"), json!("contributor"));
    assert_eq!(told, [(subject, &active, &caller), (subject, &reset, &caller)]);
}

/// The protected header of a token.
fn header(token: &str) -> Value {
    let header = token.split('.').next().expect("a header");
    serde_json::from_slice(&public_api::encoding::from_base64_any(header).expect("base64")).expect("JSON")
}

#[tokio::test]
async fn a_policy_sets_a_tokens_validity_and_how_it_names_its_certificate() {
    let lab = Lab::new().await;
    set(
        &lab,
        r#"version=1.2; authorizationrules { => permit(); }; issuancerules {
            => issueproperty(type="report_validity_in_minutes", value=15); => issueproperty(type="omit_x5c", value=true);
        };"#,
    )
    .await;
    let (_, answer) = lab.attest(&Attempt::honest().body()).await;
    let token = answer["token"].as_str().expect("a token");
    let claims = lab.verified(token).await;
    let time = |claim: &str| claims[claim].as_i64().expect("a time");
    assert_eq!(time("exp") - time("iat"), 15 * 60);
    let (_, certs) = lab.get("/certs").await;
    let certificate = certs["keys"][0]["x5c"][0].as_str().expect("a certificate");
    let certificate = public_api::encoding::from_base64_any(certificate).expect("base64");
    let digest = public_api::encoding::to_base64url(&crate::support::sha256(&certificate));
    let header = header(token);
    assert_eq!(header["x5t#S256"], digest, "{header}");
    assert!(header["x5t"].is_string() && header.get("x5c").is_none(), "{header}");
}
