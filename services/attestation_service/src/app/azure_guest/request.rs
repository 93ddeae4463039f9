//! Reading the body of `POST /attest/AzureGuest`: `{"AttestationInfo": base64url(JSON)}`.
//!
//! Member names are matched without regard to case, base64 in any spelling; unknown members are refused. Nothing here is
//! verified.

use public_api::attestation::{AttachedData, DataType};
use public_api::encoding::from_base64_any;
use serde_json::{Map, Value};
use vtpm::PcrBank;

use crate::app::fields::{FieldError, Fields};
use crate::app::request::{Attached, Evidence};

/// The protocol's only version.
pub const PROTOCOL_VERSION: &str = "2.0";
/// The longest name of an operating system, its type or build, in bytes.
const MAX_TEXT: usize = 256;
/// Most entries of the client's payload, and the most bytes of all its names and values.
const MAX_PAYLOAD: (usize, usize) = (64, 64 * 1024);
const ROOT: &str = "AttestationInfo";

/// A request whose fields could be read.
#[derive(Clone, Debug)]
pub struct GuestRequest {
    /// What the guest says it runs.
    pub os: GuestOs,
    /// The firmware's event log; empty where the guest could not read it.
    pub tcg_log: Vec<u8>,
    /// What the client wants to see again in the token.
    pub payload: ClientPayload,
    /// What the TPM says.
    pub tpm: TpmInfo,
    /// What the hardware says.
    pub isolation: Isolation,
}

/// The operating system in the guest's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestOs {
    /// `Linux`, `Windows`.
    pub os_type: String,
    /// For example `Debian GNU/Linux`.
    pub distro: String,
    /// Clients on Linux send `NotApplication`.
    pub build: String,
    /// Version.
    pub major: u32,
    /// Version.
    pub minor: u32,
}

/// The client's payload. The token shows the values as they came: in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientPayload {
    /// Names and base64 values.
    pub shown: Map<String, Value>,
    /// The entry `nonce`, decoded, if it is there and is text.
    pub nonce: Option<String>,
}

/// The TPM's part.
#[derive(Clone, Debug)]
pub struct TpmInfo {
    /// DER of the attestation key's certificate without padding; empty where there is none.
    pub aik_cert: Vec<u8>,
    /// TPM2B_PUBLIC of the attestation key.
    pub aik_pub: Vec<u8>,
    /// TPMS_ATTEST of the quote.
    pub quote: Vec<u8>,
    /// Its signature.
    pub quote_signature: Vec<u8>,
    /// The PCRs that the quote is said to be over.
    pub pcrs: PcrBank,
    /// TPM2B_PUBLIC of the key to which the token is sealed.
    pub enc_key_pub: Vec<u8>,
    /// TPMS_ATTEST of that key's certification.
    pub certify_info: Vec<u8>,
    /// Its signature.
    pub certify_signature: Vec<u8>,
}

/// Which hardware isolates the VM.
#[derive(Clone, Debug)]
pub enum Isolation {
    /// AMD SEV-SNP, with report, certificates and the runtime claims that the report binds.
    SevSnp(Box<Evidence>),
    /// Intel TDX.
    Tdx,
    /// None.
    TrustedLaunch,
}

impl GuestRequest {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let info = Fields::parse("", body, &[ROOT])?.bytes(ROOT)?;
        let known = [
            "AttestationProtocolVersion",
            "OSType",
            "OSDistro",
            "OSVersionMajor",
            "OSVersionMinor",
            "OSBuild",
            "TcgLogs",
            "ClientPayload",
            "TpmInfo",
            "IsolationInfo",
        ];
        let fields = Fields::parse(ROOT, &info, &known)?;
        let version: String = fields.required("AttestationProtocolVersion")?;
        if version != PROTOCOL_VERSION {
            let place = fields.place("AttestationProtocolVersion");
            return Err(FieldError::new(place, format!("expected {PROTOCOL_VERSION}")));
        }
        Ok(Self {
            os: GuestOs {
                os_type: text(&fields, "OSType")?,
                distro: text(&fields, "OSDistro")?,
                build: text(&fields, "OSBuild")?,
                major: fields.required("OSVersionMajor")?,
                minor: fields.required("OSVersionMinor")?,
            },
            tcg_log: fields.bytes("TcgLogs")?,
            payload: ClientPayload::parse(&fields)?,
            tpm: TpmInfo::parse(&nested(&fields, "TpmInfo", &TpmInfo::MEMBERS)?)?,
            isolation: Isolation::parse(&nested(&fields, "IsolationInfo", &["Type", "Evidence"])?)?,
        })
    }
}

impl ClientPayload {
    fn parse(fields: &Fields<'_>) -> Result<Self, FieldError> {
        let shown: Map<String, Value> = fields.optional("ClientPayload")?.unwrap_or_default();
        let place = fields.place("ClientPayload");
        let mut size = 0;
        let mut nonce = None;
        for (name, value) in &shown {
            let decoded = value.as_str().and_then(|value| from_base64_any(value).ok());
            let decoded = decoded.ok_or_else(|| {
                let name: String = name.chars().take(80).collect();
                FieldError::new(format!("{place}.{name}"), "expected a text in base64")
            })?;
            size += name.len() + decoded.len();
            if name.eq_ignore_ascii_case("nonce") {
                nonce = String::from_utf8(decoded).ok();
            }
        }
        if shown.len() > MAX_PAYLOAD.0 || size > MAX_PAYLOAD.1 {
            let (entries, bytes) = MAX_PAYLOAD;
            return Err(FieldError::new(place, format!("more than {entries} entries or {bytes} bytes")));
        }
        Ok(Self { shown, nonce })
    }
}

