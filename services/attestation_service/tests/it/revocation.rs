//! Revocation lists that are demanded, fetched, kept, and no longer served.

use attestation_service::reconcile::revocation::{Sources, refresh};
use serde_json::{Value, json};
use snp::CrlScope;

use crate::kds::{Answer, Kds};
use crate::support::*;

const LIST: &str = "/vcek/v1/Milan/crl";
const VLEK_LIST: &str = "/vlek/v1/Milan/crl";

/// A clock that stands an hour ahead of the one before each time it is read: no back-off is longer.
struct Clock(i64);

impl Clock {
    fn start() -> Self {
        Self(days_ago(0))
    }

    fn tick(&mut self) -> i64 {
        self.0 += 3600;
        self.0
    }
}

async fn lab(kds: &Kds) -> Lab {
    Lab::with(|config| {
        config.crl_urls.push(format!("{}{LIST}", kds.url));
        config.crl_required = true;
    })
    .await
}

fn days_ago(days: i64) -> i64 {
    jiff::Timestamp::now().as_second() - days * 86_400
}

#[tokio::test]
async fn a_demanded_list_is_fetched_and_outlives_restarts_and_outages() {
    let (kds, mut clock) = (Kds::start().await, Clock::start());
    kds.answer(LIST, Answer::status(429));
    let lab = lab(&kds).await;
    let body = Attempt::honest().body();
    lab.denied_with(&body, "RevocationListMissing").await;
    assert!(!refresh(&lab.service, &Sources::of(&lab.config), clock.tick()).await, "the service says 429");
    assert!(lab.service.appraiser.lacks_every_crl(), "it cannot verify anything yet");
    lab.denied_with(&body, "RevocationListMissing").await;
    kds.answer(LIST, Answer::bytes(OURS.authority.crl(days_ago(0)).expect("a list")));
    assert!(refresh(&lab.service, &Sources::of(&lab.config), clock.tick()).await);
    assert!(!lab.service.appraiser.lacks_every_crl());
    lab.accepted(&body).await;
    kds.answer(LIST, Answer::status(503));
    assert!(!refresh(&lab.service, &Sources::of(&lab.config), clock.tick()).await);
    let lab = lab.restarted().await;
    lab.accepted(&body).await;
}

#[tokio::test]
async fn a_strangers_an_altered_and_an_older_list_change_nothing() {
    let (kds, mut clock) = (Kds::start().await, Clock::start());
    kds.answer(LIST, Answer::status(429));
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
        kds.answer(LIST, Answer::bytes(wrong));
        assert!(!refresh(&lab.service, &Sources::of(&lab.config), clock.tick()).await);
        lab.denied_with(&body, "RevocationListMissing").await;
    }
    kds.answer(LIST, Answer::bytes(ours));
    assert!(refresh(&lab.service, &Sources::of(&lab.config), clock.tick()).await);
    kds.answer(LIST, Answer::bytes(OURS.authority.crl(days_ago(400)).expect("a list")));
    refresh(&lab.service, &Sources::of(&lab.config), clock.tick()).await;
    lab.accepted(&body).await;
}

#[tokio::test]
async fn an_expired_list_and_one_older_than_its_bound_deny_each_with_its_own_code() {
    let kds = Kds::start().await;
    let expired = lab(&kds).await;
    let list = OURS.authority.crl(days_ago(400)).expect("a list");
    expired.service.appraiser.add_crl(CrlScope::Vcek, &list).expect("ours");
    expired.denied_with(&Attempt::honest().body(), "RevocationListNotCurrent").await;

    let bounded = Lab::with(|config| config.crl_max_age = Some(3 * 86_400)).await;
    let list = OURS.authority.crl(days_ago(4)).expect("a list");
    bounded.service.appraiser.add_crl(CrlScope::Vcek, &list).expect("ours");
    bounded.denied_with(&Attempt::honest().body(), "RevocationListTooOld").await;
    let list = OURS.authority.crl(days_ago(2)).expect("a list");
    bounded.service.appraiser.add_crl(CrlScope::Vcek, &list).expect("ours");
    bounded.accepted(&Attempt::honest().body()).await;
}

/// AMD publishes two lists of each root: the one for VLEKs says nothing about who makes VCEKs.
#[tokio::test]
async fn a_list_for_vleks_is_none_for_vceks_and_neither_replaces_the_other() {
    let (kds, mut clock) = (Kds::start().await, Clock::start());
    kds.answer(LIST, Answer::status(404));
    kds.answer(VLEK_LIST, Answer::bytes(OURS.authority.crl(days_ago(0)).expect("a list")));
    let lab = Lab::with(|config| {
        config.crl_urls.extend([LIST, VLEK_LIST].map(|path| format!("{}{path}", kds.url)));
        config.crl_required = true;
    })
    .await;
    refresh(&lab.service, &Sources::of(&lab.config), clock.tick()).await;
    lab.denied_with(&Attempt::honest().body(), "RevocationListMissing").await;
    kds.answer(LIST, Answer::bytes(OURS.authority.crl(days_ago(1)).expect("an older list")));
    assert!(refresh(&lab.service, &Sources::of(&lab.config), clock.tick()).await);
    lab.accepted(&Attempt::honest().body()).await;
    let (lab, both) = (lab.restarted().await, [json!("VCEK"), json!("VLEK")]);
    lab.accepted(&Attempt::honest().body()).await;
    let keys = |bundle: &Value| {
        let lists = bundle["revocationLists"].as_array().expect("lists").iter();
        lists.map(|list| list["key"].clone()).collect::<Vec<_>>()
    };
    let (_, bundle) = lab.get_as("/collateral/bundle", ADMIN_TOKEN).await;
    assert_eq!(keys(&bundle), both);
    let other = Lab::new().await;
    let (status, answer) = other.post_as("/collateral/bundle", &bundle.to_string(), ADMIN_TOKEN).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(keys(&other.get_as("/collateral/bundle", ADMIN_TOKEN).await.1), both);
}
