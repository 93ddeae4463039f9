//! Evidence from a TPM, what it proves, and what is sealed to a key of this boot.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
    PublicKeyComponents,
};
use guest_agent::azure_guest::{EphemeralKey, PCRS, attestation_info, open};
use guest_agent::evidence::{Evidence, hcl_report};
use guest_agent::release::unwrap;
use guest_agent::tpm::{attestation_key, nv_read, nv_write, pcrs};
use public_api::encoding::{from_base64_any, to_base64, to_base64url};
use serde_json::{Value, json};
use snp::psp::{GuestRequest, GuestResponse, ReportRequest};
use vtpm::command::{self, KeyPublic};
use vtpm::hcl::{HclReport, NV_INDEX_USER_DATA};
use vtpm::{PcrBank, RsaPublic, quote};

use crate::processor::Context;
use crate::swtpm::Swtpm;

/// An HCL report as the paravisor makes it.
fn report(user_data: Option<&str>) -> Vec<u8> {
    let claims = match user_data {
        Some(data) => json!({ "keys": [], "user-data": data }),
        None => json!({ "keys": [] }),
    };
    let claims = claims.to_string().into_bytes();
    let mut report_data = [0; 64];
    report_data[..32].copy_from_slice(&vtpm::pcr::sha256(&claims));
    let request = GuestRequest::Report(ReportRequest { report_data, vmpl: 0, key_select: 0 });
    let GuestResponse::Report { report } = Context::launch().answer(&request) else { panic!("no report") };
    vtpm::hcl::build(&report, &claims).unwrap()
}

#[test]
fn a_report_is_read_whole_and_only_if_it_binds_its_claims() {
    let mut tpm = Swtpm::provisioned();
    let error = hcl_report(&mut tpm, None, &mut || {}).unwrap_err();
    assert!(error.to_string().contains("holds no attestation report"), "{}", error.chain());
    let whole = report(None);
    tpm.put_report(&whole);
    assert_eq!(hcl_report(&mut tpm, None, &mut || {}).unwrap(), whole);
    let mut changed = whole;
    *changed.last_mut().unwrap() ^= 1;
    tpm.put_report(&changed);
    let error = hcl_report(&mut tpm, None, &mut || {}).unwrap_err();
    assert_eq!(error.blame().exit_code(), 3, "{}", error.chain());
}

#[test]
fn user_data_is_waited_for_until_the_report_speaks_of_it() {
    let mut tpm = Swtpm::provisioned();
    tpm.put_report(&report(Some(&"00".repeat(64))));
    // What another program left, of another size.
    nv_write(&mut tpm, NV_INDEX_USER_DATA, &[9; 16]).unwrap();
    let (mut platform, mut pauses) = (tpm.clone(), 0);
    let read = hcl_report(&mut tpm, Some(&[0x75; 64]), &mut || {
        pauses += 1;
        if pauses == 3 {
            let data = nv_read(&mut platform, NV_INDEX_USER_DATA).unwrap().unwrap();
            platform.put_report(&report(Some(&hex::encode(data))));
        }
    });
    let claims = HclReport::parse(&read.unwrap()).unwrap().runtime_claims().unwrap();
    assert_eq!((claims.user_data, pauses), (Some("75".repeat(64)), 3));
    let never = hcl_report(&mut tpm, Some(&[0x76; 64]), &mut || {}).unwrap_err();
    assert!(never.to_string().contains("no report with the user data"), "{never}");
}

/// A metadata service that answers once.
fn metadata_service(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        let request = String::from_utf8(request).unwrap().to_lowercase();
        let good = request.starts_with("get /metadata/thim/amd/certification http/1.1")
            && request.contains("metadata: true");
        let status = if good { "200 OK" } else { "400 Bad Request" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).unwrap();
    });
    url
}

