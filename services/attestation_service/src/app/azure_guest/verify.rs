//! From a request to verified guest evidence or a denial. Pure: no database, no network, no clock.
//!
//! In this order: the hardware report and that it binds the runtime claims (as for `SevSnpVm`); that the runtime claims
//! name the attestation key that came; that this key is an attestation key; the quote under it; the event log against
//! the quoted PCRs; the encryption key, that it is sealed to these PCRs, and its certification under the attestation key.

use public_api::Denial;
use serde_json::Value;
use vtpm::event_log::{self, EventLog};
use vtpm::measured_boot::{SecureBootUnknown, secure_boot};
use vtpm::public_area::RsaArea;
use vtpm::quote::{VerifiedQuote, verify_with_any_nonce};
use vtpm::vars::SecureBootState;
use vtpm::{PcrBank, RsaPublic, certify};

use super::refusal;
use super::request::{ClientPayload, GuestOs, GuestRequest, Isolation, TpmInfo};
use crate::app::ak_authority::{AikCertificate, AkAuthority};
use crate::app::appraise::{Appraiser, VerifiedEvidence};

/// PCRs above this one are extended by operating systems too, whose events are not in the firmware's log.
const LAST_FIRMWARE_PCR: u8 = 7;
/// The PCR of Secure Boot.
const PCR_SECURE_BOOT: u8 = 7;
/// Characters of a modulus that a denial shows.
const SHOWN: usize = 24;

/// Guest evidence that holds together. Only [`verify`] makes one.
pub struct VerifiedGuest {
    os: GuestOs,
    payload: ClientPayload,
    platform: Option<Box<VerifiedEvidence>>,
    attestation_key: RsaArea,
    aik_certificate: AikCertificate,
    quote: VerifiedQuote,
    encryption_key: RsaPublic,
    log: EventLog,
    replayed: Vec<u8>,
    secure_boot: Option<Result<SecureBootState, SecureBootUnknown>>,
}

/// Where the vTPM lives, as far as hardware says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// A report of VMPL 0 binds its attestation key: inside the VM.
    Inside,
    /// No such report.
    Outside,
}

impl Boundary {
    /// The value of the claim [`super::claims::CLAIM_VTPM_BOUNDARY`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Outside => "outside",
        }
    }
}

/// What ties a client's nonce to this evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceBinding {
    /// The quote's qualifying data is the nonce: the quote is younger.
    Quote,
    /// The hardware report's user data begins with the nonce: the report is younger.
    Report,
    /// Nothing in the evidence; but the token can be opened only inside the TPM that was quoted, in that state.
    SealedToken,
}

impl NonceBinding {
    /// The value of the claim [`super::claims::CLAIM_NONCE_BINDING`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Quote => "quote",
            Self::Report => "report",
            Self::SealedToken => "sealed-token",
        }
    }
}

impl VerifiedGuest {
    /// What the guest says it runs; not verified by anything.
    pub fn os(&self) -> &GuestOs {
        &self.os
    }

    /// What the client wants to see again.
    pub fn payload(&self) -> &ClientPayload {
        &self.payload
    }

    /// The verified hardware report, if there is one.
    pub fn platform(&self) -> Option<&VerifiedEvidence> {
        self.platform.as_deref()
    }

    /// Where the vTPM lives.
    pub fn boundary(&self) -> Boundary {
        match self.platform() {
            Some(platform) if platform.report().report().vmpl == 0 => Boundary::Inside,
            _ => Boundary::Outside,
        }
    }

    /// The attestation key.
    pub fn attestation_key(&self) -> &RsaArea {
        &self.attestation_key
    }

    /// What the attestation key's certificate is worth.
    pub fn aik_certificate(&self) -> AikCertificate {
        self.aik_certificate
    }

    /// The quoted PCRs.
    pub fn pcrs(&self) -> &PcrBank {
        self.quote.pcrs()
    }

    /// The key to which the token is sealed.
    pub fn encryption_key(&self) -> &RsaPublic {
        &self.encryption_key
    }

    /// The event log; it counts for the PCRs of [`VerifiedGuest::replayed`] only.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The quoted PCRs that the event log explains.
    pub fn replayed(&self) -> &[u8] {
        &self.replayed
    }

