//! Guest evidence in which every byte is under the test's control: a software attestation key signs what no TPM would.

use std::sync::LazyLock;

use attestation_service::app::azure_guest::request::GuestRequest;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use axum::http::StatusCode;
use public_api::encoding::{from_base64_any, to_base64, to_base64url};
use serde_json::{Value, json};
use snp::Report;
use vtpm::public_area::policy_pcr;
use vtpm::{PcrBank, RsaPublic};

use crate::support::*;

pub const LOG: &[u8] = include_bytes!("../../../../../engines/vtpm/tests/data/event-log-debian13.bin");
pub const NONCE: &str = "a nonce of the client";

/// The attestation key and the encryption key of the forged TPM, and a key of somebody else.
pub static AK: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"));
pub static ENC: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"));
pub static STRANGER: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"));

pub fn public(key: &KeyPair) -> RsaPublic {
    let public = key.public_key();
    RsaPublic::new(
        public.modulus().big_endian_without_leading_zero(),
        public.exponent().big_endian_without_leading_zero(),
    )
}

pub fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("signed");
    signature
}

pub fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

/// TPMS_ATTEST.
#[derive(Clone)]
pub struct Attest {
    pub magic: u32,
    pub kind: u16,
    pub nonce: Vec<u8>,
    pub reset: u32,
    pub restart: u32,
    pub firmware: u64,
    pub body: Vec<u8>,
}

impl Attest {
    pub fn encode(&self) -> Vec<u8> {
        [
            &self.magic.to_be_bytes()[..],
            &self.kind.to_be_bytes(),
            &tpm2b(&[0x0B; 34]),
            &tpm2b(&self.nonce),
            &7u64.to_be_bytes(),
            &self.reset.to_be_bytes(),
            &self.restart.to_be_bytes(),
            &[1],
            &self.firmware.to_be_bytes(),
            &self.body,
        ]
        .concat()
    }
}

/// TPMT_PUBLIC of an RSA key.
#[derive(Clone)]
pub struct Area {
    pub kind: u16,
    pub name_algorithm: u16,
    pub attributes: u32,
    pub policy: Vec<u8>,
    pub symmetric: Vec<u8>,
    pub scheme: Vec<u8>,
    pub bits: u16,
    pub exponent: u32,
    pub modulus: Vec<u8>,
}

impl Area {
    pub fn encode(&self) -> Vec<u8> {
        let area = [
            &self.kind.to_be_bytes()[..],
            &self.name_algorithm.to_be_bytes(),
            &self.attributes.to_be_bytes(),
            &tpm2b(&self.policy),
            &self.symmetric,
            &self.scheme,
            &self.bits.to_be_bytes(),
            &self.exponent.to_be_bytes(),
            &tpm2b(&self.modulus),
        ]
        .concat();
        tpm2b(&area)
    }

    pub fn name(&self) -> Vec<u8> {
        [&[0, 0x0B][..], &sha256(&self.encode()[2..])].concat()
    }

    pub fn ak() -> Self {
        Self {
            kind: 1,
            name_algorithm: 0x0B,
            attributes: 0x0005_0472,
            policy: Vec::new(),
            symmetric: vec![0, 0x10],
            scheme: vec![0, 0x14, 0, 0x0B],
            bits: 2048,
            exponent: 0,
            modulus: public(&AK).modulus().to_vec(),
        }
    }

    pub fn enc(policy: &[u8]) -> Self {
        Self {
            attributes: 0x0002_0432,
            policy: policy.to_vec(),
            scheme: vec![0, 0x10],
            modulus: public(&ENC).modulus().to_vec(),
            ..Self::ak()
        }
    }
}

/// What a guest presents. A test changes what its attack changes; signatures that are `None` are made afterwards.
#[derive(Clone)]
pub struct Guest {
    pub machine: &'static Machine,
    pub report: Report,
    pub chain: String,
    pub runtime: Value,
    pub pcrs: PcrBank,
    pub log: Vec<u8>,
    pub ak: Area,
    pub aik_cert: Vec<u8>,
    pub quote: Attest,
    pub quote_signature: Option<Vec<u8>>,
    pub enc: Area,
    pub certify: Attest,
    pub certify_signature: Option<Vec<u8>>,
    pub signer: &'static LazyLock<KeyPair>,
}

