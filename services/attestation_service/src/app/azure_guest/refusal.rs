//! The refusals of guest evidence: each check has a code of its own.

use public_api::Denial;
use vtpm::Clock;
use vtpm::certify::CertifyError;
use vtpm::public_area::{AreaError, AreaMismatch};
use vtpm::quote::QuoteError;

const RETRY: &str = "attest again with an unmodified client; nothing between the TPM and this service may change the evidence";

/// A refusal from its six parts.
pub fn refusal(
    code: &str,
    claim: &str,
    expected: impl Into<String>,
    actual: impl Into<String>,
    rule: &str,
    remedy: &str,
) -> Box<Denial> {
    Box::new(Denial::new(code, claim, expected, actual, rule, remedy))
}

/// Hardware that is not verified here.
pub fn isolation_not_supported() -> Box<Denial> {
    refusal(
        "IsolationTypeNotSupported",
        "IsolationInfo.Type",
        "SevSnp",
        "Tdx",
        "this service verifies evidence of AMD SEV-SNP only",
        "run the VM on an SEV-SNP host, or attest at a service that verifies Intel TDX",
    )
}

/// The runtime claims name no attestation key.
pub fn no_bound_key(found: impl Into<String>) -> Box<Denial> {
    refusal(
        "AttestationKeyMissing",
        "IsolationInfo.Evidence.RunTimeData",
        "exactly one RSA key with the kid HCLAkPub",
        found,
        "the hardware report binds the vTPM through its attestation key in the runtime claims",
        "send the runtime claims of the HCL report at NV index 0x01400001",
    )
}

/// The report binds another attestation key than the one that signed.
pub fn key_not_bound(expected: &str, actual: &str) -> Box<Denial> {
    refusal(
        "AttestationKeyNotBound",
        "TpmInfo.AikPub",
        format!("the key HCLAkPub of the runtime claims, modulus {expected}…"),
        format!("modulus {actual}…"),
        "only the attestation key that the hardware report binds speaks for the VM's TPM",
        "send the public area of the key at handle 0x81000003 of the same VM's TPM",
    )
}

/// The attestation key's public area cannot be read.
pub fn key_malformed(error: &AreaError) -> Box<Denial> {
    refusal(
        "AttestationKeyMalformed",
        "TpmInfo.AikPub",
        "TPM2B_PUBLIC of an RSA key",
        error.to_string(),
        "TPM 2.0 library, part 2, section 12.2.5 (TPM2B_PUBLIC)",
        RETRY,
    )
}

/// The attestation key may do more, or other, than an attestation key.
pub fn key_not_restricted(mismatch: &AreaMismatch) -> Box<Denial> {
    refusal(
        "AttestationKeyNotTemplate",
        "TpmInfo.AikPub",
        format!("{} {}", mismatch.property, mismatch.expected),
        mismatch.actual.as_str(),
        "a key that is not restricted to sign what the TPM itself says can sign forged quotes",
        "use the attestation key that the platform made at handle 0x81000003",
    )
}

/// What a signature structure of another scheme begins with.
fn scheme_of(signature: &[u8]) -> String {
    match signature.get(..4) {
        Some(scheme) => format!("scheme and hash {}", hex::encode(scheme)),
        None => format!("{} bytes", signature.len()),
    }
}

/// The quote, with the signature that came with it.
pub fn quote(error: &QuoteError, signature: &[u8]) -> Box<Denial> {
    let (code, claim, expected) = match error {
        QuoteError::Malformed(_) => ("QuoteMalformed", "TpmInfo.PcrQuote", "TPMS_ATTEST of a quote"),
        QuoteError::Magic(_) => ("QuoteNotMadeByTpm", "TpmInfo.PcrQuote", "magic 0xff544347"),
        QuoteError::Kind(_) => ("QuoteOfAnotherKind", "TpmInfo.PcrQuote", "type 0x8018 (quote)"),
        QuoteError::Scheme => ("QuoteSchemeRefused", "TpmInfo.PcrSignature", "RSASSA with SHA-256"),
        QuoteError::Signature => {
            ("QuoteSignatureInvalid", "TpmInfo.PcrSignature", "a signature by the attestation key")
        }
        QuoteError::Nonce => ("QuoteNonceMismatch", "TpmInfo.PcrQuote", "the nonce"),
        QuoteError::Selection(_) => ("QuoteSelectionRefused", "TpmInfo.PcrQuote", "the PCRs of PcrSet"),
        QuoteError::PcrDigest { .. } => ("QuotedPcrsDiffer", "TpmInfo.PCRs", "the quoted PCR values"),
    };
    let actual = match error {
        QuoteError::Scheme => scheme_of(signature),
        other => other.to_string(),
    };
    let rule = "a quote counts only under the attestation key and for exactly the PCR values that it signs";
    refusal(code, claim, expected, actual, rule, RETRY)
}

/// The quote is over other PCRs than the request says.
pub fn pcr_set(expected: &[u8], quoted: &[u8]) -> Box<Denial> {
    refusal(
        "QuotedPcrSetDiffers",
        "TpmInfo.PcrSet",
        format!("{quoted:?}, as quoted"),
        format!("{expected:?}"),
        "a PCR value that is not quoted proves nothing, so every given PCR must be quoted",
        "quote the PCRs of PcrSet and send exactly these",
    )
}

