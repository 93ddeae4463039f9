//! Reading the body of `POST /attest/Tpm`: `{"data": base64url(JSON)}`, the JSON perhaps inside of a member `payload`.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::RSA_PSS_2048_8192_SHA256;
use public_api::encoding::{from_base64_any, to_base64url};
use serde_json::{Value, json};
use vtpm::{PcrBank, RsaPublic};

use crate::app::fields::{FieldError, Fields};

/// TPM_ALG_SHA256.
const ALGORITHM_SHA256: u16 = 11;
const ROOT: &str = "data";

/// A message of the client, and whether it came inside of `payload`: the answer goes the same way.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The message.
    pub message: Message,
    /// Whether it was wrapped.
    pub wrapped: bool,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Message {
    /// A challenge.
    Init,
    /// A token.
    Request(Box<TpmRequest>),
}

/// A request whose fields could be read, and whose own key signed it. Nothing else in it is verified.
#[derive(Clone, Debug)]
pub struct TpmRequest {
    /// What the relying party wants to see again, as it came.
    pub rp_data: Option<String>,
    /// The challenge of the first round.
    pub challenge: Vec<u8>,
    /// What the service sent with the challenge.
    pub service_context: Vec<u8>,
    /// DER of the attestation key's certificate; empty where there is none.
    pub aik_cert: Vec<u8>,
    /// The attestation key.
    pub aik: RsaPublic,
    /// The firmware's event log.
    pub log: Vec<u8>,
    /// The PCRs that the quote is said to be over.
    pub pcrs: PcrBank,
    /// TPMS_ATTEST.
    pub quote: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// The key that signed the request.
    pub request_key: RsaPublic,
}

impl Envelope {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let inner = Fields::parse("", body, &[ROOT])?.bytes(ROOT)?;
        let outer = Fields::parse(ROOT, &inner, &["payload", "type", "request"])?;
        match outer.raw("payload") {
            Some(payload) => {
                let place = outer.place("payload");
                let fields = Fields::parse(&place, payload.as_bytes(), &["type", "request"])?;
                Ok(Self { message: Message::parse(&fields)?, wrapped: true })
            }
            None => Ok(Self { message: Message::parse(&outer)?, wrapped: false }),
        }
    }

    /// The body of the answer.
    pub fn answer(&self, message: Value) -> Value {
        let message = if self.wrapped { json!({"payload": message}) } else { message };
        json!({"data": to_base64url(message.to_string().as_bytes())})
    }
}

impl Message {
    fn parse(fields: &Fields<'_>) -> Result<Self, FieldError> {
        if let Some(jws) = fields.optional::<String>("request")? {
            return TpmRequest::parse(&jws).map(|request| Self::Request(Box::new(request)));
        }
        match fields.required::<String>("type")?.as_str() {
            "aikcert" => Ok(Self::Init),
            _ => Err(FieldError::new(fields.place("type"), "expected aikcert")),
        }
    }
}

impl TpmRequest {
    fn parse(jws: &str) -> Result<Self, FieldError> {
        let parts: Vec<&str> = jws.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err(FieldError::new("request", "expected a JWS in compact form"));
        };
        let decode =
            |part: &str| from_base64_any(part).map_err(|error| FieldError::new("request", error.to_string()));
        check_header(&decode(header)?)?;
        let request = Self::of_payload(&decode(payload)?)?;
        let key = &request.request_key;
        let key = PublicKeyComponents { n: key.modulus(), e: key.exponent() };
        let message = format!("{header}.{payload}");
        let signed = key.verify(&RSA_PSS_2048_8192_SHA256, message.as_bytes(), &decode(signature)?);
        signed.map_err(|_| FieldError::new("request", "request_key did not sign it (PS256)"))?;
        Ok(request)
    }

    fn of_payload(payload: &[u8]) -> Result<Self, FieldError> {
        let fields = Fields::parse("request", payload, &["att_type", "att_data"])?;
        if fields.required::<String>("att_type")? != "basic" {
            return Err(FieldError::new(fields.place("att_type"), "only basic is supported here"));
        }
        let known = [
            "rp_id",
            "rp_data",
            "challenge",
            "tpm_att_data",
            "request_key",
            "other_keys",
            "custom_claims",
            "service_context",
        ];
        let data = nested(&fields, "att_data", &known)?;
        for name in ["other_keys", "custom_claims"] {
            if data.raw(name).is_some_and(|text| text != "[]") {
                return Err(FieldError::new(data.place(name), "not supported here; leave it out"));
            }
        }
        data.optional::<String>("rp_id")?;
        let tpm = nested(&data, "tpm_att_data", &["current_attestation", "boot_attestation"])?;
        if tpm.raw("boot_attestation").is_some() {
            let place = tpm.place("boot_attestation");
            return Err(FieldError::new(place, "not supported here; leave it out"));
        }
        let members = ["logs", "aik_cert", "aik_pub", "pcrs", "quote", "signature"];
        let current = nested(&tpm, "current_attestation", &members)?;
        let key = nested(&data, "request_key", &["jwk", "info"])?;
        Ok(Self {
            rp_data: data.optional("rp_data")?,
            challenge: data.bytes("challenge")?,
            service_context: data.bytes("service_context")?,
            aik_cert: match current.raw("aik_cert") {
                Some(_) => current.bytes("aik_cert")?,
                None => Vec::new(),
            },
            aik: jwk(&current, "aik_pub")?,
            log: log(&current)?,
            pcrs: pcrs(&current)?,
            quote: current.bytes("quote")?,
            signature: current.bytes("signature")?,
            request_key: jwk(&key, "jwk")?,
        })
    }
}

