//! Evidence without its certificates, against a double of AMD's key distribution service; bundles; prefetching.

use attestation_service::app::attest::AttestError;
use attestation_service::app::request::Request;
use axum::http::StatusCode;
use http_service::peer::Peer;
use serde_json::{Value, json};
use snp::CrlScope;
use tokio::sync::watch;

use crate::kds::{Answer, Kds, vcek_path};
use crate::support::*;

const CHAIN: &str = "/vcek/v1/Milan/cert_chain";

async fn lab(kds: &Kds) -> Lab {
    Lab::with(|config| config.kds_urls = vec![kds.url.clone()]).await
}

/// Honest evidence with no certificate.
fn bare() -> Value {
    let mut attempt = Attempt::honest();
    attempt.chain = String::new();
    attempt.body()
}

/// Honest evidence with nothing but the chip's certificate.
fn leaf_only() -> Value {
    let mut attempt = Attempt::honest();
    let end = "-----END CERTIFICATE-----\n";
    let length = attempt.chain.find(end).expect("a certificate") + end.len();
    attempt.chain.truncate(length);
    attempt.body()
}

/// What the service says at a time.
async fn at(lab: &Lab, body: &Value, now: i64) -> Result<(), AttestError> {
    let request = Request::parse(body.to_string().as_bytes()).expect("read");
    let provider = lab.service.providers.default_provider();
    lab.service.attest(provider, request, Peer::Loopback, now).await.map(drop)
}

/// The refusal of what cannot be had, at a time: its reason, and the seconds to wait. The log tells the same.
async fn unavailable(lab: &Lab, body: &Value, now: i64) -> (String, i64) {
    let Err(AttestError::Unavailable { denial, retry_after }) = at(lab, body, now).await else {
        panic!("it must not be had");
    };
    assert_eq!(denial.code, "CollateralUnavailable");
    let log = lab.service.store.entries_after(0).await.expect("the log");
    assert_eq!(log.last().expect("an entry").denial.as_ref(), Some(&*denial));
    (denial.actual, i64::try_from(retry_after).expect("seconds"))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn what_is_missing_is_fetched_once_and_kept_over_a_restart() {
    let kds = Kds::start().await;
    let lab = lab(&kds).await;
    lab.accepted(&bare()).await;
    assert_eq!(kds.asked(), [vcek_path(), CHAIN.to_owned()]);
    lab.accepted(&bare()).await;
    lab.accepted(&leaf_only()).await;
    kds.answer_everything(Some(Answer::Never));
    let lab = lab.restarted().await;
    lab.accepted(&bare()).await;
    lab.accepted(&leaf_only()).await;
    assert_eq!(kds.asked().len(), 2, "what is known is not asked for");
}

#[tokio::test]
async fn a_leaf_alone_needs_only_what_is_above_it() {
    let kds = Kds::start().await;
    let lab = lab(&kds).await;
    lab.accepted(&leaf_only()).await;
    assert_eq!(kds.asked(), [CHAIN]);
}

#[tokio::test]
async fn evidence_with_its_chain_never_waits_for_a_server_that_does_not_answer() {
    let kds = Kds::start().await;
    kds.answer_everything(Some(Answer::Never));
    let lab = lab(&kds).await;
    lab.accepted(&Attempt::honest().body()).await;
    assert!(kds.asked().is_empty());
    lab.denied_with(&Attempt::of(&STRANGERS).body(), "RootNotTrusted").await;
    assert!(kds.asked().is_empty(), "neither does evidence that is refused");
}

#[tokio::test]
async fn a_chip_seen_once_verifies_without_its_chain_and_without_any_server() {
    let lab = Lab::new().await;
    unavailable(&lab, &bare(), now()).await;
    lab.accepted(&Attempt::honest().body()).await;
    let lab = lab.restarted().await;
    lab.accepted(&bare()).await;
    lab.accepted(&leaf_only()).await;
}

#[tokio::test]
async fn evidence_that_did_not_verify_teaches_nothing() {
    let lab = Lab::new().await;
    let mut altered = Attempt::honest();
    altered.runtime["more"] = json!(1);
    lab.denied_with(&altered.body(), "RuntimeDataNotBound").await;
    lab.denied(&Attempt::of(&STRANGERS).body()).await;
    unavailable(&lab, &bare(), now()).await;
}

#[tokio::test]
async fn a_thousand_waiters_cause_one_request() {
    let kds = Kds::start().await;
    let (open, gate) = watch::channel(false);
    kds.answer(&vcek_path(), Answer::When(gate));
    let lab = std::sync::Arc::new(lab(&kds).await);
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let (lab, body) = (std::sync::Arc::clone(&lab), bare());
            tokio::spawn(async move { at(&lab, &body, now()).await })
        })
        .collect();
    // The server has been asked, and everybody else is on the way to it or waits already.
    while kds.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    open.send_replace(true);
    for attested in waiting {
        attested.await.expect("no panic").expect("accepted");
    }
    assert_eq!(kds.asked(), [vcek_path(), CHAIN.to_owned()]);
}