/// Qualifying data that is neither empty nor the nonce of the client's payload.
pub fn quote_nonce(found: &[u8]) -> Box<Denial> {
    refusal(
        "QuoteNonceMismatch",
        "TpmInfo.PcrQuote",
        "no qualifying data, or the nonce of ClientPayload",
        hex::encode(found),
        "a quote that was made for another nonce is a replay",
        "quote with the nonce of the client payload, or without one",
    )
}

/// Qualifying data that is not the challenge.
pub fn quote_challenge(found: &[u8]) -> Box<Denial> {
    refusal(
        "QuoteNonceMismatch",
        "quote",
        "the challenge, or SHA-256 of the challenge and the request key's thumbprint, as qualifying data",
        hex::encode(found),
        "a quote that was made for another challenge is a replay",
        "quote with the challenge of the first round",
    )
}

/// A challenge that this service did not issue.
pub fn foreign_challenge(found: &[u8]) -> Box<Denial> {
    refusal(
        "ChallengeUnknown",
        "challenge",
        "a challenge of this service with its service_context",
        hex::encode(found.get(..32).unwrap_or(found)),
        "a quote is fresh only if it is for a challenge of this service",
        "begin with a message of the type aikcert, and send challenge and service_context back unchanged",
    )
}

/// The event log cannot be read.
pub fn log_malformed(error: &vtpm::event_log::EventLogError) -> Box<Denial> {
    refusal(
        "EventLogMalformed",
        "TcgLogs",
        "a crypto-agile event log with a SHA-256 bank, whole",
        error.to_string(),
        "TCG PC Client Platform Firmware Profile, section 10",
        "send binary_bios_measurements of the running boot, unchanged",
    )
}

/// The event log does not explain a PCR.
pub fn log_differs(pcr: u8, replayed: &[u8], quoted: &[u8]) -> Box<Denial> {
    refusal(
        "EventLogDoesNotReplay",
        &format!("TcgLogs, PCR {pcr}"),
        format!("{} (quoted)", hex::encode(quoted)),
        format!("{} (replayed)", hex::encode(replayed)),
        "PCRs 0 to 7 are extended by firmware and loaders alone, and their log must explain them whole",
        "send the event log of the running boot; if it is that, something extended the PCR without logging it",
    )
}

/// The encryption key's public area cannot be read.
pub fn encryption_key_malformed(error: &AreaError) -> Box<Denial> {
    refusal(
        "EncryptionKeyMalformed",
        "TpmInfo.EncKeyPub",
        "TPM2B_PUBLIC of an RSA key",
        error.to_string(),
        "TPM 2.0 library, part 2, section 12.2.5 (TPM2B_PUBLIC)",
        RETRY,
    )
}

/// The encryption key is not sealed to the quoted PCRs.
pub fn encryption_key_not_sealed(mismatch: &AreaMismatch) -> Box<Denial> {
    let code = match mismatch.property {
        "policy" => "EncryptionKeyNotSealedToPcrs",
        "attributes" => "EncryptionKeyAttributesRefused",
        _ => "EncryptionKeyKindRefused",
    };
    refusal(
        code,
        "TpmInfo.EncKeyPub",
        format!("{} {}", mismatch.property, mismatch.expected),
        mismatch.actual.as_str(),
        "the token is sealed to a key that only this TPM can use, and only in the quoted state",
        "make the key as the guest attestation client does: fixed to the TPM, decrypt only, PolicyPCR over PcrSet",
    )
}

/// The encryption key's certification, with the signature that came with it.
pub fn certify(error: &CertifyError, signature: &[u8]) -> Box<Denial> {
    let (code, claim, expected) = match error {
        CertifyError::Malformed(_) => {
            ("CertificationMalformed", "TpmInfo.EncKeyCertifyInfo", "TPMS_ATTEST of a certification")
        }
        CertifyError::Magic(_) => {
            ("CertificationNotMadeByTpm", "TpmInfo.EncKeyCertifyInfo", "magic 0xff544347")
        }
        CertifyError::Kind(_) => {
            ("CertificationOfAnotherKind", "TpmInfo.EncKeyCertifyInfo", "type 0x8017 (certify)")
        }
        CertifyError::Scheme => {
            ("CertificationSchemeRefused", "TpmInfo.EncKeyCertifyInfoSignature", "RSASSA with SHA-256")
        }
        CertifyError::Signature => (
            "CertificationSignatureInvalid",
            "TpmInfo.EncKeyCertifyInfoSignature",
            "a signature by the attestation key",
        ),
        CertifyError::Name { .. } => {
            ("CertificationOfAnotherKey", "TpmInfo.EncKeyCertifyInfo", "the name of EncKeyPub")
        }
    };
    let actual = match error {
        CertifyError::Scheme => scheme_of(signature),
        other => other.to_string(),
    };
    let rule = "the token is sealed only to a key that the attestation key saw in its own TPM";
    refusal(code, claim, expected, actual, rule, RETRY)
}

/// Quote and certification are of two boots.
pub fn other_boot(quoted: &Clock, certified: &Clock) -> Box<Denial> {
    let shown = |clock: &Clock| {
        let Clock { reset_count, restart_count, firmware_version, .. } = clock;
        format!("reset {reset_count}, restart {restart_count}, firmware {firmware_version:#x}")
    };
    refusal(
        "CertificationOfAnotherBoot",
        "TpmInfo.EncKeyCertifyInfo",
        format!("{} (of the quote)", shown(quoted)),
        shown(certified),
        "quote and encryption key are of one boot of one TPM",
        "attest again; make quote and certification without a restart between them",
    )
}
