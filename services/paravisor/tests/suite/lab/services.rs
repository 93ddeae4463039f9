//! A double of attestation service and key service: evidence must bind what it says, a key goes only to the transfer key
//! of a token, generations only go forward.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};

use attestation_service::app::ak_authority::AkAuthority;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey,
    PublicKeyComponents,
};
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair};
use internal_api::launch::sha256_hex;
use paravisor::failure::Stop;
use paravisor::flow::world::Services;
use public_api::Denial;
use public_api::attestation::{AttestSevSnpVmRequest, ParavisorRuntimeClaims, SevSnpEvidence};
use public_api::attestation_keys::AttestationKeyCertificateRequest;
use public_api::client::ClientError;
use public_api::encoding::{from_base64_any, to_base64, to_base64url};
use public_api::jwk::Jwk;
use public_api::keys::{
    KeyAttributes, KeyBundle, KeyEncryption, KeyHsm, KeyHsmHeader, KeyReleaseParameters, KeySuccession,
    ReleasePayload, ReleaseRequestEcho, ReleaseResponse, succession_statement,
};
use sealed_disk::guest_state::Kek;
use snp::report::Report;
use vtpm::public_area::RsaArea;

pub const KEY_ID: &str = "https://keys.example/keys/vm/0123456789abcdef0123456789abcdef";
/// Another key, which may follow the first where [`FakeServices::consents`] says so.
pub const NEXT_KEY_ID: &str = "https://keys.example/keys/customers/fedcba9876543210fedcba9876543210";

/// A change of an answer.
pub type Spoil = fn(&mut ReleasePayload, &Jwk);

/// Both services.
#[derive(Default)]
pub struct FakeServices {
    state: Mutex<State>,
    /// Changes an answer of `release` on its way.
    pub spoil: Mutex<Option<Spoil>>,
    /// The next calls of `release` and `certify_attestation_key` are not answered.
    pub deaf: Mutex<bool>,
    /// Certificates given out.
    pub certified: Mutex<u32>,
    /// The time at which certificates are given out, in Unix seconds; the beginning of 2026 if there is none.
    pub clock: Mutex<Option<i64>>,
    /// Which of two keys is the VM's.
    pub second_key: Mutex<bool>,
    /// Which key's owner lets which key follow.
    pub consents: Mutex<BTreeSet<(String, String)>>,
    /// Keys that their owners have disabled.
    pub disabled: Mutex<BTreeSet<String>>,
    /// How many releases are still answered, if not all are.
    pub answers_left: Mutex<Option<u32>>,
}

#[derive(Default)]
struct State {
    nonces: u32,
    tokens: BTreeMap<String, ParavisorRuntimeClaims>,
    last: Option<u64>,
    released: Vec<u64>,
}

/// The VM's key, another, the one of [`NEXT_KEY_ID`], and one that the operator made.
pub fn key(number: usize) -> &'static [u8] {
    static KEYS: [OnceLock<Vec<u8>>; 4] = [const { OnceLock::new() }; 4];
    KEYS[number].get_or_init(|| {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        key.as_der().unwrap().as_ref().to_vec()
    })
}

/// The VM's key, as it is released.
pub fn kek() -> Kek {
    Kek::from_pkcs8(key(0)).unwrap()
}

/// The service's signing key and its certificate.
fn signer() -> &'static (RsaKeyPair, Vec<u8>) {
    static SIGNER: OnceLock<(RsaKeyPair, Vec<u8>)> = OnceLock::new();
    SIGNER.get_or_init(|| {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = pair.as_der().unwrap().as_ref().to_vec();
        let signing =
            rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der.into(), &rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&signing).unwrap();
        (pair, certificate.der().to_vec())
    })
}

impl FakeServices {
    /// Generations whose keys were released, in order.
    pub fn released(&self) -> Vec<u64> {
        self.state.lock().unwrap().released.clone()
    }

    /// The claims of the last token.
    pub fn last_claims(&self) -> ParavisorRuntimeClaims {
        self.state.lock().unwrap().tokens.last_key_value().unwrap().1.clone()
    }
}

fn denied(code: &str, expected: impl ToString, actual: impl ToString) -> Stop {
    let denial = Denial::new(code, "generation", expected.to_string(), actual.to_string(), "rule", "remedy");
    ClientError::Denied { service: "https://keys.example".to_owned(), denial: Box::new(denial) }.into()
}

