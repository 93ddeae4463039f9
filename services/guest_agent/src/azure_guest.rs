//! The `AzureGuest` attestation from the guest's side: the request, and the answer, which is sealed to a key that this
//! TPM lets be used only while the PCRs are those of the request.
//!
//! Source: the open C++ client (Azure/confidential-computing-cvm-guest-attestation, `client-library`) and the Rust crate
//! `azure-guest-attestation-sdk`; where they differ in base64 alphabets, the Rust crate is followed.

use std::fs;
use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use public_api::attestation::AttestResponse;
use public_api::encoding::{from_base64_any, to_base64, to_base64url};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vtpm::PcrBank;
use vtpm::command::{self, KeyPublic, RsaPadding, handle};
use vtpm::hcl::HANDLE_AK;
use zeroize::Zeroizing;

use crate::evidence::Evidence;
use crate::failure::Failure;
use crate::http::Client;
use crate::tpm::{Tpm, ask, attestation_key, attestation_key_certificate, pcrs};

/// PCRs that Linux guests attest.
pub const PCRS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
/// Where the kernel shows what the firmware measured.
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const API_VERSION: &str = "2020-10-01";
/// Additional data of the sealed token.
const SEALED_AAD: &[u8] = b"Transport Key";

/// `AttestationInfo`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttestationInfo {
    attestation_protocol_version: &'static str,
    #[serde(rename = "OSType")]
    os_type: String,
    #[serde(rename = "OSDistro")]
    os_distro: String,
    #[serde(rename = "OSVersionMajor")]
    os_version_major: u32,
    #[serde(rename = "OSVersionMinor")]
    os_version_minor: u32,
    #[serde(rename = "OSBuild")]
    os_build: String,
    tcg_logs: String,
    client_payload: serde_json::Map<String, Value>,
    tpm_info: TpmInfo,
    isolation_info: Value,
}

/// `TpmInfo`: base64 of the TPM's own structures.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TpmInfo {
    aik_cert: String,
    aik_pub: String,
    pcr_quote: String,
    pcr_signature: String,
    enc_key_pub: String,
    enc_key_certify_info: String,
    enc_key_certify_info_signature: String,
    pcr_set: Vec<u8>,
    #[serde(rename = "PCRs")]
    pcrs: Vec<PcrEntry>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PcrEntry {
    index: u8,
    digest: String,
}

/// A key of this boot: usable while the PCRs stay as they are.
#[derive(Clone, Debug)]
pub struct EphemeralKey {
    handle: u32,
    public: KeyPublic,
}

impl EphemeralKey {
    /// Makes the key in the null hierarchy: its seed is gone with the next boot.
    ///
    /// # Errors
    /// Those of the TPM.
    pub fn create(tpm: &mut dyn Tpm, values: &PcrBank) -> Result<Self, Failure> {
        let policy = command::pcr_policy(&PCRS, values);
        let policy = policy.ok_or_else(|| Failure::us("the TPM did not tell all PCRs"))?;
        let create = command::create_primary(handle::NULL, b"", &command::ephemeral_template(&policy));
        let (handle, public) = ask(tpm, "making a key of this boot", &create, command::created_primary)?;
        Ok(Self { handle, public })
    }

    /// Decrypts with the key.
    ///
    /// # Errors
    /// PCRs that changed since the key was made, or a ciphertext for another key.
    pub fn decrypt(
        &self,
        tpm: &mut dyn Tpm,
        ciphertext: &[u8],
        padding: RsaPadding,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let start = command::start_policy_session(&random()?);
        let session = ask(tpm, "starting a session", &start, command::started_session)?;
        let policy = command::policy_pcr(session, &PCRS);
        ask(tpm, "comparing the PCRs", &policy, command::success)?;
        let decrypt = command::rsa_decrypt(self.handle, session, ciphertext, padding);
        ask(tpm, "decrypting", &decrypt, command::decrypted)
    }

