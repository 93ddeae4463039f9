//! A real TPM (swtpm), driven with the commands of the guest attestation clients (Azure's `client-library`, crates
//! `azure-guest-attestation-sdk` and `azure-tpm` 0.1.1): the service must accept what comes of them, and the TPM must be
//! able to open what the service seals.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use public_api::encoding::to_base64;
use serde_json::{Value, json};
use vtpm::command::{self, handle};
use vtpm::public_area::RsaArea;

use super::forger::*;
use crate::support::*;

const AK_HANDLE: u32 = 0x8100_0003;
const PCRS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

struct Tpm {
    process: Child,
    stream: Mutex<UnixStream>,
    _state: tempfile::TempDir,
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
        let create = command::create_primary(handle::ENDORSEMENT, b"", &command::template::AK);
        let (transient, _) = command::created_primary(&tpm.send(&create)).expect("an attestation key");
        tpm.run(&command::evict_control(handle::OWNER, b"", transient, AK_HANDLE));
        tpm.run(&command::flush_context(transient));
        Some(tpm)
    }

    fn send(&self, command: &[u8]) -> Vec<u8> {
        let mut stream = self.stream.lock().expect("no test panicked while it sent");
        stream.write_all(command).expect("sent");
        let mut header = [0; 10];
        stream.read_exact(&mut header).expect("an answer");
        let size = u32::from_be_bytes(header[2..6].try_into().expect("four bytes"));
        let mut response = header.to_vec();
        response.resize(size as usize, 0);
        stream.read_exact(&mut response[10..]).expect("the whole answer");
        response
    }

    fn run(&self, command: &[u8]) {
        command::success(&self.send(command)).expect("success");
    }

    /// A policy session (1) or a trial of one (3), in which `TPM2_PolicyPCR` was run.
    fn session(&self, kind: u8, pcrs: &[u8]) -> u32 {
        let parameters = [&tpm2b(&[7; 16])[..], &tpm2b(&[]), &[kind, 0, 0x10, 0, 0x0B]].concat();
        let started = self.send(&raw(0x176, &[handle::NULL, handle::NULL], &[], &parameters));
        command::success(&started).expect("a session");
        let session = u32::from_be_bytes(started[10..14].try_into().expect("a handle"));
        let parameters = [&tpm2b(&[])[..], &command::pcr_selection(pcrs)].concat();
        self.run(&raw(0x17F, &[session], &[], &parameters));
        session
    }

    /// The client's ephemeral key, in the hierarchy that it uses.
    fn ephemeral(&self, hierarchy: u32, pcrs: &[u8]) -> (u32, Vec<u8>) {
        let trial = self.session(3, pcrs);
        let digest = self.send(&raw(0x189, &[trial], &[], &[]));
        command::success(&digest).expect("a policy digest");
        self.run(&command::flush_context(trial));
        let area = Area { modulus: Vec::new(), ..Area::enc(&digest[12..]) };
        let create = command::create_primary(hierarchy, b"", &area.encode()[2..]);
        let (transient, key) = command::created_primary(&self.send(&create)).expect("a key");
        (transient, key.tpm2b_public)
    }

    /// `TPM2_Certify` without qualifying data: attestation and bare signature.
    fn certify(&self, object: u32) -> (Vec<u8>, Vec<u8>) {
        let parameters = [&tpm2b(&[])[..], &[0, 0x10]].concat();
        let passwords = [handle::PASSWORD_SESSION, handle::PASSWORD_SESSION];
        let certified = self.send(&raw(0x148, &[object, AK_HANDLE], &passwords, &parameters));
        let (attest, signature) = command::quoted(&certified).expect("certified");
        (attest, bare(&signature))
    }

    /// The JSON that the clients send, around a report that binds the attestation key.
    fn info(&self, hierarchy: u32, pcrs: &[u8]) -> Value {
        let read = self.send(&command::read_public(AK_HANDLE));
        let ak_pub = command::read_public_key(&read).expect("a public area").tpm2b_public;
        let ak = RsaArea::parse(&ak_pub).expect("an area").key;
        let mut guest = Guest::honest();
        guest.runtime["keys"][0]["n"] = json!(ak.jwk_n());
        guest.runtime["keys"][0]["e"] = json!(ak.jwk_e());
        guest.bind();
        let quoted = self.send(&command::quote(AK_HANDLE, b"", b"", pcrs));
        let (quote, signature) = command::quoted(&quoted).expect("a quote");
        let values = command::pcr_values(&self.send(&command::pcr_read(pcrs))).expect("PCRs");
        let (transient, enc_pub) = self.ephemeral(hierarchy, pcrs);
        let (certify, certify_signature) = self.certify(transient);
        self.run(&command::flush_context(transient));
        let entries = values.0.iter();
        let entries = entries.map(|(index, value)| json!({"Index": index, "Digest": to_base64(value)}));
        let mut info = guest.info();
        info["TpmInfo"] = json!({
            "AikCert": "",
            "AikPub": to_base64(&ak_pub),
            "PcrQuote": to_base64(&quote),
            "PcrSignature": to_base64(&bare(&signature)),
            "PcrSet": pcrs,
            "PCRs": entries.collect::<Vec<_>>(),
            "EncKeyPub": to_base64(&enc_pub),
            "EncKeyCertifyInfo": to_base64(&certify),
            "EncKeyCertifyInfoSignature": to_base64(&certify_signature),
        });
        info
    }

    /// `TPM2_RSA_Decrypt` with RSAES under the policy; `None` if the TPM refuses.
    fn decrypt(&self, hierarchy: u32, pcrs: &[u8], inner: &[u8]) -> Option<Vec<u8>> {
        let (transient, _) = self.ephemeral(hierarchy, pcrs);
        let session = self.session(1, pcrs);
        let parameters = [&tpm2b(inner)[..], &[0, 0x15], &tpm2b(&[])].concat();
        let answer = self.send(&raw(0x159, &[transient], &[session], &parameters));
        self.run(&command::flush_context(transient));
        command::nv_data(&answer).ok()
    }
}

