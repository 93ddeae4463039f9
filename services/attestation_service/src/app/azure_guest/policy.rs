//! The default policies of guest attestation and of a quote alone, and how their denials are told.

use policy::language::{Claim, Decision, Policy, policy_hash};
use public_api::Denial;
use public_api::attestation::Claims;
use serde_json::Value;

use super::claims::CLAIM_VTPM_BOUNDARY;
use super::policy_evidence::{CLAIM_EVENTS, CLAIM_PCRS};
use crate::app::platform_policy;

/// The text of the policy that this service ships.
pub const DEFAULT_POLICY: &str = include_str!("../../../policies/azure_guest.txt");

/// The same for `Tpm`.
pub const DEFAULT_TPM_POLICY: &str = include_str!("../../../policies/tpm.txt");

/// A policy with its text's hash.
pub struct GuestPolicy {
    policy: Policy,
    hash: String,
}

impl GuestPolicy {
    /// The policy that this service ships.
    pub fn shipped() -> Self {
        Self::parsed(DEFAULT_POLICY)
    }

    /// The policy that this service ships for `Tpm`.
    pub fn shipped_for_tpm() -> Self {
        Self::parsed(DEFAULT_TPM_POLICY)
    }

    fn parsed(text: &str) -> Self {
        let policy = Policy::parse(text).expect("a test parses the shipped policies");
        Self { policy, hash: policy_hash(text) }
    }

    /// Claim `x-ms-policy-hash`.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Decides; a permit adds the policy's hash.
    pub fn decide(&self, claims: &mut Claims) -> Result<(), Box<Denial>> {
        match self.policy.evaluate(incoming(claims)) {
            Ok(Decision::Permit(_)) => {}
            Ok(Decision::Deny(deny)) => return Err(Box::new(told(platform_policy::denial(deny)))),
            Err(error) => return Err(Box::new(platform_policy::unevaluated(error))),
        }
        claims.insert("x-ms-policy-hash".to_owned(), self.hash.as_str().into());
        Ok(())
    }
}

/// Every claim with a single value, as the policy language sees it.
pub fn incoming(claims: &Claims) -> Vec<Claim> {
    let claim = |(name, value): (&String, &Value)| {
        let claim = scalar(name, value)?;
        // Raw evidence can be compared, not issued.
        Some(if [CLAIM_EVENTS, CLAIM_PCRS].contains(&name.as_str()) { claim.read_only() } else { claim })
    };
    claims.iter().filter_map(claim).collect()
}

fn scalar(name: &str, value: &Value) -> Option<Claim> {
    match value {
        Value::Bool(value) => Some(Claim::of_service(name, *value)),
        Value::String(value) => Some(Claim::of_service(name, value.as_str())),
        Value::Number(value) => Some(Claim::of_service(name, value.as_i64()?)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn told(denial: Denial) -> Denial {
    let (code, remedy) = match denial.claim.as_str() {
        CLAIM_VTPM_BOUNDARY => (
            "VtpmOutsideBoundary",
            "attest with the hardware report (IsolationInfo.Type SevSnp) of a VM whose vTPM the paravisor runs",
        ),
        "aikValidated" => (
            "AttestationKeyNotCertified",
            "send the certificate that this service issued for the attestation key (POST /attestationKeyCertificates)",
        ),
        _ => return denial,
    };
    Denial { code: code.to_owned(), remedy: remedy.to_owned(), ..denial }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_vtpm_inside_the_boundary_passes() {
        let policy = GuestPolicy::shipped();
        for (boundary, code) in [
            (json!("inside"), None),
            (json!("outside"), Some("VtpmOutsideBoundary")),
            (json!("Inside"), Some("VtpmOutsideBoundary")),
            (json!(true), Some("VtpmOutsideBoundary")),
            (Value::Null, Some("VtpmOutsideBoundary")),
        ] {
            let mut claims = Claims::new();
            claims.insert(CLAIM_VTPM_BOUNDARY.to_owned(), boundary.clone());
            let denied = policy.decide(&mut claims).err().map(|denial| denial.code);
            assert_eq!(denied.as_deref(), code, "{boundary}");
            assert_eq!(claims.contains_key("x-ms-policy-hash"), code.is_none());
        }
    }
}
