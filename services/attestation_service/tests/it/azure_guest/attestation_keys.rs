//! Certificates for attestation keys: who gets one, and what is in it.

use axum::http::StatusCode;
use public_api::encoding::{from_base64_any, to_base64url};
use serde_json::{Value, json};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use super::forger::*;
use crate::support::*;

async fn ask(lab: &Lab, body: &Value) -> (StatusCode, Value) {
    lab.post("/attestationKeyCertificates", body.to_string()).await
}

#[tokio::test]
async fn a_bound_attestation_key_gets_a_certificate_for_a_year_and_another_when_it_asks_again() {
    let lab = Lab::new().await;
    let body = Guest::honest().certificate_request();
    let mut serials = Vec::new();
    for _ in 0..2 {
        let (status, answer) = ask(&lab, &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let der = |name: &str| from_base64_any(answer[name].as_str().expect("a text")).expect("base64");
        let certificate = Certificate::from_der(&der("certificate")).expect("a certificate");
        let authority = Certificate::from_der(&der("authority")).expect("a certificate");
        let tbs = certificate.tbs_certificate();
        assert_eq!(tbs.subject().to_string(), format!("CN={VM_ID}"));
        assert_eq!(tbs.issuer(), authority.tbs_certificate().subject());
        assert_eq!(tbs.issuer().to_string(), format!("CN=Casemate vTPM CA of {ISSUER}"));
        assert!(!tbs.issuer().to_string().contains("MICROSOFT AZURE TRUSTED VM RSA"));
        let validity = tbs.validity();
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
        assert_eq!(seconds(&validity.not_after) - seconds(&validity.not_before), 365 * 86400 + 3600);
        serials.push(tbs.serial_number().to_der().expect("DER"));
        let guest = Guest::with(|guest| guest.aik_cert = der("certificate"));
        let claims = lab.guest_claims(&guest.body()).await;
        assert_eq!(claims["x-casemate-aik-certificate"], "valid");
    }
    assert_ne!(serials[0], serials[1]);
    let logged = lab.service.store.entries_after(0).await.expect("the log");
    assert_eq!(logged[0].subject, VM_ID);
    assert!(logged[0].detail["attestationKeyCertificateSha256"].is_string());
}

#[tokio::test]
async fn a_key_that_does_not_deserve_it_gets_no_certificate() {
    let lab = Lab::new().await;
    type Change = fn(&mut Guest);
    let cases: [(Change, &str); 10] = [
        (|g| g.ak.modulus = public(&STRANGER).modulus().to_vec(), "AttestationKeyNotBound"),
        (|g| g.ak.attributes ^= 1 << 16, "AttestationKeyNotTemplate"),
        (|g| g.ak.attributes |= 1 << 17, "AttestationKeyNotTemplate"),
        (|g| g.ak.attributes ^= 1 << 1, "AttestationKeyNotTemplate"),
        (|g| g.ak.scheme = vec![0, 0x10], "AttestationKeyNotTemplate"),
        (|g| g.runtime["keys"] = json!([]), "AttestationKeyMissing"),
        (|g| g.runtime["vm-configuration"] = json!({}), "VmIdMissing"),
        (|g| g.report.vmpl = 2, "VmplRefused"),
        (|g| g.report.measurement[7] ^= 1, "LaunchMeasurementUnknown"),
        (|g| g.machine = &STRANGERS, "ReportSignatureInvalid"),
    ];
    for (change, code) in cases {
        let (status, answer) = ask(&lab, &Guest::with(change).certificate_request()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{code}");
        assert_eq!(answer["error"]["denial"]["code"], code, "{answer}");
    }
    let mut unbound = Guest::honest().certificate_request();
    unbound["runtimeData"]["data"] = json!(to_base64url(b"{}"));
    assert_eq!(ask(&lab, &unbound).await.1["error"]["denial"]["code"], "RuntimeDataNotBound");
    for name in ["report", "runtimeData", "attestationKey"] {
        let mut body = Guest::honest().certificate_request();
        body.as_object_mut().expect("an object").remove(name);
        assert_eq!(ask(&lab, &body).await.1["error"]["target"], name);
    }
}

#[tokio::test]
async fn the_authority_survives_a_restart_and_damaged_files_are_an_error() {
    let lab = Lab::new().await;
    let before = lab.service.ak_authority.certificate().to_vec();
    let lab = lab.restarted().await;
    assert_eq!(lab.service.ak_authority.certificate(), before);
    let other = tempfile::tempdir().expect("a directory");
    let data = &lab.config.data_dir;
    let copy = |name: &str| std::fs::copy(data.join(name), other.path().join(name)).expect("copied");
    copy("attestation-key-ca.pem");
    let open = || attestation_service::app::ak_authority::AkAuthority::open(other.path(), ISSUER);
    assert!(open().is_err(), "a certificate of another key");
    std::fs::write(other.path().join("attestation-key-ca.pem"), b"nonsense").expect("written");
    assert!(open().is_err());
}