/// A command; each session has an empty nonce and an empty authorisation.
fn raw(code: u32, handles: &[u32], sessions: &[u32], parameters: &[u8]) -> Vec<u8> {
    let mut body: Vec<u8> = handles.iter().flat_map(|handle| handle.to_be_bytes()).collect();
    if !sessions.is_empty() {
        body.extend(u32::try_from(9 * sessions.len()).expect("few").to_be_bytes());
        for session in sessions {
            body.extend([&session.to_be_bytes()[..], &[0, 0, 0, 0, 0]].concat());
        }
    }
    body.extend_from_slice(parameters);
    let tag: u16 = if sessions.is_empty() { 0x8001 } else { 0x8002 };
    let size = u32::try_from(10 + body.len()).expect("short");
    [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), &body].concat()
}

/// The clients send the bare signature of a TPMT_SIGNATURE.
fn bare(signature: &[u8]) -> Vec<u8> {
    signature[6..].to_vec()
}

#[tokio::test]
async fn what_the_clients_do_on_a_tpm_is_accepted_and_the_tpm_opens_the_token() {
    let Some(tpm) = Tpm::booted() else { return };
    let lab = Lab::new().await;
    // The C++ client makes its key in the null hierarchy, the Rust client in the owner's.
    for hierarchy in [handle::NULL, handle::OWNER] {
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
    let info = tpm.info(handle::OWNER, &PCRS);
    let (status, answer) = lab.attest_guest(&body(&info)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    tpm.run(&command::pcr_extend(7, &[1; 32]));
    let token = answer["token"].as_str().expect("a token").to_owned();
    let sealed = public_api::encoding::from_base64_any(&token).expect("base64url");
    let sealed: Value = serde_json::from_slice(&sealed).expect("JSON");
    let inner = sealed["EncryptedInnerKey"].as_str().expect("a text");
    let inner = public_api::encoding::from_base64_any(inner).expect("base64");
    assert_eq!(tpm.decrypt(handle::OWNER, &PCRS, &inner), None);
    // And its new state is not what the log says.
    let later = body(&tpm.info(handle::OWNER, &PCRS));
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
    let (ours, theirs) = (one.info(handle::OWNER, &PCRS), two.info(handle::OWNER, &PCRS));
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
