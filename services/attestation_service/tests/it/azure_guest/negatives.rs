//! Everything that can be wrong with guest evidence, one thing at a time; each is refused for its own reason.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use public_api::encoding::{from_base64_any, to_base64};
use serde_json::{Value, json};
use vtpm::PcrBank;

use super::forger::*;
use crate::support::*;

type Change = fn(&mut Guest);

/// Evidence that is genuine in all but one thing, and the code with which it is refused.
#[allow(clippy::too_many_lines, reason = "a table")]
fn evidence() -> Vec<(&'static str, Change, &'static str)> {
    vec![
        ("a report signed by another machine", |g| g.machine = &STRANGERS, "ReportSignatureInvalid"),
        ("a chain of another machine", |g| g.chain = STRANGERS.chain(), "RootNotTrusted"),
        ("no chain", |g| g.chain.clear(), "CertificateChainMalformed"),
        (
            "an attestation key that the report does not bind",
            |g| g.ak.modulus = public(&STRANGER).modulus().to_vec(),
            "AttestationKeyNotBound",
        ),
        ("another exponent", |g| g.ak.exponent = 3, "AttestationKeyNotBound"),
        ("runtime claims without keys", |g| g.runtime["keys"] = json!([]), "AttestationKeyMissing"),
        ("keys that are no list", |g| g.runtime["keys"] = json!("HCLAkPub"), "AttestationKeyMissing"),
        (
            "two attestation keys",
            |g| g.runtime["keys"][1] = g.runtime["keys"][0].clone(),
            "AttestationKeyMissing",
        ),
        ("a key of another kind", |g| g.runtime["keys"][0]["kty"] = json!("EC"), "AttestationKeyMissing"),
        ("a key without a modulus", |g| g.runtime["keys"][0]["n"] = Value::Null, "AttestationKeyMissing"),
        (
            "only the endorsement key",
            |g| g.runtime["keys"][0]["kid"] = json!("HCLEkPub"),
            "AttestationKeyMissing",
        ),
        (
            "an attestation key that is not restricted",
            |g| g.ak.attributes ^= 1 << 16,
            "AttestationKeyNotTemplate",
        ),
        ("an attestation key that decrypts", |g| g.ak.attributes |= 1 << 17, "AttestationKeyNotTemplate"),
        (
            "an attestation key that may leave the TPM",
            |g| g.ak.attributes ^= 1 << 1,
            "AttestationKeyNotTemplate",
        ),
        ("an attestation key from outside", |g| g.ak.attributes ^= 1 << 5, "AttestationKeyNotTemplate"),
        (
            "an attestation key that may be duplicated",
            |g| g.ak.attributes ^= 1 << 4,
            "AttestationKeyNotTemplate",
        ),
        ("an attestation key with a policy", |g| g.ak.policy = vec![1; 32], "AttestationKeyNotTemplate"),
        ("an attestation key of SHA-1", |g| g.ak.scheme[3] = 4, "AttestationKeyNotTemplate"),
        ("an attestation key without a scheme", |g| g.ak.scheme = vec![0, 0x10], "AttestationKeyNotTemplate"),
        (
            "an attestation key with children",
            |g| g.ak.symmetric = vec![0, 6, 0, 128, 0, 0x43],
            "AttestationKeyNotTemplate",
        ),
        ("an attestation key of ECC", |g| g.ak.kind = 0x23, "AttestationKeyMalformed"),
        ("an attestation key with a SHA-1 name", |g| g.ak.name_algorithm = 4, "AttestationKeyMalformed"),
        ("an attestation key whose size lies", |g| g.ak.bits = 4096, "AttestationKeyMalformed"),
        (
            "a quote signed by another key",
            |g| g.quote_signature = Some(sign(&STRANGER, &g.quote.encode())),
            "QuoteSignatureInvalid",
        ),
        (
            "an altered signature of the quote",
            |g| g.quote_signature = Some(flipped(sign(&AK, &g.quote.encode()))),
            "QuoteSignatureInvalid",
        ),
        (
            "a signature that is short",
            |g| g.quote_signature = Some(vec![0, 0x14, 0, 0x0B, 1]),
            "QuoteMalformed",
        ),
        ("no signature", |g| g.quote_signature = Some(Vec::new()), "QuoteSchemeRefused"),
        (
            "a signature of another scheme",
            |g| g.quote_signature = Some(framed(0x16, 0x0B, &g.quote.encode())),
            "QuoteSchemeRefused",
        ),
        (
            "a signature with another hash",
            |g| g.quote_signature = Some(framed(0x14, 0x04, &g.quote.encode())),
            "QuoteSchemeRefused",
        ),
        ("a quote that no TPM made", |g| g.quote.magic ^= 1, "QuoteNotMadeByTpm"),
        ("a certification for a quote", |g| g.quote.kind = 0x8017, "QuoteOfAnotherKind"),
        ("a quote for another nonce", |g| g.quote.nonce = b"another nonce".to_vec(), "QuoteNonceMismatch"),
        ("a quote that is cut off", |g| g.quote.body.truncate(20), "QuoteMalformed"),
        ("a quote with bytes behind it", |g| g.quote.body.push(0), "QuoteMalformed"),
        ("a quote over the SHA-1 bank", |g| g.quote.body[5] = 4, "QuoteMalformed"),
        ("a quote over nothing", |g| g.quote.body = quote_info(&PcrBank::default()), "QuoteSelectionRefused"),
        (
            "a quote over more than is sent",
            |g| g.quote.body = quote_info(&with_pcr(&g.pcrs, 8)),
            "QuoteSelectionRefused",
        ),
        (
            "a quote over less than is sent",
            |g| g.quote.body = quote_info(&without_pcr(&g.pcrs, 7)),
            "QuotedPcrSetDiffers",
        ),
        (
            "PCRs that look better than those quoted",
            |g| g.pcrs.0.insert(7, [9; 32]).map_or((), drop),
            "QuotedPcrsDiffer",
        ),
        ("no event log", |g| g.log.clear(), "EventLogDoesNotReplay"),
        ("an event log that is cut off", |g| g.log.truncate(g.log.len() - 1), "EventLogMalformed"),
        ("an event log without its header", |g| g.log = behind_header(&g.log), "EventLogMalformed"),
        ("something else for an event log", |g| g.log = vec![0; 64], "EventLogMalformed"),
        (
            "a log whose PCR 4 has one event more",
            |g| g.log.extend(logged(4, &[1; 32])),
            "EventLogDoesNotReplay",
        ),
        (
            "a log whose PCR 7 has one event more",
            |g| g.log.extend(logged(7, &[1; 32])),
            "EventLogDoesNotReplay",
        ),
        ("a log of a boot from another locality", |g| g.log.extend(locality(3)), "EventLogDoesNotReplay"),
        ("PCRs of another boot", |g| g.set_pcrs(with_value(&g.pcrs, 5)), "EventLogDoesNotReplay"),
        (
            "an encryption key that was not certified",
            |g| g.enc.modulus = public(&STRANGER).modulus().to_vec(),
            "CertificationOfAnotherKey",
        ),
        (
            "an encryption key that signs",
            |g| g.set_enc(|enc| enc.attributes |= 1 << 18),
            "EncryptionKeyAttributesRefused",
        ),
        (
            "an encryption key with a password",
            |g| g.set_enc(|enc| enc.attributes |= 1 << 6),
            "EncryptionKeyAttributesRefused",
        ),
        (
            "an encryption key that may leave the TPM",
            |g| g.set_enc(|enc| enc.attributes ^= 1 << 1),
            "EncryptionKeyAttributesRefused",
        ),
        (
            "an encryption key that may be duplicated",
            |g| g.set_enc(|enc| enc.attributes ^= 1 << 4),
            "EncryptionKeyAttributesRefused",
        ),
        (
            "an encryption key from outside",
            |g| g.set_enc(|enc| enc.attributes ^= 1 << 5),
            "EncryptionKeyAttributesRefused",
        ),
        (
            "an encryption key that cannot decrypt",
            |g| g.set_enc(|enc| enc.attributes ^= 1 << 17),
            "EncryptionKeyAttributesRefused",
        ),
        (
            "an encryption key that is restricted",
            |g| g.set_enc(|enc| enc.attributes |= 1 << 16),
            "EncryptionKeyAttributesRefused",
        ),
        (
            "an encryption key without a policy",
            |g| g.set_enc(|enc| enc.policy.clear()),
            "EncryptionKeyNotSealedToPcrs",
        ),
        (
            "an encryption key for other PCR values",
            |g| {
                let other = with_value(&g.pcrs, 7);
                g.set_enc(|enc| enc.policy = vtpm::public_area::policy_pcr(&other).to_vec());
            },
            "EncryptionKeyNotSealedToPcrs",
        ),
        (
            "an encryption key for fewer PCRs",
            |g| {
                let fewer = without_pcr(&g.pcrs, 7);
                g.set_enc(|enc| enc.policy = vtpm::public_area::policy_pcr(&fewer).to_vec());
            },
            "EncryptionKeyNotSealedToPcrs",
        ),
        (
            "an encryption key with a scheme of its own",
            |g| g.set_enc(|enc| enc.scheme = vec![0, 0x15]),
            "EncryptionKeyKindRefused",
        ),
        (
            "an encryption key with children",
            |g| g.set_enc(|enc| enc.symmetric = vec![0, 6, 0, 128, 0, 0x43]),
            "EncryptionKeyKindRefused",
        ),
        (
            "an encryption key with another exponent",
            |g| g.set_enc(|enc| enc.exponent = 3),
            "EncryptionKeyKindRefused",
        ),
        (
            "a small encryption key",
            |g| {
                g.set_enc(|enc| {
                    enc.bits = 1024;
                    enc.modulus = vec![0xC5; 128];
                })
            },
            "EncryptionKeyKindRefused",
        ),
        ("an encryption key of ECC", |g| g.enc.kind = 0x23, "EncryptionKeyMalformed"),
        ("an encryption key with a SHA-384 name", |g| g.enc.name_algorithm = 0x0C, "EncryptionKeyMalformed"),
        ("an encryption key whose size lies", |g| g.enc.bits = 1024, "EncryptionKeyMalformed"),
        (
            "a certification signed by another key",
            |g| g.certify_signature = Some(sign(&STRANGER, &g.certify.encode())),
            "CertificationSignatureInvalid",
        ),
        (
            "an altered signature of the certification",
            |g| g.certify_signature = Some(flipped(sign(&AK, &g.certify.encode()))),
            "CertificationSignatureInvalid",
        ),
        (
            "no signature of the certification",
            |g| g.certify_signature = Some(Vec::new()),
            "CertificationSchemeRefused",
        ),
        (
            "a certification of another scheme",
            |g| g.certify_signature = Some(framed(0x16, 0x0B, &g.certify.encode())),
            "CertificationSchemeRefused",
        ),
        (
            "a certification whose signature has bytes behind it",
            |g| g.certify_signature = Some([framed(0x14, 0x0B, &g.certify.encode()), vec![0]].concat()),
            "CertificationMalformed",
        ),
        ("a certification that no TPM made", |g| g.certify.magic ^= 1, "CertificationNotMadeByTpm"),
        ("a quote for a certification", |g| g.certify = g.quote.clone(), "CertificationOfAnotherKind"),
        (
            "a certification of another object",
            |g| g.certify.body = certify_info(&[7; 34]),
            "CertificationOfAnotherKey",
        ),
        ("a certification that is cut off", |g| g.certify.body.truncate(36), "CertificationMalformed"),
        ("a certification with bytes behind it", |g| g.certify.body.push(0), "CertificationMalformed"),
        ("a certification after a reset", |g| g.certify.reset += 1, "CertificationOfAnotherBoot"),
        ("a certification after a restart", |g| g.certify.restart += 1, "CertificationOfAnotherBoot"),
        ("a certification of another firmware", |g| g.certify.firmware += 1, "CertificationOfAnotherBoot"),
    ]
}

