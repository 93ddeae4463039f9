//! What is accepted, and what the token says then.

use axum::http::StatusCode;
use public_api::encoding::{to_base64, to_base64url};
use serde_json::{Value, json};
use vtpm::PcrBank;

use super::forger::*;
use crate::support::*;

#[tokio::test]
async fn honest_evidence_gets_a_sealed_token_with_azures_claims() {
    let lab = Lab::new().await;
    let claims = lab.guest_claims(&Guest::honest().body()).await;
    let mut shown = claims.clone();
    let object = shown.as_object_mut().expect("claims");
    for name in ["iat", "nbf", "exp", "jti", "x-ms-policy-hash"] {
        assert!(object.remove(name).is_some(), "{name}");
    }
    // What is random in this run, or told by another test.
    object.retain(|name, _| !name.starts_with("x-casemate-trust-root-id") && name != "x-casemate-chip-id");
    let tee = object.remove("x-ms-isolation-tee").expect("nested claims");
    shown["x-ms-runtime"]["keys"][0]["n"] = json!("(modulus)");
    expect_test::expect_file!["tokens.expected.json"]
        .assert_eq(&(serde_json::to_string_pretty(&shown).expect("JSON") + "\n"));
    assert_eq!(tee["x-ms-attestation-type"], "sevsnpvm");
    assert_eq!(tee["x-ms-compliance-status"], "azure-compliant-cvm");
    assert_eq!(tee["x-ms-sevsnpvm-vmpl"], 0);
    assert_eq!(tee["x-ms-runtime"]["vm-configuration"]["vmUniqueId"], VM_ID);
    assert_eq!(tee["x-ms-runtime"]["keys"][0]["kid"], "HCLAkPub");
    assert!(tee.get("x-ms-policy-hash").is_none() && tee.get("x-ms-ver").is_none());
    assert_eq!(claims["x-ms-runtime"]["keys"][0]["n"], public(&ENC).jwk_n());
    assert_eq!(claims["x-casemate-trust-root"], "development");
}

#[tokio::test]
async fn every_spelling_of_the_clients_is_read() {
    let lab = Lab::new().await;
    let mut guest = Guest::honest();
    guest.bind();
    // As the Rust client has it: base64url throughout the evidence, and no payload.
    let mut info = guest.info();
    for path in ["Proof", "RunTimeData"] {
        let value = info["IsolationInfo"]["Evidence"][path].as_str().expect("a text");
        let url = value.replace('+', "-").replace('/', "_");
        info["IsolationInfo"]["Evidence"][path] = json!(url.trim_end_matches('='));
    }
    info["ClientPayload"] = json!({});
    let claims = lab.guest_claims(&body(&info)).await;
    assert_eq!(claims["x-ms-runtime"]["client-payload"], json!({}));
    assert_eq!(claims["x-casemate-nonce-source"], "none");
    assert!(claims.get("x-casemate-nonce-binding").is_none());
    // As jsoncpp writes an empty payload, with a padded certificate index, in other case and with padding outside.
    info["ClientPayload"] = Value::Null;
    info["TpmInfo"]["AikCert"] = json!(to_base64(&[0; 4096]));
    let mut outer = to_base64url(info.to_string().as_bytes());
    while !outer.len().is_multiple_of(4) {
        outer.push('=');
    }
    let claims = lab.guest_claims(&json!({"attestationInfo": outer})).await;
    assert_eq!(claims["x-casemate-aik-certificate"], "absent");
}

#[tokio::test]
async fn signatures_may_be_whole_structures() {
    let lab = Lab::new().await;
    let framed = |message: &[u8]| [&[0, 0x14, 0, 0x0B, 1, 0][..], &sign(&AK, message)].concat();
    let guest = Guest::with(|guest| {
        guest.quote_signature = Some(framed(&guest.quote.encode()));
        guest.certify_signature = Some(framed(&guest.certify.encode()));
    });
    lab.guest_claims(&guest.body()).await;
}

#[tokio::test]
async fn a_nonce_of_the_service_is_accepted_once_and_the_token_says_how_it_is_bound() {
    let lab = Lab::new().await;
    let nonce = lab.service.issue_nonce(jiff::Timestamp::now().as_second()).nonce;
    let with_nonce = |guest: &Guest, nonce: &str| {
        let mut guest = guest.clone();
        guest.bind();
        let mut info = guest.info();
        info["ClientPayload"]["nonce"] = json!(to_base64(nonce.as_bytes()));
        body(&info)
    };
    let honest = Guest::honest();
    let claims = lab.guest_claims(&with_nonce(&honest, &nonce)).await;
    assert_eq!(claims["x-casemate-nonce-source"], "server");
    assert_eq!(claims["x-casemate-nonce-binding"], "sealed-token");
    assert_eq!(claims["x-ms-isolation-tee"].get("x-casemate-nonce-source"), None);
    let again = lab.guest_denied(&with_nonce(&honest, &nonce)).await;
    assert_eq!(again["code"], "NonceReplayed");

    let next = lab.service.issue_nonce(jiff::Timestamp::now().as_second()).nonce;
    let quoted = Guest::with(|guest| guest.quote.nonce = hex::decode(&next).expect("hex"));
    let claims = lab.guest_claims(&with_nonce(&quoted, &next)).await;
    assert_eq!(claims["x-casemate-nonce-binding"], "quote");
    let reported = Guest::with(|guest| {
        guest.runtime["user-data"] =
            json!(format!("{}{}", hex::encode(NONCE), "00".repeat(64 - NONCE.len())));
    });
    let claims = lab.guest_claims(&reported.body()).await;
    assert_eq!(
        (&claims["x-casemate-nonce-source"], &claims["x-casemate-nonce-binding"]),
        (&json!("client"), &json!("report"))
    );
    let expired = lab.service.issue_nonce(1000).nonce;
    assert_eq!(lab.guest_denied(&with_nonce(&honest, &expired)).await["code"], "NonceExpired");
}