    /// Secure Boot as measured; `None` where PCR 7 is not quoted.
    pub fn secure_boot(&self) -> Option<&Result<SecureBootState, SecureBootUnknown>> {
        self.secure_boot.as_ref()
    }

    /// What ties the client's nonce to the evidence; `None` without a nonce.
    pub fn nonce_binding(&self) -> Option<NonceBinding> {
        let nonce = self.payload.nonce.as_deref().filter(|nonce| !nonce.is_empty())?;
        if is_nonce(self.quote.nonce(), nonce) {
            return Some(NonceBinding::Quote);
        }
        let user_data = self.runtime_claims().and_then(|claims| claims.get("user-data")?.as_str());
        let user_data = user_data.and_then(|text| hex::decode(text).ok());
        let in_report = user_data.is_some_and(|data| is_padded_nonce(&data, nonce));
        Some(if in_report { NonceBinding::Report } else { NonceBinding::SealedToken })
    }

    /// The runtime claims that the hardware report binds.
    pub fn runtime_claims(&self) -> Option<&Value> {
        self.platform()?.runtime_claims()
    }

    /// The VM's id, where the hardware report binds one.
    pub fn vm_id(&self) -> Option<String> {
        vm_id(self.platform()?)
    }

    /// Whom the evidence is about.
    pub fn subject(&self) -> String {
        match (self.vm_id(), self.platform()) {
            (Some(id), _) => id,
            (None, Some(platform)) => platform.subject(),
            (None, None) => format!("vTPM key {}", hex::encode(&self.attestation_key.name)),
        }
    }
}

/// The VM's id in the runtime claims that a report binds.
pub fn vm_id(platform: &VerifiedEvidence) -> Option<String> {
    let id = platform.runtime_claims()?.get("vm-configuration")?.get("vmUniqueId")?.as_str()?;
    Some(id.chars().take(100).collect::<String>().to_ascii_uppercase())
}

/// The nonce as text, or as the bytes that it is the hex of.
fn is_nonce(data: &[u8], nonce: &str) -> bool {
    data == nonce.as_bytes() || hex::decode(nonce).is_ok_and(|bytes| data == bytes)
}

/// The same with zeros behind it.
fn is_padded_nonce(data: &[u8], nonce: &str) -> bool {
    let starts =
        |bytes: &[u8]| data.strip_prefix(bytes).is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
    starts(nonce.as_bytes()) || hex::decode(nonce).is_ok_and(|bytes| starts(&bytes))
}

/// Verifies a request as of `now` (Unix seconds). `authority` is the issuer whose certificates of attestation keys count.
pub fn verify(
    appraiser: &Appraiser,
    authority: Option<&AkAuthority>,
    request: GuestRequest,
    now: i64,
) -> Result<VerifiedGuest, Box<Denial>> {
    let GuestRequest { os, tcg_log, payload, tpm, isolation } = request;
    let platform = match isolation {
        Isolation::Tdx => return Err(refusal::isolation_not_supported()),
        Isolation::TrustedLaunch => None,
        Isolation::SevSnp(evidence) => Some(Box::new(appraiser.verify(*evidence, now)?)),
    };
    let attestation_key = attestation_key(&tpm.aik_pub, platform.as_deref())?;
    let key = &attestation_key.key;
    let quote = verified_quote(&tpm, key, &payload)?;
    let (log, replayed) = replayed_log(&tcg_log, quote.pcrs())?;
    let encryption_key = encryption_key(&tpm, key, &quote)?;
    let secure_boot = replayed.contains(&PCR_SECURE_BOOT).then(|| secure_boot(&log));
    let aik_certificate = AikCertificate::of(&tpm.aik_cert, key, authority, now);
    Ok(VerifiedGuest {
        os,
        payload,
        platform,
        attestation_key,
        aik_certificate,
        quote,
        encryption_key,
        log,
        replayed,
        secure_boot,
    })
}

/// The attestation key of a TPM2B_PUBLIC: as the platform makes them, and bound by the report if there is one.
pub fn attestation_key(
    tpm2b_public: &[u8],
    platform: Option<&VerifiedEvidence>,
) -> Result<RsaArea, Box<Denial>> {
    let area = RsaArea::parse(tpm2b_public).map_err(|error| refusal::key_malformed(&error))?;
    if let Some(platform) = platform {
        let bound = bound_key(platform)?;
        if bound != area.key {
            let shown = |key: &RsaPublic| key.jwk_n().chars().take(SHOWN).collect::<String>();
            return Err(refusal::key_not_bound(&shown(&bound), &shown(&area.key)));
        }
    }
    area.check_attestation_key().map_err(|mismatch| refusal::key_not_restricted(&mismatch))?;
    Ok(area)
}