/// TPMS_QUOTE_INFO over the SHA-256 values of a bank.
pub fn quote_info(pcrs: &PcrBank) -> Vec<u8> {
    let numbers: Vec<u8> = pcrs.0.keys().copied().collect();
    let digest = pcrs.digest_of(&numbers).expect("the bank has its own PCRs");
    [&vtpm::command::pcr_selection(&numbers)[..], &tpm2b(&digest)].concat()
}

/// TPMS_CERTIFY_INFO.
pub fn certify_info(name: &[u8]) -> Vec<u8> {
    [tpm2b(name), tpm2b(&[0x0B; 34])].concat()
}

impl Guest {
    /// Evidence with which nothing is wrong, of a boot that really was.
    pub fn honest() -> Self {
        let attempt = Attempt::honest();
        let bank = vtpm::event_log::parse(LOG).expect("a log").replay();
        let pcrs = PcrBank(bank.0.into_iter().filter(|(pcr, _)| *pcr < 8).collect());
        let enc = Area::enc(&policy_pcr(&pcrs));
        let quote = Attest {
            magic: 0xFF54_4347,
            kind: 0x8018,
            nonce: Vec::new(),
            reset: 3,
            restart: 1,
            firmware: 9,
            body: quote_info(&pcrs),
        };
        let certify = Attest { kind: 0x8017, body: certify_info(&enc.name()), ..quote.clone() };
        let ak = public(&AK);
        let key = |kid: &str| json!({"kid": kid, "kty": "RSA", "key_ops": ["sign"], "e": ak.jwk_e(), "n": ak.jwk_n()});
        let runtime = json!({
            "keys": [key("HCLAkPub"), {"kid": "HCLEkPub", "kty": "RSA", "e": "AQAB", "n": "AA"}],
            "vm-configuration": {"secure-boot": true, "tpm-enabled": true, "vmUniqueId": VM_ID},
            "user-data": "00".repeat(64),
        });
        Self {
            machine: attempt.machine,
            report: attempt.report,
            chain: attempt.chain,
            runtime,
            pcrs,
            log: LOG.to_vec(),
            ak: Area::ak(),
            aik_cert: Vec::new(),
            quote,
            quote_signature: None,
            enc,
            certify,
            certify_signature: None,
            signer: &AK,
        }
    }

    pub fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut guest = Self::honest();
        change(&mut guest);
        guest
    }

    /// Quotes and seals to other PCRs than the usual ones.
    pub fn set_pcrs(&mut self, pcrs: PcrBank) {
        self.enc.policy = policy_pcr(&pcrs).to_vec();
        self.certify.body = certify_info(&self.enc.name());
        self.quote.body = quote_info(&pcrs);
        self.pcrs = pcrs;
    }

    /// Another encryption key area, certified.
    pub fn set_enc(&mut self, change: impl FnOnce(&mut Area)) {
        change(&mut self.enc);
        self.certify.body = certify_info(&self.enc.name());
    }

    /// Puts the hash of the runtime claims into the report.
    pub fn bind(&mut self) {
        self.report.report_data = [0; 64];
        self.report.report_data[..32].copy_from_slice(&sha256(self.runtime.to_string().as_bytes()));
    }

    /// The JSON behind `AttestationInfo`, as the open C++ client writes it.
    pub fn info(&self) -> Value {
        let quote = self.quote.encode();
        let certify = self.certify.encode();
        let signed = |given: &Option<Vec<u8>>, message: &[u8]| {
            to_base64(&given.clone().unwrap_or_else(|| sign(self.signer, message)))
        };
        let proof = json!({
            "SnpReport": to_base64url(&self.machine.sign(&self.report)),
            "VcekCertChain": to_base64(self.chain.as_bytes()),
        });
        let pcrs: Vec<Value> = self
            .pcrs
            .0
            .iter()
            .map(|(index, digest)| json!({"Index": index, "Digest": to_base64(digest)}))
            .collect();
        json!({
            "AttestationProtocolVersion": "2.0",
            "OSType": to_base64(b"Linux"),
            "OSDistro": to_base64(b"Debian GNU/Linux"),
            "OSVersionMajor": 13,
            "OSVersionMinor": 0,
            "OSBuild": to_base64(b"NotApplication"),
            "TcgLogs": to_base64(&self.log),
            "ClientPayload": {"nonce": to_base64(NONCE.as_bytes())},
            "TpmInfo": {
                "AikCert": to_base64(&self.aik_cert),
                "AikPub": to_base64(&self.ak.encode()),
                "PcrQuote": to_base64(&quote),
                "PcrSignature": signed(&self.quote_signature, &quote),
                "EncKeyPub": to_base64(&self.enc.encode()),
                "EncKeyCertifyInfo": to_base64(&certify),
                "EncKeyCertifyInfoSignature": signed(&self.certify_signature, &certify),
                "PcrSet": self.pcrs.0.keys().collect::<Vec<_>>(),
                "PCRs": pcrs,
            },
            "IsolationInfo": {
                "Type": "SevSnp",
                "Evidence": {
                    "Proof": to_base64(proof.to_string().as_bytes()),
                    "RunTimeData": to_base64(self.runtime.to_string().as_bytes()),
                },
            },
        })
    }

    /// The honest binding, then the body.
    pub fn body(&self) -> Value {
        let mut bound = self.clone();
        bound.bind();
        body(&bound.info())
    }

    /// The body that asks for a certificate of the attestation key.
    pub fn certificate_request(&self) -> Value {
        let mut bound = self.clone();
        bound.bind();
        let evidence = json!({
            "SnpReport": to_base64url(&bound.machine.sign(&bound.report)),
            "VcekCertChain": to_base64url(bound.chain.as_bytes()),
        });
        json!({
            "report": to_base64url(evidence.to_string().as_bytes()),
            "runtimeData": {"data": to_base64url(bound.runtime.to_string().as_bytes()), "dataType": "JSON"},
            "attestationKey": to_base64(&bound.ak.encode()),
        })
    }

    pub fn request(&self) -> GuestRequest {
        GuestRequest::parse(self.body().to_string().as_bytes()).expect("a request")
    }
}

