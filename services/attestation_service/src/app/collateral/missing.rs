//! What is not known and cannot be had: the refusal, with the time to try again.

use public_api::Denial;

use super::kds::NoAnswer;

/// Why evidence without its certificates cannot be completed.
#[derive(Clone, Debug)]
pub enum Missing {
    /// It never can be.
    Never(Box<Denial>),
    /// Not now.
    Now(Unavailable),
}

/// Something that is not known here and could not be fetched.
#[derive(Clone, Debug)]
pub struct Unavailable {
    /// What.
    pub wanted: String,
    /// Why not, and when to try again.
    pub why: NoAnswer,
}

impl From<Unavailable> for Missing {
    fn from(unavailable: Unavailable) -> Self {
        Self::Now(unavailable)
    }
}

impl Missing {
    /// Seconds to wait.
    pub fn retry_after(&self, now: i64) -> Option<u64> {
        match self {
            Self::Never(_) => None,
            Self::Now(unavailable) => Some(unavailable.retry_after(now)),
        }
    }

    /// The refusal.
    pub fn denial(&self) -> Box<Denial> {
        match self {
            Self::Never(denial) => denial.clone(),
            Self::Now(unavailable) => unavailable.denial(),
        }
    }
}

impl Unavailable {
    /// Too many different fetches are under way.
    pub fn busy(wanted: String, now: i64) -> Self {
        let reason = "too many other certificates are being fetched".to_owned();
        Self { wanted, why: NoAnswer { reason, retry_at: now + 10, missing: false } }
    }

    /// Seconds to wait, at least one.
    pub fn retry_after(&self, now: i64) -> u64 {
        u64::try_from(self.why.retry_at - now).unwrap_or(0).max(1)
    }

    /// The refusal.
    pub fn denial(&self) -> Box<Denial> {
        let at = jiff::Timestamp::from_second(self.why.retry_at).map(|time| time.to_string());
        let at = at.unwrap_or_else(|_| self.why.retry_at.to_string());
        Box::new(Denial::new(
            "CollateralUnavailable",
            "certificate chain",
            format!(
                "{}, from the evidence, from what is known here, or from the key distribution service",
                self.wanted
            ),
            format!("it is not known here, and {}", self.why.reason),
            "AMD 57230: a report is believed under the certificate of the key that signed it, and under no other",
            format!(
                "send the certificate chain with the evidence, import a bundle that has it (POST /collateral/bundle), or try again at {at}"
            ),
        ))
    }
}

/// The platform hides which chip it is.
pub fn masked() -> Box<Denial> {
    Box::new(Denial::new(
        "ChipIdMasked",
        "certificate chain",
        "the certificate chain, or a report that names its chip",
        "no certificate chain, and a report whose chip id is masked",
        "AMD 57230: a VCEK is asked for by the id of its chip",
        "send the certificate chain with the evidence",
    ))
}

/// A key of a cloud provider.
pub fn vlek_not_published() -> Box<Denial> {
    Box::new(Denial::new(
        "VlekCertificateMissing",
        "certificate chain",
        "the certificate of the VLEK that signed the report",
        "no certificate",
        "AMD 57230: a VLEK's certificate is given to its cloud provider only",
        "send the VLEK's certificate with the evidence; what is above it is fetched",
    ))
}

/// A report that no key of a chip signed, or of silicon that is not known.
pub fn no_key(problem: &str) -> Box<Denial> {
    Box::new(Denial::new(
        "CertificateNotNamed",
        "certificate chain",
        "the certificate chain, or a report that tells which certificate it needs",
        format!("no certificate chain, and {problem}"),
        "AMD 57230: a VCEK is asked for by product, chip id and TCB",
        "send the certificate chain with the evidence",
    ))
}