    /// Removes the key from the TPM.
    pub fn flush(&self, tpm: &mut dyn Tpm) {
        // A device of the resource manager does it at its end too.
        let _ = tpm.send(&command::flush_context(self.handle));
    }
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::us("drawing random numbers"))?;
    Ok(bytes)
}

/// Attests and returns the token, opened. The token's nonce is compared with the one sent.
///
/// # Errors
/// The service's refusal, or what the TPM does not do.
pub fn attest(
    tpm: &mut dyn Tpm,
    client: &Client,
    service: &str,
    evidence: &Evidence,
    nonce: Option<&str>,
) -> Result<(String, EphemeralKey), Failure> {
    let values = pcrs(tpm, &PCRS)?;
    let key = EphemeralKey::create(tpm, &values)?;
    let nonce =
        nonce.map_or_else(|| random::<16>().map(|bytes| to_base64url(&bytes)), |it| Ok(it.to_owned()))?;
    let info = attestation_info(tpm, evidence, &values, &key, &nonce, event_log()?)?;
    let info =
        serde_json::to_vec(&info).map_err(|error| Failure::us("writing the evidence").because(error))?;
    let url = format!("{}/attest/AzureGuest?api-version={API_VERSION}", service.trim_end_matches('/'));
    let body = serde_json::json!({ "AttestationInfo": to_base64url(&info) });
    let answer: AttestResponse = client.post(&url, None, &body)?;
    let token = open(tpm, &key, &answer.token)?;
    check_nonce(&token, &nonce)?;
    Ok((token, key))
}

/// The firmware's event log; empty where the kernel shows none.
fn event_log() -> Result<Vec<u8>, Failure> {
    match fs::read(EVENT_LOG) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other
            .map_err(|error| Failure::you(format!("reading {EVENT_LOG}"), "run this as root").because(error)),
    }
}

/// Collects what the TPM says for the request.
///
/// # Errors
/// Those of the TPM.
pub fn attestation_info(
    tpm: &mut dyn Tpm,
    evidence: &Evidence,
    values: &PcrBank,
    key: &EphemeralKey,
    nonce: &str,
    log: Vec<u8>,
) -> Result<AttestationInfo, Failure> {
    let (os_distro, os_version_major, os_version_minor) = os_release();
    let payload = [("nonce".to_owned(), Value::from(to_base64(nonce.as_bytes())))];
    Ok(AttestationInfo {
        attestation_protocol_version: "2.0",
        os_type: to_base64(b"Linux"),
        os_distro: to_base64(os_distro.as_bytes()),
        os_version_major,
        os_version_minor,
        os_build: to_base64(b"NotApplication"),
        tcg_logs: to_base64(&log),
        client_payload: payload.into_iter().collect(),
        tpm_info: tpm_info(tpm, values, key)?,
        isolation_info: isolation_info(evidence),
    })
}

fn tpm_info(tpm: &mut dyn Tpm, values: &PcrBank, key: &EphemeralKey) -> Result<TpmInfo, Failure> {
    let signature =
        |bytes: &[u8]| command::rsassa_signature(bytes).map_err(|error| Failure::tpm("signing", error));
    let quote = command::quote(HANDLE_AK, b"", b"", &PCRS);
    let (quote, quote_signature) = ask(tpm, "quoting PCRs", &quote, command::quoted)?;
    let certify = command::certify(key.handle, HANDLE_AK, b"");
    let (certified, certify_signature) = ask(tpm, "certifying the key", &certify, command::quoted)?;
    let pcrs = values.0.iter().map(|(index, digest)| PcrEntry { index: *index, digest: to_base64(digest) });
    Ok(TpmInfo {
        aik_cert: to_base64(&attestation_key_certificate(tpm)?),
        aik_pub: to_base64(&attestation_key(tpm)?.tpm2b_public),
        pcr_quote: to_base64(&quote),
        pcr_signature: to_base64(&signature(&quote_signature)?),
        enc_key_pub: to_base64(&key.public.tpm2b_public),
        enc_key_certify_info: to_base64(&certified),
        enc_key_certify_info_signature: to_base64(&signature(&certify_signature)?),
        pcr_set: values.0.keys().copied().collect(),
        pcrs: pcrs.collect(),
    })
}

