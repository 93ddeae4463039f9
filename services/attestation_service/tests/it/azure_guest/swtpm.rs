//! A real TPM (swtpm) driven by the library of the published guest attestation client (crate `azure-tpm`): the service
//! must accept what it makes, and it must be able to open what the service seals.

use std::io::{Error, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use azure_tpm::types::{
    Hierarchy, Tpm2bPublic, TpmtRsaDecryptScheme, rsa_restricted_signing_public,
    rsa_unrestricted_sign_decrypt_public_with_policy,
};
use azure_tpm::{RawTpm, TpmCommandExt as _};
use public_api::encoding::to_base64;
use serde_json::{Value, json};
use vtpm::command;
use vtpm::public_area::RsaArea;

use super::forger::*;
use crate::support::*;

const AK_HANDLE: u32 = 0x8100_0003;
const PCRS: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

struct Tpm {
    process: Child,
    stream: Mutex<UnixStream>,
    _state: tempfile::TempDir,
}

impl RawTpm for Tpm {
    fn transmit_raw(&self, command: &[u8]) -> Result<Vec<u8>, Error> {
        let mut stream = self.stream.lock().map_err(|_| Error::other("poisoned"))?;
        stream.write_all(command)?;
        let mut header = [0; 10];
        stream.read_exact(&mut header)?;
        let size = u32::from_be_bytes(header[2..6].try_into().expect("four bytes"));
        let mut response = header.to_vec();
        response.resize(size as usize, 0);
        stream.read_exact(&mut response[10..])?;
        Ok(response)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Tpm {
    /// A TPM that has seen the recorded boot and has an attestation key; `None` where swtpm is not installed.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn booted() -> Option<Self> {
        let state = tempfile::tempdir().expect("a directory");
        let (socket, control) = (state.path().join("tpm"), state.path().join("control"));
        let spawned = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init"])
            .args(["--tpmstate", &format!("dir={}", state.path().display())])
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .args(["--ctrl", &format!("type=unixio,path={}", control.display())])
            .stdin(Stdio::null())
            .spawn();
        let Ok(process) = spawned else {
            eprintln!("skipped: swtpm is not installed");
            return None;
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => panic!("swtpm does not listen: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        };
        let tpm = Self { process, stream: Mutex::new(stream), _state: state };
        tpm.run(&command::startup_clear());
        for event in vtpm::event_log::parse(LOG).expect("a log").events {
            tpm.run(&command::pcr_extend(event.pcr, &event.digest));
        }
        let created = tpm.create_primary(Hierarchy::Endorsement, rsa_restricted_signing_public(), &[]);
        let created = created.expect("an attestation key");
        tpm.evict_control(AK_HANDLE, created.handle).expect("made persistent");
        tpm.flush_context(created.handle).expect("flushed");
        Some(tpm)
    }

    fn run(&self, command: &[u8]) {
        command::success(&self.transmit_raw(command).expect("an answer")).expect("success");
    }

    /// The client's ephemeral key, in the hierarchy that it uses.
    fn ephemeral(&self, hierarchy: Hierarchy, pcrs: &[u32]) -> (u32, Vec<u8>) {
        let policy = self.compute_pcr_policy_digest(pcrs).expect("a policy");
        let template: Tpm2bPublic = rsa_unrestricted_sign_decrypt_public_with_policy(policy);
        let created = self.create_primary(hierarchy, template, pcrs).expect("a key");
        (created.handle, created.public)
    }

    /// The JSON that the clients send, around a report that binds the attestation key.
    fn info(&self, hierarchy: Hierarchy, pcrs: &[u32]) -> Value {
        let ak_pub = self.read_public(AK_HANDLE).expect("a public area");
        let ak = RsaArea::parse(&ak_pub).expect("an area").key;
        let mut guest = Guest::honest();
        guest.runtime["keys"][0]["n"] = json!(ak.jwk_n());
        guest.runtime["keys"][0]["e"] = json!(ak.jwk_e());
        guest.bind();
        let (quote, signature) = self.quote_with_key(AK_HANDLE, pcrs).expect("a quote");
        let values = self.read_pcrs_sha256(pcrs).expect("PCRs");
        let (handle, enc_pub) = self.ephemeral(hierarchy, pcrs);
        let (certify, certify_signature) = self.certify_with_key(handle, AK_HANDLE).expect("certified");
        self.flush_context(handle).expect("flushed");
        let entries = values.iter().map(|(index, value)| json!({"Index": index, "Digest": to_base64(value)}));
        let mut info = guest.info();
        info["TpmInfo"] = json!({
            "AikCert": "",
            "AikPub": to_base64(&ak_pub),
            "PcrQuote": to_base64(&quote),
            "PcrSignature": to_base64(&signature),
            "PcrSet": pcrs,
            "PCRs": entries.collect::<Vec<_>>(),
            "EncKeyPub": to_base64(&enc_pub),
            "EncKeyCertifyInfo": to_base64(&certify),
            "EncKeyCertifyInfoSignature": to_base64(&certify_signature),
        });
        info
    }

    fn decrypt(&self, hierarchy: Hierarchy, pcrs: &[u32], inner: &[u8]) -> Result<Vec<u8>, Error> {
        let (handle, _) = self.ephemeral(hierarchy, pcrs);
        let plain = self.rsa_decrypt(handle, pcrs, inner, TpmtRsaDecryptScheme::Rsaes);
        self.flush_context(handle)?;
        plain
    }
}

#[tokio::test]
async fn the_clients_own_library_on_a_tpm_attests_and_opens_the_token() {
    let Some(tpm) = Tpm::booted() else { return };
    let lab = Lab::new().await;
    // The C++ client makes its key in the null hierarchy, the Rust client in the owner's.
    for hierarchy in [Hierarchy::Null, Hierarchy::Owner] {
        for pcrs in [&PCRS[..], &[0, 2, 7, 9, 12]] {
            let (status, answer) = lab.attest_guest(&body(&tpm.info(hierarchy, pcrs))).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            let token = answer["token"].as_str().expect("a token");
            let jwt = open(token, |inner| tpm.decrypt(hierarchy, pcrs, inner).expect("decrypted"));
            let claims = lab.verified(&jwt).await;
            assert_eq!(claims["secureboot"], true);
            assert_eq!(claims["x-casemate-vtpm-boundary"], "inside");
            assert_eq!(claims["x-ms-azurevm-attested-pcrs"], json!(pcrs));
        }
    }
}

#[tokio::test]
async fn a_tpm_whose_pcrs_went_on_cannot_open_the_token() {
    let Some(tpm) = Tpm::booted() else { return };
    let lab = Lab::new().await;
    let info = tpm.info(Hierarchy::Owner, &PCRS);
    let (status, answer) = lab.attest_guest(&body(&info)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    tpm.run(&command::pcr_extend(7, &[1; 32]));
    let token = answer["token"].as_str().expect("a token").to_owned();
    let opened = std::panic::catch_unwind(|| {
        open(&token, |inner| tpm.decrypt(Hierarchy::Owner, &PCRS, inner).expect("decrypted"))
    });
    assert!(opened.is_err());
    // And its new state is not what the log says.
    let later = body(&tpm.info(Hierarchy::Owner, &PCRS));
    let denial = lab.guest_denied(&later).await;
    assert_eq!(
        (&denial["code"], &denial["claim"]),
        (&json!("EventLogDoesNotReplay"), &json!("TcgLogs, PCR 7"))
    );
}

#[tokio::test]
async fn evidence_of_two_tpms_does_not_mix() {
    let (Some(one), Some(two)) = (Tpm::booted(), Tpm::booted()) else { return };
    let lab = Lab::new().await;
    let (ours, theirs) = (one.info(Hierarchy::Owner, &PCRS), two.info(Hierarchy::Owner, &PCRS));
    let mixed = |names: &[&str]| {
        let mut info = ours.clone();
        for name in names {
            info["TpmInfo"][name] = theirs["TpmInfo"][name].clone();
        }
        body(&info)
    };
    let cases: [(&[&str], &str); 4] = [
        (&["AikPub"], "AttestationKeyNotBound"),
        (&["PcrQuote", "PcrSignature"], "QuoteSignatureInvalid"),
        (&["EncKeyPub"], "CertificationOfAnotherKey"),
        (&["EncKeyPub", "EncKeyCertifyInfo", "EncKeyCertifyInfoSignature"], "CertificationSignatureInvalid"),
    ];
    for (names, code) in cases {
        assert_eq!(lab.guest_denied(&mixed(names)).await["code"], code, "{names:?}");
    }
}