#[tokio::test]
async fn too_many_requests_silences_the_whole_server_for_as_long_as_it_asks() {
    let kds = Kds::start().await;
    kds.answer(&vcek_path(), Answer::retry_after("120"));
    let (lab, start) = (lab(&kds).await, now());
    let (reason, wait) = unavailable(&lab, &bare(), start).await;
    assert!(reason.ends_with("answered 429 Too Many Requests"), "{reason}");
    assert_eq!(wait, 120);
    kds.answer_everything(None);
    assert_eq!(unavailable(&lab, &bare(), start + 119).await.1, 1);
    unavailable(&lab, &leaf_only(), start + 119).await;
    assert_eq!(kds.asked().len(), 1, "not even for something else");
    kds.answer(&vcek_path(), Answer::bytes(OURS.authority.vcek(TCB).expect("a certificate")));
    at(&lab, &bare(), start + 120).await.expect("accepted");
}

#[tokio::test]
async fn retry_after_can_be_a_date() {
    let kds = Kds::start().await;
    let (lab, start) = (lab(&kds).await, 1_893_456_000);
    kds.answer(&vcek_path(), Answer::retry_after("Tue, 01 Jan 2030 00:05:00 GMT"));
    assert_eq!(unavailable(&lab, &bare(), start).await.1, 300);
}

#[tokio::test]
async fn without_retry_after_the_waits_grow_to_a_bound() {
    let kds = Kds::start().await;
    kds.answer_everything(Some(Answer::status(429)));
    let (lab, mut time) = (lab(&kds).await, now());
    for failures in 0..12 {
        let (_, wait) = unavailable(&lab, &bare(), time).await;
        let longest = (1 << failures).min(300);
        assert!((longest / 2..=longest).contains(&wait) && wait > 0, "{wait} after {failures}");
        time += wait;
    }
    assert_eq!(kds.asked().len(), 12);
}

#[tokio::test]
async fn not_found_is_remembered_for_a_bounded_time() {
    let kds = Kds::start().await;
    kds.answer(&vcek_path(), Answer::status(404));
    let (lab, start) = (lab(&kds).await, now());
    let (reason, wait) = unavailable(&lab, &bare(), start).await;
    assert!(reason.ends_with("does not exist (404)"), "{reason}");
    assert_eq!(wait, 600);
    unavailable(&lab, &bare(), start + 599).await;
    assert_eq!(kds.asked(), [vcek_path()]);
    lab.accepted(&leaf_only()).await;
    at(&lab, &bare(), start + 600).await.expect("the chip is known meanwhile: its leaf came with evidence");
    assert_eq!(kds.asked(), [vcek_path(), CHAIN.to_owned()]);
}

