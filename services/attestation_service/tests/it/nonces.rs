//! Nonces of the service: accepted once, in time, and only where the report is bound to them.

use attestation_service::app::request::Request;
use axum::http::StatusCode;
use expect_test::expect;
use http_service::peer::Peer;
use serde_json::json;

use crate::support::*;

async fn nonce(lab: &Lab) -> String {
    let (status, answer) = lab.post("/nonces", "{}").await;
    assert_eq!(status, StatusCode::OK);
    answer["nonce"].as_str().expect("a nonce").to_owned()
}

#[tokio::test]
async fn a_nonce_of_the_service_is_shown_as_such_and_used_up() {
    let lab = Lab::new().await;
    let nonce = nonce(&lab).await;
    let attempt = Attempt::with_nonce(&nonce);
    let claims = lab.accepted(&attempt.body()).await;
    assert_eq!(claims["x-casemate-nonce-source"], "server");
    assert_eq!(claims["nonce"], json!(nonce));
    expect![[r#"
        code: NonceReplayed
        claim: nonce
        expected: a nonce that was not presented before
        actual: a nonce that was presented before
        rule: a nonce of POST /nonces is accepted once and in time
        remedy: get a new nonce and a new report that is bound to it"#]]
    .assert_eq(&shown(&lab.denied(&attempt.body()).await));
}

#[tokio::test]
async fn a_nonce_replayed_after_a_restart() {
    let lab = Lab::new().await;
    let attempt = Attempt::with_nonce(&nonce(&lab).await);
    lab.accepted(&attempt.body()).await;
    let lab = lab.restarted().await;
    lab.denied_with(&attempt.body(), "NonceReplayed").await;
    let other = Attempt::with_nonce(&nonce(&lab).await);
    lab.accepted(&other.body()).await;
}

#[tokio::test]
async fn a_nonce_replayed_by_many_at_once_is_accepted_once() {
    let lab = Lab::new().await;
    let attempt = Attempt::with_nonce(&nonce(&lab).await);
    let requests: Vec<_> = (0..8)
        .map(|_| {
            let service = std::sync::Arc::clone(&lab.service);
            let request = Request::parse(attempt.body().to_string().as_bytes()).expect("a request");
            let now = jiff::Timestamp::now().as_second();
            tokio::spawn(async move {
                service
                    .attest(service.providers.default_provider(), request, Peer::Loopback, now)
                    .await
                    .is_ok()
            })
        })
        .collect();
    let mut accepted = 0;
    for request in requests {
        accepted += usize::from(request.await.expect("the task ends"));
    }
    assert_eq!(accepted, 1);
}

#[tokio::test]
async fn an_expired_nonce() {
    let lab = Lab::new().await;
    let issued = lab.service.issue_nonce(jiff::Timestamp::now().as_second() - 1000);
    let denial = lab.denied_with(&Attempt::with_nonce(&issued.nonce).body(), "NonceExpired").await;
    assert_eq!(denial["claim"], "nonce");
}

#[tokio::test]
async fn a_nonce_of_the_service_with_a_report_from_before() {
    let lab = Lab::new().await;
    let mut attempt = Attempt::honest();
    attempt.nonce = Some(json!(nonce(&lab).await));
    let denial = lab.denied_with(&attempt.body(), "NonceNotBound").await;
    assert_eq!(denial["actual"], "missing");
    let mut attempt = Attempt::with_nonce(&nonce(&lab).await);
    attempt.nonce = Some(json!(nonce(&lab).await));
    lab.denied_with(&attempt.body(), "NonceNotBound").await;
}

#[tokio::test]
async fn a_refused_report_does_not_use_the_nonce_up() {
    let lab = Lab::new().await;
    let attempt = Attempt::with_nonce(&nonce(&lab).await);
    let mut altered = attempt.machine.sign(&attempt.report);
    altered[0x90] ^= 1;
    lab.denied(&attempt.body_with_report(&altered)).await;
    lab.accepted(&attempt.body()).await;
}

#[tokio::test]
async fn a_clients_own_nonce_is_echoed_and_shown_as_the_clients() {
    let lab = Lab::new().await;
    for nonce in [json!("mine"), json!(18_446_744_073_709_551_615_u64), json!("ab".repeat(32))] {
        let mut attempt = Attempt::honest();
        attempt.nonce = Some(nonce.clone());
        for _ in 0..2 {
            let claims = lab.accepted(&attempt.body()).await;
            assert_eq!((&claims["nonce"], &claims["x-casemate-nonce-source"]), (&nonce, &json!("client")));
        }
    }
    let claims = lab.accepted(&Attempt::honest().body()).await;
    assert_eq!(claims["x-casemate-nonce-source"], "none");
    assert!(claims.get("nonce").is_none());
}