#[tokio::test]
async fn secure_boot_is_what_firmware_measured() {
    let lab = Lab::new().await;
    let claims = lab.guest_claims(&Guest::honest().body()).await;
    assert_eq!((&claims["secureboot"], &claims["x-casemate-secure-boot"]), (&json!(true), &json!("enabled")));
    // A TPM that nothing was measured into, and no log: nothing is known.
    let empty = Guest::with(|guest| {
        guest.log.clear();
        guest.set_pcrs(PcrBank((0..8).map(|pcr| (pcr, [0; 32])).collect()));
    });
    let claims = lab.guest_claims(&empty.body()).await;
    assert_eq!(
        (&claims["secureboot"], &claims["x-casemate-secure-boot"]),
        (&json!(false), &json!("unknown"))
    );
    assert_eq!(claims["x-casemate-boot-programs"], json!([]));
    // PCR 7 is not quoted.
    let narrow = Guest::with(|guest| {
        let pcrs = guest.pcrs.0.iter().filter(|(pcr, _)| **pcr < 7).map(|(pcr, value)| (*pcr, *value));
        guest.set_pcrs(PcrBank(pcrs.collect()));
    });
    let claims = lab.guest_claims(&narrow.body()).await;
    assert_eq!(
        (&claims["secureboot"], &claims["x-casemate-secure-boot"]),
        (&json!(false), &json!("unknown"))
    );
    assert!(claims.get("x-casemate-boot-authorities").is_none());
}

#[tokio::test]
async fn pcrs_that_an_operating_system_extends_are_attested_but_prove_no_event() {
    let lab = Lab::new().await;
    let all = |change: fn(&mut PcrBank)| {
        Guest::with(|guest| {
            let mut bank = vtpm::event_log::parse(LOG).expect("a log").replay();
            change(&mut bank);
            guest.set_pcrs(bank);
        })
    };
    let claims = lab.guest_claims(&all(|_| ()).body()).await;
    assert_eq!(claims["x-casemate-replayed-pcrs"], claims["x-ms-azurevm-attested-pcrs"]);
    let line = claims["x-casemate-kernel-command-line"].as_str().expect("a command line");
    assert!(line.starts_with("initrd="), "{line}");
    let claims = lab.guest_claims(&all(|bank| bank.extend(12, &[7; 32])).body()).await;
    assert!(claims.get("x-casemate-kernel-command-line").is_none());
    let replayed = claims["x-casemate-replayed-pcrs"].as_array().expect("PCRs");
    assert!(!replayed.contains(&json!(12)) && replayed.contains(&json!(9)));
}

#[tokio::test]
async fn a_windows_guest_gets_no_settings_that_nobody_read() {
    let lab = Lab::new().await;
    let mut guest = Guest::honest();
    guest.bind();
    let mut info = guest.info();
    info["OSType"] = json!(to_base64(b"Windows"));
    let claims = lab.guest_claims(&body(&info)).await;
    assert_eq!(claims["x-ms-azurevm-is-windows"], true);
    assert!(claims.get("x-ms-azurevm-kerneldebug-enabled").is_none());
    assert!(claims.get("x-ms-azurevm-debuggersdisabled").is_none());
}

#[tokio::test]
async fn a_certificate_of_the_services_own_authority_is_valid_and_no_other() {
    let lab = Lab::new().await;
    let now = jiff::Timestamp::now().as_second();
    let authority = &lab.service.ak_authority;
    let good = authority.certify(VM_ID, &public(&AK), now).expect("certified");
    let mut padded = good.clone();
    padded.resize(4096, 0);
    let others = Lab::new().await;
    let foreign = others.service.ak_authority.certify(VM_ID, &public(&AK), now).expect("certified");
    let year = 366 * 86400;
    let mut altered = good.clone();
    *altered.last_mut().expect("bytes") ^= 1;
    let cases = [
        (good, "valid"),
        (padded, "valid"),
        (foreign, "untrusted"),
        (altered, "untrusted"),
        (authority.certify(VM_ID, &public(&STRANGER), now).expect("certified"), "untrusted"),
        (authority.certify(VM_ID, &public(&AK), now - year).expect("certified"), "untrusted"),
        (authority.certify(VM_ID, &public(&AK), now + year).expect("certified"), "untrusted"),
        (authority.certificate().to_vec(), "untrusted"),
        (b"nonsense".to_vec(), "untrusted"),
    ];
    for (number, (certificate, expected)) in cases.into_iter().enumerate() {
        let guest = Guest::with(|guest| guest.aik_cert = certificate);
        let claims = lab.guest_claims(&guest.body()).await;
        assert_eq!(claims["x-casemate-aik-certificate"], expected, "case {number}");
    }
    let known = authority.certify(VM_ID, &public(&AK), now).expect("certified");
    let vouches = |key, at| authority.vouches_for(&known, &public(key), at);
    assert!(vouches(&AK, now) && vouches(&AK, now), "seen for the first time, and again");
    assert!(!vouches(&AK, now + year) && !vouches(&STRANGER, now), "what was seen is not valid for all that");
}

#[tokio::test]
async fn the_log_tells_of_a_token() {
    let lab = Lab::new().await;
    lab.guest_claims(&Guest::honest().body()).await;
    let logged = lab.service.store.entries_after(0).await.expect("the log");
    let last = logged.last().expect("an entry");
    assert_eq!(last.subject, VM_ID);
    assert_eq!(last.detail["attestationType"], "AzureGuest");
    assert_eq!(last.detail["vtpmBoundary"], "inside");
    let (status, _) = lab.attest_guest(&json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