/// The one key `HCLAkPub` of the runtime claims that a report binds.
pub fn bound_key(platform: &VerifiedEvidence) -> Result<RsaPublic, Box<Denial>> {
    let claims = platform.runtime_claims();
    let keys = claims.and_then(|claims| claims.get("keys")?.as_array());
    let keys = keys.ok_or_else(|| refusal::no_bound_key("no list of keys"))?;
    let text = |key: &Value, member: &str| key.get(member).and_then(Value::as_str).map(str::to_owned);
    let named = |key: &&Value| text(key, "kid").as_deref() == Some("HCLAkPub");
    let found: Vec<&Value> = keys.iter().filter(named).collect();
    let [key] = found.as_slice() else {
        return Err(refusal::no_bound_key(format!("{} such keys among {}", found.len(), keys.len())));
    };
    if text(key, "kty").as_deref() != Some("RSA") {
        let kind: String = text(key, "kty").unwrap_or_default().chars().take(20).collect();
        return Err(refusal::no_bound_key(format!("one of the key type {kind:?}")));
    }
    let parsed = text(key, "n").zip(text(key, "e")).and_then(|(n, e)| RsaPublic::from_jwk(&n, &e));
    parsed.ok_or_else(|| refusal::no_bound_key("one whose modulus or exponent is missing or no base64url"))
}

fn verified_quote(
    tpm: &TpmInfo,
    key: &RsaPublic,
    payload: &ClientPayload,
) -> Result<VerifiedQuote, Box<Denial>> {
    let quote = verify_with_any_nonce(&tpm.quote, &tpm.quote_signature, key, &tpm.pcrs)
        .map_err(|error| refusal::quote(&error, &tpm.quote_signature))?;
    if *quote.pcrs() != tpm.pcrs {
        let numbers = |bank: &PcrBank| bank.0.keys().copied().collect::<Vec<u8>>();
        return Err(refusal::pcr_set(&numbers(&tpm.pcrs), &numbers(quote.pcrs())));
    }
    let nonce = payload.nonce.as_deref().unwrap_or_default();
    if !quote.nonce().is_empty() && !is_nonce(quote.nonce(), nonce) {
        return Err(refusal::quote_nonce(quote.nonce()));
    }
    Ok(quote)
}

/// The event log, and the quoted PCRs that it explains: all of firmware's, or there is a denial.
pub(in crate::app) fn replayed_log(
    tcg_log: &[u8],
    pcrs: &PcrBank,
) -> Result<(EventLog, Vec<u8>), Box<Denial>> {
    let log = if tcg_log.is_empty() {
        EventLog::default()
    } else {
        event_log::parse(tcg_log).map_err(|error| refusal::log_malformed(&error))?
    };
    let bank = log.replay();
    let mut replayed = Vec::new();
    for (pcr, quoted) in &pcrs.0 {
        let value = bank.value(*pcr).copied().unwrap_or_else(|| log.initial(*pcr));
        if value == *quoted {
            replayed.push(*pcr);
        } else if *pcr <= LAST_FIRMWARE_PCR {
            return Err(refusal::log_differs(*pcr, &value, quoted));
        }
    }
    Ok((log, replayed))
}

fn encryption_key(
    tpm: &TpmInfo,
    attestation_key: &RsaPublic,
    quote: &VerifiedQuote,
) -> Result<RsaPublic, Box<Denial>> {
    let area = RsaArea::parse(&tpm.enc_key_pub).map_err(|error| refusal::encryption_key_malformed(&error))?;
    let certification = certify::verify(&tpm.certify_info, &tpm.certify_signature, attestation_key, &area)
        .map_err(|error| refusal::certify(&error, &tpm.certify_signature))?;
    if !certification.clock.same_boot(quote.clock()) {
        return Err(refusal::other_boot(quote.clock(), &certification.clock));
    }
    area.check_sealed_to(quote.pcrs()).map_err(|mismatch| refusal::encryption_key_not_sealed(&mismatch))?;
    Ok(area.key)
}