/// Faults that lead to one and the same reason, because they are one fault: the key is not the one that signed.
const SAME_REASON: [(&str, &str); 2] = [
    ("a quote signed by another key", "an altered signature of the quote"),
    ("a certification signed by another key", "an altered signature of the certification"),
];

fn flipped(mut signature: Vec<u8>) -> Vec<u8> {
    signature[100] ^= 1;
    signature
}

fn framed(scheme: u8, hash: u8, message: &[u8]) -> Vec<u8> {
    [&[0, scheme, 0, hash, 1, 0][..], &sign(&AK, message)].concat()
}

fn with_pcr(bank: &PcrBank, pcr: u8) -> PcrBank {
    let mut bank = bank.clone();
    bank.0.insert(pcr, [0; 32]);
    bank
}

fn without_pcr(bank: &PcrBank, pcr: u8) -> PcrBank {
    let mut bank = bank.clone();
    bank.0.remove(&pcr);
    bank
}

fn with_value(bank: &PcrBank, pcr: u8) -> PcrBank {
    let mut bank = bank.clone();
    bank.extend(pcr, &[5; 32]);
    bank
}

/// A log without its first event: 28 bytes, a size, and as many bytes.
fn behind_header(log: &[u8]) -> Vec<u8> {
    let size = u32::from_le_bytes(log[28..32].try_into().expect("four bytes"));
    log[32 + size as usize..].to_vec()
}

