//! The properties that `issueproperty` sets: their names, types and ranges, and what they amount to.
//!
//! Sources: "Attestation policy version 1.1" and "1.2" (configuration rules), "Claim sets" (property claims), "Custom TCB
//! baseline enforcement" (`x-ms-sgx-tcbidentifier`).

use super::values::{Claim, ClaimValue};

/// A year in minutes, the longest validity of a token.
pub const MAX_REPORT_VALIDITY_IN_MINUTES: u32 = 365 * 24 * 60;

/// A property that somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownProperty {
    SgxTcbIdentifier,
    RequireValidAikCert,
    RequiredPcrMask,
    ReportValidityInMinutes,
    OmitX5c,
}

impl KnownProperty {
    /// What `configurationrules` can set.
    pub const CONFIGURATION: [KnownProperty; 3] =
        [KnownProperty::SgxTcbIdentifier, KnownProperty::RequireValidAikCert, KnownProperty::RequiredPcrMask];
    /// What `issuancerules` can set.
    pub const ISSUANCE: [KnownProperty; 2] = [KnownProperty::ReportValidityInMinutes, KnownProperty::OmitX5c];

    pub fn name(self) -> &'static str {
        match self {
            KnownProperty::SgxTcbIdentifier => "x-ms-sgx-tcbidentifier",
            KnownProperty::RequireValidAikCert => "require_valid_aik_cert",
            KnownProperty::RequiredPcrMask => "required_pcr_mask",
            KnownProperty::ReportValidityInMinutes => "report_validity_in_minutes",
            KnownProperty::OmitX5c => "omit_x5c",
        }
    }

    /// The type and range of its value.
    pub fn expected(self) -> String {
        let values = match self {
            KnownProperty::SgxTcbIdentifier => "a text of 1 to 64 characters".to_owned(),
            KnownProperty::RequireValidAikCert | KnownProperty::OmitX5c => "true or false".to_owned(),
            KnownProperty::RequiredPcrMask => format!("an integer from 0 to {}", Configuration::ALL_PCRS),
            KnownProperty::ReportValidityInMinutes => {
                format!("an integer from 1 to {MAX_REPORT_VALIDITY_IN_MINUTES}")
            }
        };
        format!("{values} for {}", self.name())
    }

    pub fn accepts(self, value: &ClaimValue) -> bool {
        match (self, value) {
            (KnownProperty::SgxTcbIdentifier, ClaimValue::String(text)) => {
                (1..=64).contains(&text.chars().count())
            }
            (KnownProperty::RequireValidAikCert | KnownProperty::OmitX5c, ClaimValue::Boolean(_)) => true,
            (KnownProperty::RequiredPcrMask, ClaimValue::Integer(mask)) => {
                (0..=i64::from(Configuration::ALL_PCRS)).contains(mask)
            }
            (KnownProperty::ReportValidityInMinutes, ClaimValue::Integer(minutes)) => {
                (1..=i64::from(MAX_REPORT_VALIDITY_IN_MINUTES)).contains(minutes)
            }
            _ => false,
        }
    }
}

/// What a policy's configuration rules ask of the service. Of several rules that set one property the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Whether a TPM's attestation key needs a certificate that verifies; true unless a rule says otherwise.
    pub require_valid_aik_cert: bool,
    /// PCRs that a quote must cover: bit 0 is PCR 0. All 24 unless a rule says otherwise.
    pub required_pcr_mask: u32,
    /// The TCB baseline of SGX evidence, which this project does not appraise; `azuredefault` unless a rule says otherwise.
    pub sgx_tcb_identifier: String,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            require_valid_aik_cert: true,
            required_pcr_mask: Self::ALL_PCRS,
            sgx_tcb_identifier: "azuredefault".to_owned(),
        }
    }
}

impl Configuration {
    /// PCRs 0 to 23.
    pub const ALL_PCRS: u32 = 0x00ff_ffff;

    pub(super) fn of(properties: &[Claim]) -> Self {
        let mut configuration = Self::default();
        if let Some(ClaimValue::Boolean(required)) = last(properties, KnownProperty::RequireValidAikCert) {
            configuration.require_valid_aik_cert = *required;
        }
        if let Some(ClaimValue::Integer(mask)) = last(properties, KnownProperty::RequiredPcrMask) {
            configuration.required_pcr_mask = u32::try_from(*mask).unwrap_or(Self::ALL_PCRS);
        }
        if let Some(ClaimValue::String(identifier)) = last(properties, KnownProperty::SgxTcbIdentifier) {
            configuration.sgx_tcb_identifier.clone_from(identifier);
        }
        configuration
    }
}

/// What a policy's issuance rules ask of the token's form. Of several rules that set one property the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenProperties {
    /// `report_validity_in_minutes`, from 1 to [`MAX_REPORT_VALIDITY_IN_MINUTES`]; `None` leaves it to the service.
    pub report_validity_in_minutes: Option<u32>,
    /// `omit_x5c`: the token's header names the certificate by digest (`x5t`) and does not carry it (`x5c`).
    pub omit_x5c: bool,
}

impl TokenProperties {
    pub(super) fn of(properties: &[Claim]) -> Self {
        let minutes = match last(properties, KnownProperty::ReportValidityInMinutes) {
            Some(ClaimValue::Integer(minutes)) => u32::try_from(*minutes).ok(),
            _ => None,
        };
        let omit_x5c = last(properties, KnownProperty::OmitX5c) == Some(&ClaimValue::Boolean(true));
        Self { report_validity_in_minutes: minutes, omit_x5c }
    }
}

fn last(properties: &[Claim], property: KnownProperty) -> Option<&ClaimValue> {
    properties.iter().rev().find(|claim| claim.claim_type == property.name()).map(|claim| &claim.value)
}
