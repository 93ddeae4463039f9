//! Policies on the wire: a JWS with the member `AttestationPolicy`, unsigned or signed by a certificate in its header.
//!
//! Source: Azure Attestation, "policy transport". Azure's Python SDK 1.0.0 writes algorithm names that RFC 7518 does not
//! know: `RSA256` (which is RS256) and `ECDH256` (ECDSA on P-256 with SHA-256, the signature in DER).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use der::Decode as _;
use public_api::Denial;
use public_api::attestation_policy::TrustModel;
use public_api::encoding::{from_base64_any, to_base64, to_base64url};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::fields::FieldError;
use crate::app::public_key::{KeyKind, signing_key};

/// A policy as it was sent, with whoever signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDocument {
    /// The JWS.
    pub jws: String,
    /// The payload, base64-decoded.
    pub payload: Vec<u8>,
    /// The certificate whose key signed it.
    pub signer: Option<PolicySigner>,
}

/// A certificate that signs policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySigner {
    /// DER.
    pub certificate: Vec<u8>,
}

/// Why a document is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It cannot be read.
    #[error(transparent)]
    Form(#[from] FieldError),
    /// It can be read, and is refused.
    #[error("{0}")]
    Refused(Box<Denial>),
}

#[derive(Deserialize)]
struct ProtectedHeader {
    alg: String,
    #[serde(default)]
    crit: Option<Value>,
    #[serde(default)]
    x5c: Vec<String>,
    #[serde(default)]
    jwk: Option<HeaderKey>,
}

#[derive(Deserialize)]
struct HeaderKey {
    #[serde(default)]
    x5c: Vec<String>,
}

impl PolicySigner {
    /// SHA-256 of the certificate, lower-case hex.
    pub fn thumbprint(&self) -> String {
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.certificate))
    }

    /// As `x-ms-policy-signer` and `x-ms-policy-certificates` show it.
    pub fn jwk(&self) -> Value {
        let kty = match self.key().map(|(kind, _)| kind) {
            Some(KeyKind::Rsa) | None => "RSA",
            Some(KeyKind::P256 | KeyKind::P384) => "EC",
        };
        json!({"kty": kty, "x5c": [to_base64(&self.certificate)]})
    }

    /// A certificate that can sign policies: RSA of 2,048 bits or more, or ECDSA on P-256 or P-384.
    pub fn from_der(certificate: Vec<u8>) -> Option<Self> {
        let signer = Self { certificate };
        signer.key().is_some().then_some(signer)
    }

    fn key(&self) -> Option<(KeyKind, Vec<u8>)> {
        let certificate = x509_cert::Certificate::from_der(&self.certificate).ok()?;
        let (kind, key) = signing_key(certificate.tbs_certificate().subject_public_key_info())?;
        Some((kind, key.to_vec()))
    }

    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let Some((kind, key)) = self.key() else { return false };
        let Some(algorithm) = verification(kind, algorithm) else { return false };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}

/// How a signature of this algorithm verifies under a key of this kind.
fn verification(kind: KeyKind, algorithm: &str) -> Option<&'static dyn VerificationAlgorithm> {
    let found: &'static dyn VerificationAlgorithm = match (kind, algorithm) {
        (KeyKind::Rsa, "RS256" | "RSA256") => &RSA_PKCS1_2048_8192_SHA256,
        (KeyKind::Rsa, "RS384") => &RSA_PKCS1_2048_8192_SHA384,
        (KeyKind::Rsa, "RS512") => &RSA_PKCS1_2048_8192_SHA512,
        (KeyKind::Rsa, "PS256") => &RSA_PSS_2048_8192_SHA256,
        (KeyKind::Rsa, "PS384") => &RSA_PSS_2048_8192_SHA384,
        (KeyKind::Rsa, "PS512") => &RSA_PSS_2048_8192_SHA512,
        (KeyKind::P256, "ES256") => &ECDSA_P256_SHA256_FIXED,
        (KeyKind::P256, "ECDH256") => &ECDSA_P256_SHA256_ASN1,
        (KeyKind::P384, "ES384") => &ECDSA_P384_SHA384_FIXED,
        _ => return None,
    };
    Some(found)
}

