//! Revocation lists that are demanded, fetched, kept, and no longer served.

use std::sync::{Arc, Mutex};

use attestation_service::reconcile::revocation::{Sources, refresh};
use axum::http::StatusCode;
use axum::routing::get;

use crate::support::*;

/// A key distribution service that answers with whatever a test puts there.
struct Kds {
    url: String,
    answer: Arc<Mutex<(StatusCode, Vec<u8>)>>,
}

impl Kds {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let answer = Arc::new(Mutex::new((StatusCode::TOO_MANY_REQUESTS, Vec::new())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/vcek/v1/Milan/crl", listener.local_addr().expect("an address"));
        let shared = Arc::clone(&answer);
        let routes = axum::Router::new()
            .route("/vcek/v1/Milan/crl", get(async move || shared.lock().expect("whole").clone()));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, answer }
    }

    fn serve(&self, status: StatusCode, list: Vec<u8>) {
        *self.answer.lock().expect("whole") = (status, list);
    }
}

async fn lab(kds: &Kds) -> Lab {
    Lab::with(|config| {
        config.crl_urls.push(kds.url.clone());
        config.crl_required = true;
    })
    .await
}

fn days_ago(days: i64) -> i64 {
    jiff::Timestamp::now().as_second() - days * 86_400
}

#[tokio::test]
async fn a_demanded_list_is_fetched_and_outlives_restarts_and_outages() {
    let kds = Kds::start().await;
    let lab = lab(&kds).await;
    let body = Attempt::honest().body();
    lab.denied_with(&body, "RevocationListMissing").await;
    assert!(!refresh(&lab.service, &Sources::of(&lab.config)).await, "the service says 429");
    assert!(lab.service.appraiser.lacks_every_crl(), "it cannot verify anything yet");
    lab.denied_with(&body, "RevocationListMissing").await;
    kds.serve(StatusCode::OK, OURS.authority.crl(days_ago(0)).expect("a list"));
    assert!(refresh(&lab.service, &Sources::of(&lab.config)).await);
    assert!(!lab.service.appraiser.lacks_every_crl());
    lab.accepted(&body).await;
    kds.serve(StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    assert!(!refresh(&lab.service, &Sources::of(&lab.config)).await);
    let lab = lab.restarted().await;
    lab.accepted(&body).await;
}

#[tokio::test]
async fn a_strangers_an_altered_and_an_older_list_change_nothing() {
    let kds = Kds::start().await;
    let lab = lab(&kds).await;
    let body = Attempt::honest().body();
    let ours = OURS.authority.crl(days_ago(0)).expect("a list");
    let mut altered = ours.clone();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    for wrong in [
        STRANGERS.authority.crl(days_ago(0)).expect("a list"),
        altered,
        b"nonsense".to_vec(),
        vec![0x30; 2 << 20],
    ] {
        kds.serve(StatusCode::OK, wrong);
        assert!(!refresh(&lab.service, &Sources::of(&lab.config)).await);
        lab.denied_with(&body, "RevocationListMissing").await;
    }
    kds.serve(StatusCode::OK, ours);
    assert!(refresh(&lab.service, &Sources::of(&lab.config)).await);
    kds.serve(StatusCode::OK, OURS.authority.crl(days_ago(400)).expect("a list"));
    refresh(&lab.service, &Sources::of(&lab.config)).await;
    lab.accepted(&body).await;
}