#[tokio::test]
async fn garbage_is_refused_and_nothing_of_it_is_kept() {
    let kds = Kds::start().await;
    let mut altered = OURS.authority.vcek(TCB).expect("a certificate");
    *altered.last_mut().expect("bytes") ^= 1;
    let (lab, mut time) = (lab(&kds).await, now());
    let other = snp::TcbVersion { snp: 25, ..TCB };
    for wrong in [
        b"nonsense".to_vec(),
        altered,
        OURS.authority.vcek(other).expect("a certificate"),
        STRANGERS.authority.vcek(TCB).expect("a certificate"),
        vec![0x30; 1 << 20],
    ] {
        kds.answer(&vcek_path(), Answer::bytes(wrong));
        let (reason, wait) = unavailable(&lab, &bare(), time).await;
        assert!(reason.contains("is refused"), "{reason}");
        time += wait;
    }
    kds.answer(&vcek_path(), Answer::bytes(OURS.authority.vcek(TCB).expect("a certificate")));
    at(&lab, &bare(), time).await.expect("accepted");
}

#[tokio::test]
async fn issuers_of_a_stranger_are_refused() {
    let kds = Kds::start().await;
    kds.answer(CHAIN, Answer::bytes(STRANGERS.authority.chain_pem().into_bytes()));
    let lab = lab(&kds).await;
    let (reason, _) = unavailable(&lab, &leaf_only(), now()).await;
    assert!(reason.contains("is refused"), "{reason}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (kds, other) = (Kds::start().await, Kds::start().await);
    let to = vec![("location", format!("{}{}", other.url, vcek_path()))];
    kds.answer(&vcek_path(), Answer::With(302, to, Vec::new()));
    let lab = lab(&kds).await;
    let (reason, _) = unavailable(&lab, &bare(), now()).await;
    assert!(reason.contains("302"), "{reason}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_and_what_is_known_keeps_verifying() {
    let kds = Kds::start().await;
    kds.answer_everything(Some(Answer::Never));
    let lab = Lab::with(|config| {
        config.kds_urls = vec![kds.url.clone()];
        config.kds_timeout_ms = 50;
    })
    .await;
    let (reason, wait) = unavailable(&lab, &bare(), now()).await;
    assert!(reason.contains(&kds.url), "{reason}");
    assert_eq!(wait, 1);
    lab.accepted(&Attempt::honest().body()).await;
    lab.accepted(&bare()).await;
}

#[tokio::test]
async fn a_slow_server_is_waited_for() {
    let kds = Kds::start().await;
    let (open, gate) = watch::channel(false);
    kds.answer_everything(Some(Answer::When(gate)));
    let lab = lab(&kds).await;
    let body = bare();
    let (attested, ()) = tokio::join!(at(&lab, &body, now()), async {
        while kds.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        open.send_replace(true);
    });
    attested.expect("accepted");
}

#[tokio::test]
async fn the_next_server_is_asked_where_the_first_one_cannot_help() {
    let (down, up) = (Kds::start().await, Kds::start().await);
    down.answer_everything(Some(Answer::status(500)));
    let lab = Lab::with(|config| config.kds_urls = vec![down.url.clone(), format!("{}/", up.url)]).await;
    lab.accepted(&bare()).await;
    assert_eq!((down.asked().len(), up.asked().len()), (1, 2), "and the first one is left alone then");
}

#[tokio::test]
async fn the_answer_over_http_says_when_to_come_back() {
    let kds = Kds::start().await;
    kds.answer_everything(Some(Answer::retry_after("77")));
    let lab = lab(&kds).await;
    let request =
        axum::http::Request::post("/attest/SevSnpVm").body(axum::body::Body::from(bare().to_string()));
    let app = attestation_service::http::app(std::sync::Arc::clone(&lab.service));
    let response = tower::ServiceExt::oneshot(app, request.expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "77");
    let (_, health) = lab.get("/health").await;
    let reason = health["keyDistributionServices"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("429"), "{health}");
}

#[tokio::test]
async fn evidence_that_names_no_certificate_is_refused_for_good() {
    let kds = Kds::start().await;
    let lab = lab(&kds).await;
    let mut masked = Attempt::with(|report| report.chip_id = [0; 64]);
    masked.chain = String::new();
    lab.denied_with(&masked.body(), "ChipIdMasked").await;
    let mut provider = Attempt::with(|report| report.signing_key = snp::SigningKey::Vlek);
    provider.chain = String::new();
    lab.denied_with(&provider.body(), "VlekCertificateMissing").await;
    let mut unsigned = Attempt::with(|report| report.signing_key = snp::SigningKey::None);
    unsigned.chain = String::new();
    lab.denied_with(&unsigned.body(), "CertificateNotNamed").await;
    let unknown = snp::CpuIdentity { family: 0x1f, model: 0, stepping: 0 };
    let mut unknown = Attempt::with(|report| report.cpu = Some(unknown));
    unknown.chain = String::new();
    lab.denied_with(&unknown.body(), "CertificateNotNamed").await;
    let mut damaged = Attempt::honest();
    damaged.chain = "nonsense".to_owned();
    lab.denied_with(&damaged.body(), "CertificateChainMalformed").await;
    assert!(kds.asked().is_empty());
}

#[tokio::test]
async fn a_report_of_version_2_is_tried_with_each_product() {
    let kds = Kds::start().await;
    let lab = lab(&kds).await;
    let mut old = Attempt::with(|report| (report.version, report.cpu) = (2, None));
    old.chain = String::new();
    lab.accepted(&old.body()).await;
}

#[tokio::test]
async fn a_host_is_prefetched_when_it_enrols() {
    let kds = Kds::start().await;
    let lab = lab(&kds).await;
    let chip = json!({
        "product": "Milan", "chipId": hex::encode(OURS.authority.chip_id()),
        "tcb": OURS.authority.tcb_bytes().to_string(),
    });
    let path = "/collateral:prefetch";
    assert_eq!(lab.post_as(path, &chip.to_string(), LOG_TOKEN).await.0, StatusCode::FORBIDDEN);
    assert_eq!(lab.post(path, chip.to_string()).await.0, StatusCode::UNAUTHORIZED);
    let (status, answer) = lab.post_as(path, &chip.to_string(), ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer["revocationListUntil"].is_string(), "{answer}");
    kds.answer_everything(Some(Answer::Never));
    let lab = lab.restarted().await;
    lab.accepted(&bare()).await;
    let root = snp::RootId(OURS.authority.root_id().try_into().expect("32 bytes"));
    assert!(lab.service.appraiser.crl_until(CrlScope::Vcek, &root).is_some(), "the list is kept");

    let attempt = Attempt::honest();
    let report = public_api::encoding::to_base64url(&attempt.machine.sign(&attempt.report));
    let (status, _) = lab.post_as(path, &json!({"report": report}).to_string(), ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK);
    for wrong in
        [json!({}), json!({"report": report, "tcb": "00"}), json!({"chip": 1}), json!({"report": "AA"})]
    {
        let (status, answer) = lab.post_as(path, &wrong.to_string(), ADMIN_TOKEN).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("InvalidParameter")));
    }
}