impl PolicyDocument {
    /// Reads a body: the bare JWS, or the JWS as a JSON string. A signature that is there must hold.
    pub fn read(body: &str) -> Result<Self, DocumentError> {
        let body = body.trim();
        let jws: String = if body.starts_with('"') {
            serde_json::from_str(body).map_err(|error| form(format!("not a JSON string: {error}")))?
        } else {
            body.to_owned()
        };
        let parts: Vec<&str> = jws.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err(form("expected a compact JWS: three parts with dots between them").into());
        };
        let header = decoded(header, "header")?;
        let header: ProtectedHeader =
            serde_json::from_slice(&header).map_err(|error| form(format!("the JWS header: {error}")))?;
        if header.crit.is_some() {
            return Err(form("the JWS header has `crit`: extensions are not understood").into());
        }
        let (payload, signature) = (decoded(payload, "payload")?, decoded(signature, "signature")?);
        let signed = jws.rsplit_once('.').map_or("", |(signed, _)| signed);
        let signer = check_signature(&header, signed, &signature)?;
        Ok(Self { payload, signer, jws })
    }

    /// Whether the provider takes it from whoever signed it.
    pub fn check_signer(&self, model: TrustModel, signers: &[PolicySigner]) -> Result<(), Box<Denial>> {
        match (model, &self.signer) {
            (TrustModel::Aad, _) => Ok(()),
            (TrustModel::Isolated, Some(signer)) if signers.contains(signer) => Ok(()),
            (TrustModel::Isolated, Some(signer)) => {
                Err(refused_signer("PolicySignerUnknown", signer.thumbprint(), signers))
            }
            (TrustModel::Isolated, None) => {
                Err(refused_signer("PolicyNotSigned", "no signature".to_owned(), signers))
            }
        }
    }

    /// The policy's text; `None` where the payload is empty, as in a reset.
    pub fn policy_text(&self) -> Result<Option<String>, FieldError> {
        if self.payload.is_empty() {
            return Ok(None);
        }
        let payload: Value = serde_json::from_slice(&self.payload)
            .map_err(|error| form(format!("the JWS payload: {error}")))?;
        let encoded = payload.get("AttestationPolicy").and_then(Value::as_str);
        let encoded = encoded.ok_or_else(|| form("the JWS payload has no text `AttestationPolicy`"))?;
        let text = from_base64_any(encoded).map_err(|error| form(format!("`AttestationPolicy`: {error}")))?;
        String::from_utf8(text).map(Some).map_err(|_| form("`AttestationPolicy` is not UTF-8"))
    }

    /// The certificate in the payload of `POST /certificates:add` and `:remove`.
    pub fn certificate(&self) -> Result<PolicySigner, FieldError> {
        const NAMES: [&str; 3] = ["policyCertificate", "maa-policyCertificate", "aas-policyCertificate"];
        let payload: Value = serde_json::from_slice(&self.payload)
            .map_err(|error| form(format!("the JWS payload: {error}")))?;
        let jwk = NAMES.iter().find_map(|name| payload.get(name));
        let jwk =
            jwk.ok_or_else(|| form("could not find the claim `policyCertificate` in the policy token"))?;
        let der = jwk.get("x5c").and_then(|chain| chain.get(0)).and_then(Value::as_str);
        let der = der.and_then(|text| from_base64_any(text).ok());
        der.and_then(PolicySigner::from_der)
            .ok_or_else(|| form("`policyCertificate.x5c` holds no certificate that can sign policies"))
    }
}

fn check_signature(
    header: &ProtectedHeader,
    signed: &str,
    signature: &[u8],
) -> Result<Option<PolicySigner>, DocumentError> {
    if header.alg == "none" {
        return if signature.is_empty() {
            Ok(None)
        } else {
            Err(form("the header says `none`, and there is a signature").into())
        };
    }
    let chain = header
        .jwk
        .as_ref()
        .map_or(&header.x5c, |jwk| if jwk.x5c.is_empty() { &header.x5c } else { &jwk.x5c });
    let leaf = chain.first().and_then(|text| from_base64_any(text).ok());
    let signer = leaf
        .and_then(PolicySigner::from_der)
        .ok_or_else(|| form("the header names no certificate (`x5c` or `jwk.x5c`) that can sign policies"))?;
    if signer.verify(&header.alg, signed.as_bytes(), signature) {
        return Ok(Some(signer));
    }
    Err(DocumentError::Refused(Box::new(Denial::new(
        "PolicySignatureInvalid",
        "signature",
        format!("a signature by the key of certificate {}", signer.thumbprint()),
        format!(
            "another signature, or algorithm {:?} for another kind of key",
            header.alg.chars().take(20).collect::<String>()
        ),
        "a signed policy verifies under the certificate in its own header (RFC 7515 section 4.1.6)",
        "sign the policy with the key that belongs to the certificate",
    ))))
}

fn refused_signer(code: &str, actual: String, signers: &[PolicySigner]) -> Box<Denial> {
    let known: Vec<String> = signers.iter().map(PolicySigner::thumbprint).collect();
    Box::new(Denial::new(
        code,
        "x-ms-policy-signer",
        format!("a policy signed by one of the certificates {}", known.join(", ")),
        actual,
        "the provider's trust model is Isolated: only its policy signing certificates change its policies",
        "sign the policy with a key of the provider's policy signing certificates",
    ))
}

fn decoded(part: &str, name: &str) -> Result<Vec<u8>, FieldError> {
    from_base64_any(part).map_err(|_| form(format!("the {name} of the JWS is not base64url")))
}

fn form(problem: impl Into<String>) -> FieldError {
    FieldError::new("policy", problem)
}

/// A policy text as an unsigned JWS.
pub fn unsigned_jws(text: &str) -> String {
    let payload = json!({"AttestationPolicy": to_base64url(text.as_bytes())});
    format!("{}.{}.", to_base64url(br#"{"alg":"none"}"#), to_base64url(payload.to_string().as_bytes()))
}