/// The qualifying data that binds a request key to a quote: SHA-256 over the challenge and the key's thumbprint
/// (RFC 7638). The public protocol does not say how its `tpm_quote` binds the key; this is ours.
pub fn bound_challenge(challenge: &[u8], key: &RsaPublic) -> Vec<u8> {
    let canonical = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, key.jwk_e(), key.jwk_n());
    let thumbprint = digest(&SHA256, canonical.as_bytes());
    digest(&SHA256, &[challenge, thumbprint.as_ref()].concat()).as_ref().to_vec()
}

fn check_header(header: &[u8]) -> Result<(), FieldError> {
    let fields = Fields::parse("request header", header, &["alg", "typ"])?;
    for (name, expected) in [("alg", "PS256"), ("typ", "attReqV2")] {
        if fields.required::<String>(name)? != expected {
            return Err(FieldError::new(fields.place(name), format!("expected {expected}")));
        }
    }
    Ok(())
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

fn jwk(fields: &Fields<'_>, name: &'static str) -> Result<RsaPublic, FieldError> {
    let members = nested(fields, name, &["kty", "n", "e", "kid", "alg", "use", "key_ops"])?;
    if members.required::<String>("kty")? != "RSA" {
        return Err(FieldError::new(members.place("kty"), "expected RSA"));
    }
    Ok(RsaPublic::new(&members.bytes("n")?, &members.bytes("e")?))
}

/// Exactly one log, of the TCG's form.
fn log(fields: &Fields<'_>) -> Result<Vec<u8>, FieldError> {
    let place = fields.place("logs");
    let logs: Vec<Box<serde_json::value::RawValue>> = fields.required("logs")?;
    let [log] = logs.as_slice() else { return Err(FieldError::new(place, "expected one log")) };
    let log = Fields::parse(&place, log.get().as_bytes(), &["type", "log"])?;
    match log.required::<String>("type")?.as_str() {
        "TCG" => log.bytes("log"),
        _ => Err(FieldError::new(log.place("type"), "only TCG is supported here")),
    }
}

/// Exactly one bank, SHA-256.
fn pcrs(fields: &Fields<'_>) -> Result<PcrBank, FieldError> {
    let place = fields.place("pcrs");
    let banks: Vec<Box<serde_json::value::RawValue>> = fields.required("pcrs")?;
    let [bank] = banks.as_slice() else { return Err(FieldError::new(place, "expected one bank")) };
    let bank = Fields::parse(&place, bank.get().as_bytes(), &["algorithm", "values"])?;
    if bank.required::<u16>("algorithm")? != ALGORITHM_SHA256 {
        return Err(FieldError::new(bank.place("algorithm"), "expected 11 (SHA-256)"));
    }
    let mut found = PcrBank::default();
    for value in bank.required::<Vec<Box<serde_json::value::RawValue>>>("values")?.iter().take(25) {
        let value = Fields::parse(&bank.place("values"), value.get().as_bytes(), &["index", "digest"])?;
        let index = value.required::<u8>("index")?;
        let digest = value.bytes("digest")?.try_into();
        let digest = digest.map_err(|_| FieldError::new(value.place("digest"), "expected 32 bytes"))?;
        if index > 23 || found.0.insert(index, digest).is_some() {
            return Err(FieldError::new(value.place("index"), "expected different numbers from 0 to 23"));
        }
    }
    Ok(found)
}