impl TpmInfo {
    const MEMBERS: [&str; 9] = [
        "AikCert",
        "AikPub",
        "PcrQuote",
        "PcrSignature",
        "EncKeyPub",
        "EncKeyCertifyInfo",
        "EncKeyCertifyInfoSignature",
        "PcrSet",
        "PCRs",
    ];

    fn parse(fields: &Fields<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            aik_cert: without_padding(optional_bytes(fields, "AikCert")?),
            aik_pub: fields.bytes("AikPub")?,
            quote: fields.bytes("PcrQuote")?,
            quote_signature: fields.bytes("PcrSignature")?,
            pcrs: pcrs(fields)?,
            enc_key_pub: fields.bytes("EncKeyPub")?,
            certify_info: fields.bytes("EncKeyCertifyInfo")?,
            certify_signature: fields.bytes("EncKeyCertifyInfoSignature")?,
        })
    }
}

impl Isolation {
    fn parse(fields: &Fields<'_>) -> Result<Self, FieldError> {
        let kind: String = fields.required("Type")?;
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        if is("Tdx") {
            return Ok(Self::Tdx);
        }
        if is("TrustedLaunch") {
            return match fields.raw("Evidence") {
                None | Some("{}") => Ok(Self::TrustedLaunch),
                Some(_) => Err(FieldError::new(fields.place("Evidence"), "TrustedLaunch has no evidence")),
            };
        }
        if !is("SevSnp") {
            let place = fields.place("Type");
            return Err(FieldError::new(place, "expected SevSnp, Tdx or TrustedLaunch"));
        }
        let evidence = nested(fields, "Evidence", &["Proof", "RunTimeData"])?;
        let place = evidence.place("Proof");
        let proof = evidence.bytes("Proof")?;
        let proof = Fields::parse(&place, &proof, &["SnpReport", "VcekCertChain"])?;
        let runtime = AttachedData { data: evidence.bytes("RunTimeData")?, data_type: DataType::JSON };
        Ok(Self::SevSnp(Box::new(Evidence {
            report: proof.bytes("SnpReport")?,
            certificates: proof.bytes("VcekCertChain")?,
            runtime_data: Some(Attached::new(runtime, &evidence.place("RunTimeData"))?),
            init_time_data: None,
        })))
    }
}

/// `PcrSet` and `PCRs`: the same PCRs, each once, with SHA-256 values.
fn pcrs(fields: &Fields<'_>) -> Result<PcrBank, FieldError> {
    let mut set: Vec<u8> = fields.required("PcrSet")?;
    set.sort_unstable();
    let valid = set.last().is_some_and(|last| *last < 24) && set.windows(2).all(|pair| pair[0] != pair[1]);
    if !valid {
        let place = fields.place("PcrSet");
        return Err(FieldError::new(place, "expected different numbers from 0 to 23, at least one"));
    }
    let place = fields.place("PCRs");
    let entries: Vec<Box<serde_json::value::RawValue>> = fields.required("PCRs")?;
    let mut bank = PcrBank::default();
    for entry in entries.iter().take(25) {
        let entry = Fields::parse(&place, entry.get().as_bytes(), &["Index", "Digest"])?;
        let index: u8 = entry.required("Index")?;
        let digest = entry.bytes("Digest")?;
        let digest = digest.try_into().map_err(|_| {
            FieldError::new(entry.place("Digest"), format!("PCR {index}: expected 32 bytes (SHA-256)"))
        })?;
        if bank.0.insert(index, digest).is_some() {
            return Err(FieldError::new(place, format!("PCR {index} is given twice")));
        }
    }
    if !bank.0.keys().eq(&set) {
        return Err(FieldError::new(place, "the PCRs are not those of PcrSet"));
    }
    Ok(bank)
}

fn nested<'a>(
    fields: &Fields<'a>,
    name: &'static str,
    known: &[&'static str],
) -> Result<Fields<'a>, FieldError> {
    let place = fields.place(name);
    let text = fields.raw(name).ok_or_else(|| FieldError::new(&place, "missing"))?;
    Fields::parse(&place, text.as_bytes(), known)
}

fn text(fields: &Fields<'_>, name: &'static str) -> Result<String, FieldError> {
    let text = String::from_utf8(fields.bytes(name)?).ok().filter(|text| text.len() <= MAX_TEXT);
    text.ok_or_else(|| {
        FieldError::new(
            fields.place(name),
            format!("expected the base64 of at most {MAX_TEXT} bytes of text"),
        )
    })
}

fn optional_bytes(fields: &Fields<'_>, name: &'static str) -> Result<Vec<u8>, FieldError> {
    if fields.raw(name).is_none() { Ok(Vec::new()) } else { fields.bytes(name) }
}

/// A certificate without the zeros with which an NV index is filled.
fn without_padding(mut der: Vec<u8>) -> Vec<u8> {
    let length = match der.as_slice() {
        [0x30, 0x82, high, low, ..] => 4 + (usize::from(*high) << 8 | usize::from(*low)),
        [0x30, 0x81, length, ..] => 3 + usize::from(*length),
        [0, ..] => 0,
        _ => der.len(),
    };
    if der.get(length..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) {
        der.truncate(length);
    }
    der
}
