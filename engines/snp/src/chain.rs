//! A certificate chain as it comes with a report: VCEK or VLEK, ASK or ASVK, ARK.

use aws_lc_rs::digest::{Context, SHA256};

use crate::bytes::array;
use crate::certificate::Certificate;
use crate::error::CertificateRole;
use crate::explain::Explanation;
use crate::pem::{self, PemError};

/// Why bytes are not a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The PEM text is damaged.
    #[error("reading the certificate chain")]
    Pem(#[from] PemError),
    /// Not three certificates.
    #[error("a certificate chain has 3 certificates (VCEK or VLEK, ASK, ARK), not {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// One of them is not a certificate.
    #[error("the {role} is not an X.509 certificate: {reason}")]
    Certificate {
        /// Which.
        role: CertificateRole,
        /// The decoder's words.
        reason: String,
    },
}

impl ChainError {
    /// The refusal in five parts and a code.
    pub fn explain(&self) -> Explanation {
        let (claim, actual) = match self {
            Self::Pem(error) => ("certificate chain, PEM".to_owned(), error.to_string()),
            Self::Count { .. } => ("certificate chain".to_owned(), self.to_string()),
            Self::Certificate { role, .. } => (role.to_string(), self.to_string()),
        };
        Explanation {
            code: "CertificateChainMalformed".to_owned(),
            claim,
            expected: "PEM of VCEK or VLEK, then ASK or ASVK, then ARK".to_owned(),
            actual,
            rule: "AMD 57230 (VCEK certificate and KDS interface), certificate chain".to_owned(),
            remedy: "send the three certificates in this order, each with its BEGIN and END line".to_owned(),
        }
    }
}

/// The DER of three certificates, not looked into: VCEK or VLEK, ASK or ASVK, ARK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainDer {
    leaf: Vec<u8>,
    ask: Vec<u8>,
    ark: Vec<u8>,
}

impl ChainDer {
    /// Three certificates.
    pub const fn new(leaf: Vec<u8>, ask: Vec<u8>, ark: Vec<u8>) -> Self {
        Self { leaf, ask, ark }
    }

    /// Reads PEM: leaf, ASK, ARK, concatenated.
    ///
    /// # Errors
    /// Damaged PEM, or another number of certificates.
    pub fn from_pem(text: &[u8]) -> Result<Self, ChainError> {
        let [leaf, ask, ark] = <[Vec<u8>; 3]>::try_from(pem::certificates(text)?)
            .map_err(|found| ChainError::Count { found: found.len() })?;
        Ok(Self { leaf, ask, ark })
    }

    /// SHA-256 over the three, each behind its length.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for der in [&self.leaf, &self.ask, &self.ark] {
            context.update(&der.len().to_le_bytes());
            context.update(der);
        }
        array(context.finish().as_ref(), 0).unwrap_or_default()
    }
}

/// The three certificates, parsed but not verified.
#[derive(Clone, Debug)]
pub struct CertChain {
    pub(crate) leaf: Certificate,
    pub(crate) ask: Certificate,
    pub(crate) ark: Certificate,
}

impl CertChain {
    /// Reads PEM: leaf, ASK, ARK, concatenated.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, ChainError> {
        Self::parse(&ChainDer::from_pem(text)?)
    }

    /// Reads DER that was taken apart before.
    ///
    /// # Errors
    /// One that is no certificate.
    pub fn parse(der: &ChainDer) -> Result<Self, ChainError> {
        Self::from_der(&der.leaf, &der.ask, &der.ark)
    }

    /// Reads DER.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn from_der(leaf: &[u8], ask: &[u8], ark: &[u8]) -> Result<Self, ChainError> {
        Ok(Self {
            leaf: parse(leaf, CertificateRole::Leaf)?,
            ask: parse(ask, CertificateRole::Ask)?,
            ark: parse(ark, CertificateRole::Ark)?,
        })
    }

    /// PEM of leaf, ASK, ARK, with 64 characters a line and a line feed at the end.
    pub fn to_pem(&self) -> String {
        [&self.leaf, &self.ask, &self.ark].map(|certificate| pem::encode(certificate.der())).concat()
    }

    /// DER of the VCEK or VLEK.
    pub fn leaf_der(&self) -> &[u8] {
        self.leaf.der()
    }

    /// DER of the ASK or ASVK.
    pub fn ask_der(&self) -> &[u8] {
        self.ask.der()
    }

    /// DER of the ARK.
    pub fn ark_der(&self) -> &[u8] {
        self.ark.der()
    }
}

fn parse(der: &[u8], role: CertificateRole) -> Result<Certificate, ChainError> {
    Certificate::parse(der).map_err(|error| ChainError::Certificate { role, reason: error.to_string() })
}

/// The DER of each certificate in PEM text, in order.
///
/// # Errors
/// Damaged PEM.
pub fn pem_to_der(text: &[u8]) -> Result<Vec<Vec<u8>>, ChainError> {
    Ok(pem::certificates(text)?)
}

/// One certificate's DER as PEM.
pub fn der_to_pem(der: &[u8]) -> String {
    pem::encode(der)
}
