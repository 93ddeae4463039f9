//! What the configuration rules of a policy ask of a TPM's quote: `required_pcr_mask` and `require_valid_aik_cert`.
//!
//! Source: Azure Attestation, "Attestation policy version 1.1", configuration rules. That page has all 24 PCRs as the
//! default of the mask, which the quotes of Azure's own clients do not meet; here the mask counts where a rule sets it.

use std::collections::BTreeSet;

use policy::language::{Claim, ClaimValue, Permit};
use public_api::Denial;
use public_api::attestation_policy::AttestationType;
use serde::Deserialize;

use crate::app::ak_authority::AikCertificate;
use crate::app::azure_guest::claims::CLAIM_AIK_CERTIFICATE;
use crate::app::azure_guest::policy_evidence::CLAIM_PCRS;

/// What the claims say of a quote.
pub struct QuoteFacts {
    quoted: BTreeSet<u32>,
    aik_validated: bool,
}

/// The claim `pcrs`, as far as it is needed.
#[derive(Deserialize)]
struct Pcrs {
    #[serde(rename = "PCRs")]
    entries: Vec<Pcr>,
}

#[derive(Deserialize)]
struct Pcr {
    #[serde(rename = "Index")]
    index: u32,
}

impl QuoteFacts {
    /// Reads them from the service's own claims.
    pub fn of(incoming: &[Claim]) -> Self {
        let value =
            |name: &str| incoming.iter().find(|claim| claim.claim_type == name).map(|claim| &claim.value);
        let pcrs = match value(CLAIM_PCRS) {
            Some(ClaimValue::String(text)) => serde_json::from_str::<Pcrs>(text).ok(),
            _ => None,
        };
        let quoted = pcrs.map(|pcrs| pcrs.entries.iter().map(|pcr| pcr.index).collect());
        Self {
            quoted: quoted.unwrap_or_default(),
            aik_validated: value(CLAIM_AIK_CERTIFICATE) == Some(&AikCertificate::Valid.name().into()),
        }
    }

    /// Checks them against what a policy that permitted has configured.
    pub fn check(&self, kind: AttestationType, permit: &Permit) -> Result<(), Box<Denial>> {
        let sets = |name: &str| permit.properties().iter().any(|property| property.claim_type == name);
        let configuration = permit.configuration();
        if sets("required_pcr_mask") {
            self.check_pcrs(configuration.required_pcr_mask)?;
        }
        // In guest attestation the hardware report can bind the key, and then needs no certificate.
        let key_matters = kind == AttestationType::Tpm || sets("require_valid_aik_cert");
        if key_matters && configuration.require_valid_aik_cert && !self.aik_validated {
            return Err(not_certified());
        }
        Ok(())
    }

    fn check_pcrs(&self, mask: u32) -> Result<(), Box<Denial>> {
        let missing: Vec<u32> =
            (0..32).filter(|pcr| mask & (1 << pcr) != 0 && !self.quoted.contains(pcr)).collect();
        if missing.is_empty() { Ok(()) } else { Err(not_quoted(mask, &missing)) }
    }
}

fn not_quoted(mask: u32, missing: &[u32]) -> Box<Denial> {
    Box::new(Denial::new(
        "RequiredPcrNotQuoted",
        CLAIM_PCRS,
        format!("a quote over all PCRs of the mask {mask:#08x}"),
        format!("one without PCR {}", missing.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
        "required_pcr_mask in the configuration rules of the attestation policy",
        "quote these PCRs too, or ask the provider's owner for a policy with another mask",
    ))
}

fn not_certified() -> Box<Denial> {
    Box::new(Denial::new(
        "AttestationKeyNotCertified",
        CLAIM_AIK_CERTIFICATE,
        AikCertificate::Valid.name(),
        "none that this service issued for this key and that is valid now",
        "require_valid_aik_cert of the attestation policy; true unless a configuration rule says otherwise",
        "send the certificate that this service issued for the attestation key (POST /attestationKeyCertificates)",
    ))
}

#[cfg(test)]
mod tests {
    use policy::language::{Decision, Policy};

    use super::*;

    /// The code of the denial of a quote over PCRs 0 to 7 by a policy with these configuration rules.
    fn code(kind: AttestationType, rules: &str, certified: bool) -> Option<String> {
        let pcrs: Vec<_> = (0..8).map(|index| serde_json::json!({"Index": index})).collect();
        let incoming = vec![
            Claim::of_service(CLAIM_PCRS, serde_json::json!({"PCRs": pcrs}).to_string()).read_only(),
            Claim::of_service(CLAIM_AIK_CERTIFICATE, if certified { "valid" } else { "untrusted" }),
        ];
        let text = format!(
            "version=1.2; configurationrules {{ {rules} }}; authorizationrules {{ => permit(); }}; issuancerules {{ }};"
        );
        let facts = QuoteFacts::of(&incoming);
        let decision = Policy::parse(&text).expect("a policy").evaluate(incoming).expect("evaluated");
        let Decision::Permit(permit) = decision else { panic!("denied") };
        facts.check(kind, &permit).err().map(|denial| denial.code)
    }

    #[test]
    fn a_mask_counts_where_it_is_set() {
        let mask = |mask: u32| format!("=> issueproperty(type=\"required_pcr_mask\", value={mask});");
        for kind in [AttestationType::AzureGuest, AttestationType::Tpm] {
            assert_eq!(code(kind, "", true), None);
            assert_eq!(code(kind, &mask(0xff), true), None);
            assert_eq!(code(kind, &mask(0x1ff), true).as_deref(), Some("RequiredPcrNotQuoted"));
            assert_eq!(code(kind, &mask(0x80_0000), true).as_deref(), Some("RequiredPcrNotQuoted"));
        }
    }

    #[test]
    fn a_tpm_alone_needs_a_certified_key_unless_the_policy_waives_it() {
        let rule = |value| format!("=> issueproperty(type=\"require_valid_aik_cert\", value={value});");
        let refused = Some("AttestationKeyNotCertified");
        assert_eq!(code(AttestationType::Tpm, "", false).as_deref(), refused);
        assert_eq!(code(AttestationType::Tpm, &rule(false), false), None);
        assert_eq!(code(AttestationType::AzureGuest, "", false), None);
        assert_eq!(code(AttestationType::AzureGuest, &rule(true), false).as_deref(), refused);
        assert_eq!(code(AttestationType::AzureGuest, &rule(true), true), None);
    }

    #[test]
    fn claims_without_pcrs_meet_no_mask() {
        let facts = QuoteFacts::of(&[]);
        assert!(facts.check_pcrs(1).is_err() && facts.check_pcrs(0).is_ok());
    }
}