fn isolation_info(evidence: &Evidence) -> Value {
    let proof = serde_json::json!({
        "SnpReport": to_base64url(&evidence.snp_report),
        "VcekCertChain": to_base64url(evidence.certificates.as_bytes()),
    });
    serde_json::json!({
        "Type": "SevSnp",
        "Evidence": {
            "Proof": to_base64url(proof.to_string().as_bytes()),
            "RunTimeData": to_base64url(&evidence.runtime_claims),
        },
    })
}

/// Name and version of the distribution, as far as it says.
fn os_release() -> (String, u32, u32) {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let version = value("VERSION_ID");
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    (value("NAME"), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The sealed token. Unknown members are left alone: Azure's service has more.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sealed {
    encrypted_inner_key: String,
    encryption_params: EncryptionParams,
    authentication_data: String,
    jwt: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptionParams {
    iv: String,
}

/// Opens the service's answer: base64url of JSON, in it an AES key for the TPM's key, and the token under it.
///
/// # Errors
/// An answer of another form, or sealed to another key.
pub fn open(tpm: &mut dyn Tpm, key: &EphemeralKey, answer: &str) -> Result<String, Failure> {
    let decode =
        |text: &str| from_base64_any(text).map_err(|error| unusable("it is not base64").because(error));
    let sealed: Sealed = serde_json::from_slice(&decode(answer)?)
        .map_err(|error| unusable("it is no sealed token").because(error))?;
    let inner = key.decrypt(tpm, &decode(&sealed.encrypted_inner_key)?, RsaPadding::Pkcs1)?;
    let cipher =
        UnboundKey::new(&AES_256_GCM, &inner).map_err(|_| unusable("its inner key has no 32 bytes"))?;
    let iv: [u8; NONCE_LEN] = decode(&sealed.encryption_params.iv)?
        .try_into()
        .map_err(|_| unusable("its initialisation vector has no 12 bytes"))?;
    let mut text = decode(&sealed.jwt)?;
    text.extend(decode(&sealed.authentication_data)?);
    let iv = Nonce::assume_unique_for_key(iv);
    let plain = LessSafeKey::new(cipher).open_in_place(iv, Aad::from(SEALED_AAD), &mut text);
    let plain = plain.map_err(|_| unusable("it was changed on its way"))?;
    String::from_utf8(plain.to_vec()).map_err(|error| unusable("the token is no text").because(error))
}

fn unusable(why: &str) -> Failure {
    Failure::untrusted(
        format!("the attestation service's sealed answer cannot be used: {why}"),
        "ask again; the service must answer this request of this VM",
    )
}

/// The claims of a token, not verified: this program only looks whether it got what it asked for.
///
/// # Errors
/// Something that is no token.
pub fn claims(token: &str) -> Result<Value, Failure> {
    let payload = token.split('.').nth(1).ok_or_else(|| unusable("it is no token"))?;
    let payload = from_base64_any(payload).map_err(|error| unusable("it is no token").because(error))?;
    serde_json::from_slice(&payload).map_err(|error| unusable("it is no token").because(error))
}

/// The nonce comes back as it was sent, or as the base64 in which it was sent.
fn check_nonce(token: &str, nonce: &str) -> Result<(), Failure> {
    let claims = claims(token)?;
    let found = claims.pointer("/x-ms-runtime/client-payload/nonce").and_then(Value::as_str);
    if found.is_some_and(|found| found == nonce || found == to_base64(nonce.as_bytes())) {
        return Ok(());
    }
    Err(unusable("it answers another request (nonce)"))
}