#[tokio::test]
async fn a_prefetch_that_fails_says_when_to_come_back() {
    let kds = Kds::start().await;
    kds.answer_everything(Some(Answer::retry_after("33")));
    let lab = lab(&kds).await;
    let attempt = Attempt::honest();
    let report = public_api::encoding::to_base64url(&attempt.machine.sign(&attempt.report));
    let body = json!({"report": report}).to_string();
    let (status, answer) = lab.post_as("/collateral:prefetch", &body, ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer["error"]["denial"]["code"], "CollateralUnavailable");
}

async fn exported() -> Value {
    let kds = Kds::start().await;
    let lab = lab(&kds).await;
    let attempt = Attempt::honest();
    let report = public_api::encoding::to_base64url(&attempt.machine.sign(&attempt.report));
    let body = json!({"report": report}).to_string();
    assert_eq!(lab.post_as("/collateral:prefetch", &body, ADMIN_TOKEN).await.0, StatusCode::OK);
    let (status, bundle) = lab.get_as("/collateral/bundle", LOG_TOKEN).await;
    assert_eq!(status, StatusCode::OK);
    bundle
}

#[tokio::test]
async fn a_bundle_serves_a_service_that_can_reach_nobody() {
    let bundle = exported().await;
    let lab = Lab::with(|config| config.crl_required = true).await;
    unavailable(&lab, &bare(), now()).await;
    let path = "/collateral/bundle";
    assert_eq!(lab.post(path, bundle.to_string()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(lab.post_as(path, &bundle.to_string(), LOG_TOKEN).await.0, StatusCode::FORBIDDEN);
    let (status, answer) = lab.post_as(path, &bundle.to_string(), ADMIN_TOKEN).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((&answer["vceks"], &answer["revocationLists"]), (&json!(1), &json!(1)));
    lab.accepted(&bare()).await;
    let lab = lab.restarted().await;
    lab.accepted(&bare()).await;
}

#[tokio::test]
async fn one_bad_item_refuses_the_whole_bundle_by_name() {
    let good = exported().await;
    let strangers = public_api::encoding::to_base64url(&STRANGERS.authority.vcek(TCB).expect("one"));
    let list = public_api::encoding::to_base64url(&STRANGERS.authority.crl(now()).expect("a list"));
    let issuers = good["issuers"].as_array().expect("a list").len();
    let cases = [
        ("/version", json!(2), "version"),
        ("/vceks/0/certificate", json!(strangers), "vceks[0] (chip"),
        ("/vceks/0/tcb", json!("0000000000000000"), "vceks[0] (chip"),
        ("/vceks/0/product", json!("Rome"), "vceks[0] (chip"),
        ("/issuers/0/ark", good["issuers"][1]["ark"].clone(), "issuers[0]"),
        ("/issuers/0/issues", json!("both"), "issuers[0]"),
        ("/revocationLists/0/list", json!(list), "revocationLists[0] (root"),
        ("/revocationLists/0/root", json!("00"), "revocationLists[0] (root 00)"),
    ];
    assert_eq!(issuers, 4, "three of AMD's and ours");
    let lab = Lab::new().await;
    for (place, value, name) in cases {
        let mut bundle = good.clone();
        *bundle.pointer_mut(place).expect("there") = value;
        let (status, answer) = lab.post_as("/collateral/bundle", &bundle.to_string(), ADMIN_TOKEN).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{place}");
        let denial = &answer["error"]["denial"];
        assert_eq!(denial["code"], "BundleItemRefused", "{answer}");
        assert!(denial["claim"].as_str().expect("a text").starts_with(name), "{place}: {denial}");
        unavailable(&lab, &bare(), now()).await;
    }
    for extra in ["/vceks/0", "/issuers/0", "/revocationLists/0", ""] {
        let mut bundle = good.clone();
        bundle.pointer_mut(extra).expect("there")["extra"] = json!(1);
        let (status, answer) = lab.post_as("/collateral/bundle", &bundle.to_string(), ADMIN_TOKEN).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("InvalidParameter")));
    }
    unavailable(&lab, &bare(), now()).await;
}

#[tokio::test]
async fn health_shows_the_pinned_roots() {
    let (_, health) = Lab::new().await.get("/health").await;
    let roots = health["pinnedRoots"].as_object().expect("roots");
    assert_eq!(roots.len(), 4);
    assert_eq!(roots["AMD Milan"], "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd");
}