/// The body around an `AttestationInfo`.
pub fn body(info: &Value) -> Value {
    json!({"AttestationInfo": to_base64url(info.to_string().as_bytes())})
}

impl Lab {
    pub async fn attest_guest(&self, body: &Value) -> (StatusCode, Value) {
        self.post("/attest/AzureGuest?api-version=2020-10-01", body.to_string()).await
    }

    /// The claims of the sealed token, opened with the forger's key.
    pub async fn guest_claims(&self, body: &Value) -> Value {
        let (status, answer) = self.attest_guest(body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let jwt = open(answer["token"].as_str().expect("a token"), |inner| decrypt(&ENC, inner));
        self.verified(&jwt).await
    }

    /// The denial, which the log holds too.
    pub async fn guest_denied(&self, body: &Value) -> Value {
        let (status, answer) = self.attest_guest(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        let denial = answer["error"]["denial"].clone();
        assert!(denial.is_object(), "{answer}");
        let logged = self.service.store.entries_after(0).await.expect("the log");
        let last = logged.last().expect("an entry");
        assert_eq!(serde_json::to_value(&last.denial).expect("JSON"), denial, "the log tells the same");
        denial
    }
}

/// Opens a sealed token as the clients do.
pub fn open(token: &str, decrypt: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let sealed: Value = serde_json::from_slice(&from_base64_any(token).expect("base64url")).expect("JSON");
    let bytes = |value: &Value| from_base64_any(value.as_str().expect("a text")).expect("base64");
    let parameters = &sealed["EncryptionParams"];
    let labels = ["BlockMode", "BlockPadding", "Cipher"].map(|name| parameters[name].as_str());
    assert_eq!(labels, [Some("ChainingModeGCM"), Some("PKCS7"), Some("AES")]);
    assert_eq!(parameters["KeySizeInBits"], 256);
    let key = UnboundKey::new(&AES_256_GCM, &decrypt(&bytes(&sealed["EncryptedInnerKey"]))).expect("a key");
    let iv = Nonce::try_assume_unique_for_key(&bytes(&parameters["Iv"])).expect("12 bytes");
    let mut text = [bytes(&sealed["Jwt"]), bytes(&sealed["AuthenticationData"])].concat();
    let plain = LessSafeKey::new(key).open_in_place(iv, Aad::from(b"Transport Key"), &mut text);
    String::from_utf8(plain.expect("opened").to_vec()).expect("a JWT")
}

pub fn decrypt(key: &KeyPair, ciphertext: &[u8]) -> Vec<u8> {
    let der = key.as_der().expect("DER");
    let private = PrivateDecryptingKey::from_pkcs8(der.as_ref()).expect("a key");
    let private = Pkcs1PrivateDecryptingKey::new(private).expect("a key");
    let mut plain = vec![0; private.min_output_size()];
    private.decrypt(ciphertext, &mut plain).expect("decrypted").to_vec()
}