/// An event in the recorded log's form: banks SHA-1, SHA-256, SHA-384, SHA-512, of which one suffices.
fn logged(pcr: u32, digest: &[u8; 32]) -> Vec<u8> {
    [&[pcr, 5, 1].map(u32::to_le_bytes).concat()[..], &0x0Bu16.to_le_bytes(), digest, &0u32.to_le_bytes()]
        .concat()
}

fn locality(locality: u8) -> Vec<u8> {
    let data = [&b"StartupLocality\0"[..], &[locality]].concat();
    let head = [0u32, 3, 1].map(u32::to_le_bytes).concat();
    [&head[..], &0x0Bu16.to_le_bytes(), &[0; 32], &17u32.to_le_bytes(), &data].concat()
}

#[tokio::test]
async fn every_fault_of_the_evidence_is_refused_for_its_own_reason() {
    let lab = Lab::new().await;
    let mut reasons: BTreeMap<(String, String, String, String), &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, change, code) in evidence() {
        let denial = lab.guest_denied(&Guest::with(change).body()).await;
        let part = |name: &str| denial[name].as_str().expect("a text").to_owned();
        for name in ["claim", "expected", "actual", "rule", "remedy"] {
            assert!(!part(name).is_empty(), "{denial}");
        }
        if part("code") != code {
            wrong.push(format!("{name}: {}, not {code}", part("code")));
        }
        let reason = (part("code"), part("claim"), part("expected"), part("actual"));
        if let Some(other) = reasons.insert(reason, name)
            && !SAME_REASON.contains(&(other, name))
        {
            wrong.push(format!("{name}: the same reason as {other}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(evidence().len() >= 60);
}

type JsonChange = fn(&mut Value);

/// An `AttestationInfo` in which one field has the wrong form, and the field that the answer names.
fn fields() -> Vec<(JsonChange, &'static str)> {
    vec![
        (|i| i["AttestationProtocolVersion"] = json!("1.0"), "AttestationInfo.AttestationProtocolVersion"),
        (|i| i["AttestationProtocolVersion"] = json!(2), "AttestationInfo.AttestationProtocolVersion"),
        (|i| without(i, "AttestationProtocolVersion"), "AttestationInfo.AttestationProtocolVersion"),
        (|i| i["OSType"] = json!("?"), "AttestationInfo.OSType"),
        (|i| without(i, "OSType"), "AttestationInfo.OSType"),
        (|i| i["OSType"] = json!(to_base64(&[0xFF; 4])), "AttestationInfo.OSType"),
        (|i| i["OSDistro"] = json!(to_base64(&[b'a'; 257])), "AttestationInfo.OSDistro"),
        (|i| without(i, "OSDistro"), "AttestationInfo.OSDistro"),
        (|i| without(i, "OSBuild"), "AttestationInfo.OSBuild"),
        (|i| i["OSBuild"] = json!(1), "AttestationInfo.OSBuild"),
        (|i| i["OSVersionMajor"] = json!("13"), "AttestationInfo.OSVersionMajor"),
        (|i| without(i, "OSVersionMajor"), "AttestationInfo.OSVersionMajor"),
        (|i| i["OSVersionMinor"] = json!(-1), "AttestationInfo.OSVersionMinor"),
        (|i| i["OSVersionMinor"] = json!(1u64 << 32), "AttestationInfo.OSVersionMinor"),
        (|i| i["TcgLogs"] = json!("!"), "AttestationInfo.TcgLogs"),
        (|i| without(i, "TcgLogs"), "AttestationInfo.TcgLogs"),
        (|i| i["ClientPayload"] = json!([]), "AttestationInfo.ClientPayload"),
        (|i| i["ClientPayload"] = json!({"a": "!"}), "AttestationInfo.ClientPayload.a"),
        (|i| i["ClientPayload"] = json!({"a": 1}), "AttestationInfo.ClientPayload.a"),
        (|i| i["ClientPayload"] = json!({"a": to_base64(&vec![0; 70_000])}), "AttestationInfo.ClientPayload"),
        (
            |i| i["ClientPayload"] = (0..65).map(|n| (n.to_string(), json!(""))).collect(),
            "AttestationInfo.ClientPayload",
        ),
        (|i| i["Extra"] = json!(1), "AttestationInfo.Extra"),
        (|i| without(i, "TpmInfo"), "AttestationInfo.TpmInfo"),
        (|i| i["TpmInfo"] = json!([]), "AttestationInfo.TpmInfo"),
        (|i| i["TpmInfo"]["Extra"] = json!(1), "AttestationInfo.TpmInfo.Extra"),
        (|i| i["TpmInfo"]["AikCert"] = json!("!"), "AttestationInfo.TpmInfo.AikCert"),
        (|i| without(&mut i["TpmInfo"], "AikPub"), "AttestationInfo.TpmInfo.AikPub"),
        (|i| i["TpmInfo"]["AikPub"] = json!({}), "AttestationInfo.TpmInfo.AikPub"),
        (|i| without(&mut i["TpmInfo"], "PcrQuote"), "AttestationInfo.TpmInfo.PcrQuote"),
        (|i| without(&mut i["TpmInfo"], "PcrSignature"), "AttestationInfo.TpmInfo.PcrSignature"),
        (|i| without(&mut i["TpmInfo"], "EncKeyPub"), "AttestationInfo.TpmInfo.EncKeyPub"),
        (|i| without(&mut i["TpmInfo"], "EncKeyCertifyInfo"), "AttestationInfo.TpmInfo.EncKeyCertifyInfo"),
        (
            |i| without(&mut i["TpmInfo"], "EncKeyCertifyInfoSignature"),
            "AttestationInfo.TpmInfo.EncKeyCertifyInfoSignature",
        ),
        (|i| i["TpmInfo"]["PcrSet"] = json!([]), "AttestationInfo.TpmInfo.PcrSet"),
        (|i| i["TpmInfo"]["PcrSet"] = json!([0, 24]), "AttestationInfo.TpmInfo.PcrSet"),
        (|i| i["TpmInfo"]["PcrSet"] = json!([0, 0]), "AttestationInfo.TpmInfo.PcrSet"),
        (|i| i["TpmInfo"]["PcrSet"] = json!(["0"]), "AttestationInfo.TpmInfo.PcrSet"),
        (|i| i["TpmInfo"]["PcrSet"] = json!([0]), "AttestationInfo.TpmInfo.PCRs"),
        (|i| i["TpmInfo"]["PCRs"][0]["Index"] = json!(9), "AttestationInfo.TpmInfo.PCRs"),
        (|i| i["TpmInfo"]["PCRs"][1] = i["TpmInfo"]["PCRs"][0].clone(), "AttestationInfo.TpmInfo.PCRs"),
        (
            |i| i["TpmInfo"]["PCRs"][0]["Digest"] = json!(to_base64(&[0; 20])),
            "AttestationInfo.TpmInfo.PCRs.Digest",
        ),
        (|i| i["TpmInfo"]["PCRs"][0]["Extra"] = json!(1), "AttestationInfo.TpmInfo.PCRs.Extra"),
        (|i| i["TpmInfo"]["PCRs"] = json!({}), "AttestationInfo.TpmInfo.PCRs"),
        (|i| without(i, "IsolationInfo"), "AttestationInfo.IsolationInfo"),
        (|i| i["IsolationInfo"]["Type"] = json!("Sgx"), "AttestationInfo.IsolationInfo.Type"),
        (|i| without(&mut i["IsolationInfo"], "Type"), "AttestationInfo.IsolationInfo.Type"),
        (|i| without(&mut i["IsolationInfo"], "Evidence"), "AttestationInfo.IsolationInfo.Evidence"),
        (|i| i["IsolationInfo"]["Type"] = json!("TrustedLaunch"), "AttestationInfo.IsolationInfo.Evidence"),
        (
            |i| i["IsolationInfo"]["Evidence"]["Proof"] = json!("AA"),
            "AttestationInfo.IsolationInfo.Evidence.Proof",
        ),
        (
            |i| i["IsolationInfo"]["Evidence"]["Proof"] = json!(to_base64(br#"{"VcekCertChain": "AA"}"#)),
            "AttestationInfo.IsolationInfo.Evidence.Proof.SnpReport",
        ),
        (
            |i| i["IsolationInfo"]["Evidence"]["Proof"] = json!(to_base64(br#"{"SnpReport": "AA"}"#)),
            "AttestationInfo.IsolationInfo.Evidence.Proof.VcekCertChain",
        ),
        (
            |i| i["IsolationInfo"]["Evidence"]["RunTimeData"] = json!(to_base64(b"{")),
            "AttestationInfo.IsolationInfo.Evidence.RunTimeData",
        ),
        (
            |i| without(&mut i["IsolationInfo"]["Evidence"], "RunTimeData"),
            "AttestationInfo.IsolationInfo.Evidence.RunTimeData",
        ),
    ]
}

fn without(object: &mut Value, name: &str) {
    object.as_object_mut().expect("an object").remove(name).expect("a member");
}

#[tokio::test]
async fn every_field_of_the_wrong_form_is_named() {
    let lab = Lab::new().await;
    let mut guest = Guest::honest();
    guest.bind();
    let honest = guest.info();
    for (number, (change, field)) in fields().into_iter().enumerate() {
        let mut info = honest.clone();
        change(&mut info);
        let (status, answer) = lab.attest_guest(&body(&info)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "case {number}: {answer}");
        assert_eq!(answer["error"]["code"], "InvalidParameter", "case {number}");
        assert_eq!(answer["error"]["target"], field, "case {number}: {answer}");
    }
    for (outer, field) in [
        (json!({}), "AttestationInfo"),
        (json!({"AttestationInfo": 1}), "AttestationInfo"),
        (json!({"AttestationInfo": "!"}), "AttestationInfo"),
        (json!({"AttestationInfo": "AA"}), "AttestationInfo"),
        (json!({"AttestationInfo": "e30", "more": 1}), "more"),
        (json!([]), "body"),
    ] {
        let (_, answer) = lab.attest_guest(&outer).await;
        assert_eq!(answer["error"]["target"], field, "{outer}");
    }
}

#[tokio::test]
async fn altered_and_unbound_reports_are_refused() {
    let lab = Lab::new().await;
    let mut guest = Guest::honest();
    guest.bind();
    let with_proof = |change: fn(&mut Vec<u8>)| {
        let mut info = guest.info();
        let evidence = &mut info["IsolationInfo"]["Evidence"];
        let bytes = |value: &Value| from_base64_any(value.as_str().expect("a text")).expect("base64");
        let mut proof: Value = serde_json::from_slice(&bytes(&evidence["Proof"])).expect("JSON");
        let mut report = bytes(&proof["SnpReport"]);
        change(&mut report);
        proof["SnpReport"] = json!(to_base64(&report));
        evidence["Proof"] = json!(to_base64(proof.to_string().as_bytes()));
        body(&info)
    };
    let altered = lab.guest_denied(&with_proof(|report| report[0x90] ^= 1)).await;
    assert_eq!(altered["code"], "ReportSignatureInvalid");
    let short = lab.guest_denied(&with_proof(|report| report.truncate(1183))).await;
    assert_eq!(short["code"], "ReportSizeWrong");
    let mut info = guest.info();
    let mut other = guest.runtime.clone();
    other["vm-configuration"]["vmUniqueId"] = json!("ANOTHER");
    info["IsolationInfo"]["Evidence"]["RunTimeData"] = json!(to_base64(other.to_string().as_bytes()));
    assert_eq!(lab.guest_denied(&body(&info)).await["code"], "RuntimeDataNotBound");
}

/// No single byte of what the TPM says can be changed without a refusal.
#[tokio::test]
async fn no_byte_of_quote_keys_and_certification_may_change() {
    let lab = Lab::new().await;
    let honest = Guest::honest().request();
    let now = jiff::Timestamp::now().as_second();
    let verify = |request| {
        attestation_service::app::azure_guest::verify::verify(&lab.service.appraiser, None, request, now)
    };
    verify(honest.clone()).map(drop).expect("honest evidence holds");
    type Part = fn(&mut attestation_service::app::azure_guest::request::TpmInfo) -> &mut Vec<u8>;
    let parts: [(Part, &str); 6] = [
        (|tpm| &mut tpm.aik_pub, "AikPub"),
        (|tpm| &mut tpm.quote, "PcrQuote"),
        (|tpm| &mut tpm.quote_signature, "PcrSignature"),
        (|tpm| &mut tpm.enc_key_pub, "EncKeyPub"),
        (|tpm| &mut tpm.certify_info, "EncKeyCertifyInfo"),
        (|tpm| &mut tpm.certify_signature, "EncKeyCertifyInfoSignature"),
    ];
    for (part, name) in parts {
        let length = part(&mut honest.tpm.clone()).len();
        for at in (0..length).step_by(if length > 200 { 7 } else { 1 }) {
            let mut request = honest.clone();
            part(&mut request.tpm)[at] ^= 0x10;
            assert!(verify(request).is_err(), "{name}, byte {at}");
        }
        let mut request = honest.clone();
        part(&mut request.tpm).pop();
        assert!(verify(request).is_err(), "{name}, one byte short");
    }
}