fn evidence(tpm: &mut Swtpm) -> Evidence {
    tpm.put_report(&report(None));
    let url = metadata_service(r#"{"vcekCert":"leaf","certificateChain":"ask\nark\n","tcbm":"0"}"#);
    Evidence::collect(tpm, &url, None).unwrap()
}

#[test]
fn evidence_has_the_chain_of_the_metadata_service() {
    let evidence = evidence(&mut Swtpm::provisioned());
    assert_eq!(evidence.certificates, "leaf\nask\nark\n");
    let request = guest_agent::token::sev_snp_vm_request(&evidence, Some("n")).unwrap();
    let inner: Value = serde_json::from_slice(&request.report).unwrap();
    assert_eq!(inner["SnpReport"], to_base64url(&evidence.snp_report));
    assert_eq!(request.runtime_data.unwrap().data, evidence.runtime_claims);
    let mut tpm = Swtpm::provisioned();
    tpm.put_report(&report(None));
    let error = Evidence::collect(&mut tpm, &metadata_service("{}"), None).unwrap_err();
    assert!(error.to_string().contains("answered something else"), "{}", error.chain());
}

struct Info {
    tpm: Swtpm,
    key: EphemeralKey,
    values: PcrBank,
    json: Value,
}

fn info() -> Info {
    let mut tpm = Swtpm::provisioned();
    let evidence = evidence(&mut tpm);
    tpm.run(&command::pcr_extend(4, &[4; 32]));
    let values = pcrs(&mut tpm, &PCRS).unwrap();
    let key = EphemeralKey::create(&mut tpm, &values).unwrap();
    let info = attestation_info(&mut tpm, &evidence, &values, &key, "once", b"log".to_vec()).unwrap();
    Info { tpm, key, values, json: serde_json::to_value(info).unwrap() }
}

impl Info {
    fn bytes(&self, pointer: &str) -> Vec<u8> {
        from_base64_any(self.json.pointer(pointer).unwrap().as_str().unwrap()).unwrap()
    }

    fn public(&self) -> RsaPublic {
        KeyPublic::parse(&self.bytes("/TpmInfo/EncKeyPub")).unwrap().rsa().unwrap().clone()
    }
}

#[test]
fn the_quote_and_the_certified_key_verify() {
    let mut info = info();
    let ak = attestation_key(&mut info.tpm).unwrap();
    assert_eq!(info.bytes("/TpmInfo/AikPub"), ak.tpm2b_public);
    let (message, signature) = (info.bytes("/TpmInfo/PcrQuote"), info.bytes("/TpmInfo/PcrSignature"));
    assert_eq!(signature.len(), 256, "a bare signature");
    let verified = quote::verify(&message, &signature, ak.rsa().unwrap(), b"", &info.values).unwrap();
    assert_eq!(*verified.pcrs(), info.values);
    let told: BTreeMap<u64, Vec<u8>> = info.json["TpmInfo"]["PCRs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["Index"].as_u64().unwrap(), entry["Digest"].as_str().unwrap()))
        .map(|(index, digest)| (index, from_base64_any(digest).unwrap()))
        .collect();
    assert!(told.iter().all(|(index, digest)| {
        info.values.value(u8::try_from(*index).unwrap()).unwrap().as_slice() == digest.as_slice()
    }));
    assert_eq!(told.len(), PCRS.len());

    let certified = info.bytes("/TpmInfo/EncKeyCertifyInfo");
    let signature = info.bytes("/TpmInfo/EncKeyCertifyInfoSignature");
    assert!(ak.rsa().unwrap().verify_pkcs1_sha256(&certified, &signature));
    assert_eq!(certified[..6], [0xFF, 0x54, 0x43, 0x47, 0x80, 0x17], "TPM_ST_ATTEST_CERTIFY");
    let key = KeyPublic::parse(&info.bytes("/TpmInfo/EncKeyPub")).unwrap();
    assert!(
        certified.windows(key.name.len()).any(|window| window == key.name),
        "the key's name is certified"
    );
    let policy = command::pcr_policy(&PCRS, &info.values).unwrap();
    assert!(key.tpm2b_public.windows(32).any(|window| window == policy));
}

#[test]
fn the_request_reads_as_the_service_expects_it() {
    let info = info();
    let names: Vec<&String> = info.json.as_object().unwrap().keys().collect();
    expect_test::expect![[r#"["AttestationProtocolVersion", "ClientPayload", "IsolationInfo", "OSBuild", "OSDistro", "OSType", "OSVersionMajor", "OSVersionMinor", "TcgLogs", "TpmInfo"]"#]]
        .assert_eq(&format!("{names:?}"));
    let names: Vec<&String> = info.json["TpmInfo"].as_object().unwrap().keys().collect();
    expect_test::expect![[r#"["AikCert", "AikPub", "EncKeyCertifyInfo", "EncKeyCertifyInfoSignature", "EncKeyPub", "PCRs", "PcrQuote", "PcrSet", "PcrSignature"]"#]]
        .assert_eq(&format!("{names:?}"));
    assert_eq!(info.bytes("/ClientPayload/nonce"), b"once");
    assert_eq!(info.bytes("/TcgLogs"), b"log");
    assert_eq!(info.bytes("/OSType"), b"Linux");
    let proof: Value = serde_json::from_slice(&info.bytes("/IsolationInfo/Evidence/Proof")).unwrap();
    assert_eq!(from_base64_any(proof["VcekCertChain"].as_str().unwrap()).unwrap(), b"leaf\nask\nark\n");
    assert_eq!(info.json["IsolationInfo"]["Type"], "SevSnp");
}

fn encrypting_key(key: &RsaPublic) -> PublicEncryptingKey {
    PublicKeyComponents { n: key.modulus(), e: key.exponent() }.try_into().unwrap()
}

/// What the service answers: a token, sealed as Azure's service seals it.
fn sealed(key: &RsaPublic, token: &str) -> String {
    let (inner, iv) = ([7; 32], [8; 12]);
    let rsa = Pkcs1PublicEncryptingKey::new(encrypting_key(key)).unwrap();
    let mut wrapped = vec![0; rsa.ciphertext_size()];
    let wrapped = rsa.encrypt(&inner, &mut wrapped).unwrap();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &inner).unwrap());
    let mut text = token.as_bytes().to_vec();
    let nonce = Nonce::assume_unique_for_key(iv);
    let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(b"Transport Key"), &mut text).unwrap();
    let sealed = json!({
        "EncryptedInnerKey": to_base64(wrapped),
        "EncryptionParams": { "Iv": to_base64(&iv), "Cipher": "AES", "KeySizeInBits": 256 },
        "AuthenticationData": to_base64(tag.as_ref()),
        "Jwt": to_base64(&text),
    });
    to_base64url(sealed.to_string().as_bytes())
}

#[test]
fn a_sealed_token_opens_in_this_boot_and_not_after_a_measurement() {
    let mut info = info();
    let answer = sealed(&info.public(), "a.b.c");
    assert_eq!(open(&mut info.tpm, &info.key, &answer).unwrap(), "a.b.c");
    let mut changed: Value = serde_json::from_slice(&from_base64_any(&answer).unwrap()).unwrap();
    changed["Jwt"] = json!(to_base64(b"x.y.z"));
    let changed = to_base64url(changed.to_string().as_bytes());
    let error = open(&mut info.tpm, &info.key, &changed).unwrap_err();
    assert!(error.to_string().contains("changed on its way"), "{error}");
    assert!(open(&mut info.tpm, &info.key, "a.b.c").is_err());

    info.tpm.run(&command::pcr_extend(7, &[1; 32]));
    let error = open(&mut info.tpm, &info.key, &answer).unwrap_err();
    assert!(error.chain().contains("the TPM, decrypting: the tpm answered 0x99d"), "{}", error.chain());
}

#[test]
fn a_token_for_another_vms_key_does_not_open() {
    let (mut info, other) = (info(), info());
    let answer = sealed(&other.public(), "a.b.c");
    assert!(open(&mut info.tpm, &info.key, &answer).is_err());
}

#[test]
fn a_released_key_unwraps_in_the_tpm() {
    let mut info = info();
    let rsa = OaepPublicEncryptingKey::new(encrypting_key(&info.public())).unwrap();
    let kek = [5; 32];
    let mut wrapped = vec![0; rsa.ciphertext_size()];
    rsa.encrypt(&OAEP_SHA256_MGF1SHA256, &kek, &mut wrapped, None).unwrap();
    let secret = b"a private key of the tenant";
    let mut block = vec![0; secret.len() + 15];
    let block = AesKek::new(&AES_256, &kek).unwrap().wrap_with_padding(secret, &mut block).unwrap();
    wrapped.extend_from_slice(block);
    assert_eq!(unwrap(&mut info.tpm, &wrapped, &info.key).unwrap().as_slice(), secret);
    for at in [0, 255, 256, wrapped.len() - 1] {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        assert!(unwrap(&mut info.tpm, &changed, &info.key).is_err(), "byte {at}");
    }
    assert!(unwrap(&mut info.tpm, &wrapped[..200], &info.key).is_err());
}