fn deaf() -> Stop {
    let (service, status, code) = ("https://keys.example".to_owned(), 503, "Busy".to_owned());
    ClientError::Status { service, status, code, message: String::new() }.into()
}

/// The attestation service's own authority for attestation keys.
fn authority() -> &'static AkAuthority {
    static AUTHORITY: OnceLock<AkAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        AkAuthority::open(folder.path(), "https://attestation.example").unwrap()
    })
}

impl Services for FakeServices {
    fn nonce(&self) -> Result<String, Stop> {
        let mut state = self.state.lock().unwrap();
        state.nonces += 1;
        Ok(format!("nonce-{}", state.nonces))
    }

    fn attest(&self, request: &AttestSevSnpVmRequest) -> Result<String, Stop> {
        let evidence: SevSnpEvidence = serde_json::from_slice(&request.report).unwrap();
        let report = Report::parse(&evidence.snp_report).unwrap();
        let runtime = request.runtime_data.as_ref().unwrap();
        let init = request.init_time_data.as_ref().unwrap();
        assert_eq!(hex::encode(&report.report_data[..32]), sha256_hex(&runtime.data));
        assert_eq!(report.report_data[32..], [0; 32]);
        assert_eq!(hex::encode(report.host_data), sha256_hex(&init.data));
        let claims: ParavisorRuntimeClaims = serde_json::from_slice(&runtime.data).unwrap();
        let mut state = self.state.lock().unwrap();
        assert_eq!(claims.nonce, format!("nonce-{}", state.nonces), "the nonce that was given out last");
        assert_eq!(request.nonce.as_ref().unwrap(), &claims.nonce);
        let token = format!("token-{:06}", state.tokens.len());
        state.tokens.insert(token.clone(), claims);
        Ok(token)
    }

    fn certify_attestation_key(&self, request: &AttestationKeyCertificateRequest) -> Result<Vec<u8>, Stop> {
        if *self.deaf.lock().unwrap() {
            return Err(deaf());
        }
        let evidence: SevSnpEvidence = serde_json::from_slice(&request.report).unwrap();
        let report = Report::parse(&evidence.snp_report).unwrap();
        assert_eq!(hex::encode(&report.report_data[..32]), sha256_hex(&request.runtime_data.data));
        let claims: serde_json::Value = serde_json::from_slice(&request.runtime_data.data).unwrap();
        let area = RsaArea::parse(&request.attestation_key).unwrap();
        area.check_attestation_key().unwrap();
        assert_eq!(claims["keys"][0]["n"], area.key.jwk_n());
        let vm_id = claims["vm-configuration"]["vmUniqueId"].as_str().unwrap();
        *self.certified.lock().unwrap() += 1;
        let now = self.clock.lock().unwrap().unwrap_or(1_767_225_600);
        Ok(authority().certify(vm_id, &area.key, now).unwrap())
    }

    fn release(&self, key_id: &str, parameters: &KeyReleaseParameters) -> Result<String, Stop> {
        let mut state = self.state.lock().unwrap();
        if *self.deaf.lock().unwrap() || self.falls_silent() {
            return Err(deaf());
        }
        if self.disabled.lock().unwrap().contains(key_id) {
            return Err(denied("KeyDisabled", "an enabled key", "disabled"));
        }
        if let Some(next) = &parameters.successor
            && !self.consents.lock().unwrap().contains(&(key_id.to_owned(), next.clone()))
        {
            return Err(denied("SuccessorNotNamed", "another key", next));
        }
        let claims = state.tokens.get(&parameters.target).unwrap().clone();
        let generation = claims.guest_state.generation;
        let allowed = state.last.map_or(0..=1, |last| last..=last + 1);
        if !allowed.contains(&generation) {
            let code = if generation < *allowed.start() { "RollbackRefused" } else { "GenerationAhead" };
            return Err(denied(code, format!("{allowed:?}"), generation));
        }
        state.last = Some(generation);
        state.released.push(generation);
        let mut payload = self.payload(key_id, &claims.keys[0], parameters);
        if let Some(spoil) = *self.spoil.lock().unwrap() {
            spoil(&mut payload, &claims.keys[0]);
        }
        Ok(sign(&payload))
    }
}

impl FakeServices {
    fn falls_silent(&self) -> bool {
        let mut left = self.answers_left.lock().unwrap();
        let silent = *left == Some(0);
        *left = left.map(|left| left.saturating_sub(1));
        silent
    }

    fn number(&self, key_id: &str) -> usize {
        match key_id {
            NEXT_KEY_ID => 2,
            _ => usize::from(*self.second_key.lock().unwrap()),
        }
    }

    fn payload(&self, key_id: &str, transfer: &Jwk, parameters: &KeyReleaseParameters) -> ReleasePayload {
        let enc = parameters.enc.unwrap();
        assert_eq!(enc, KeyEncryption::RsaAesKeyWrap256);
        let ciphertext = wrap(transfer, key(self.number(key_id)));
        let header = KeyHsmHeader { kid: "HCLTransferKey".to_owned(), alg: "dir".to_owned(), enc };
        let hsm = KeyHsm { schema_version: "1.0".to_owned(), header, ciphertext };
        let key_hsm = Some(to_base64url(&serde_json::to_vec(&hsm).unwrap()));
        let key = Jwk { kid: Some(key_id.to_owned()), kty: "RSA-HSM".to_owned(), key_hsm, ..Jwk::default() };
        let bundle = KeyBundle {
            key,
            attributes: KeyAttributes::default(),
            tags: BTreeMap::new(),
            release_policy: None,
        };
        ReleasePayload {
            request: ReleaseRequestEcho {
                api_version: "7.4".to_owned(),
                enc,
                kid: key_id.to_owned(),
                nonce: parameters.nonce.clone(),
            },
            response: ReleaseResponse {
                key: bundle,
                succession: parameters.successor.as_ref().map(|next| {
                    let nonce = parameters.nonce.as_deref().unwrap();
                    succession(
                        self::key(self.number(key_id)),
                        key_id,
                        next,
                        self::key(self.number(next)),
                        nonce,
                    )
                }),
            },
        }
    }
}

/// The statement of a key about its successor.
pub fn succession(by: &[u8], old: &str, next: &str, next_key: &[u8], nonce: &str) -> KeySuccession {
    let kek = sealed_disk::guest_state::Kek::from_pkcs8(next_key).unwrap();
    let digest = sha256_hex(kek.spki());
    let statement = succession_statement(old, next, &digest, nonce);
    let pair = KeyPair::from_pkcs8(by).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), &statement, &mut signature).unwrap();
    KeySuccession { kid: next.to_owned(), public_key_digest: digest, signature }
}

/// Puts another key into an answer, wrapped to the transfer key as a host could do it.
pub fn put_key(payload: &mut ReleasePayload, transfer: &Jwk, key: &[u8]) {
    let hsm = from_base64_any(payload.response.key.key.key_hsm.as_ref().unwrap()).unwrap();
    let mut hsm: KeyHsm = serde_json::from_slice(&hsm).unwrap();
    hsm.ciphertext = wrap(transfer, key);
    payload.response.key.key.key_hsm = Some(to_base64url(&serde_json::to_vec(&hsm).unwrap()));
}

fn wrap(transfer: &Jwk, key: &[u8]) -> Vec<u8> {
    let number = |text: &Option<String>| from_base64_any(text.as_ref().unwrap()).unwrap();
    let (n, e) = (number(&transfer.n), number(&transfer.e));
    let components = PublicKeyComponents { n: n.as_slice(), e: e.as_slice() };
    let public: PublicEncryptingKey = components.try_into().unwrap();
    let public = OaepPublicEncryptingKey::new(public).unwrap();
    let kek = [7; 32];
    let mut out = vec![0; public.ciphertext_size()];
    public.encrypt(&OAEP_SHA256_MGF1SHA256, &kek, &mut out, None).unwrap();
    let mut wrapped = vec![0; key.len() + 16];
    let length = AesKek::new(&AES_256, &kek).unwrap().wrap_with_padding(key, &mut wrapped).unwrap().len();
    out.extend_from_slice(&wrapped[..length]);
    out
}

pub fn sign(payload: &ReleasePayload) -> String {
    let (pair, certificate) = signer();
    let header = serde_json::json!({ "alg": "RS256", "kid": "k", "x5c": [to_base64(certificate)] });
    let signed = format!(
        "{}.{}",
        to_base64url(header.to_string().as_bytes()),
        to_base64url(&serde_json::to_vec(payload).unwrap())
    );
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", to_base64url(&signature))
}
