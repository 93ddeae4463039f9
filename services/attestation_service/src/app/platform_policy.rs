//! The default policy: which claims it sees, and how its denials are told.

use policy::language::{Claim, Deny, EvaluationError, Permit, Policy, policy_hash};
use policy::language::{Decision, Issuer};
use public_api::Denial;
use public_api::attestation::{CLAIM_REFERENCE, CLAIM_TRUST_ROOT, Claims};
use serde_json::Value;

use super::claims::{CLAIM_ALIAS_CHECK, CLAIM_FMC_SVN};
use crate::config::MinimumTcb;

/// The text of the policy that this service ships.
pub const DEFAULT_POLICY: &str = include_str!("../../policies/sev_snp_vm.txt");

/// Claim that only policies see: `allowed` when the installation accepts its development root.
const CLAIM_DEVELOPMENT_ROOTS: &str = "x-casemate-development-roots";

/// A policy with its text's hash.
pub struct PlatformPolicy {
    policy: Policy,
    hash: String,
}

/// What the service knows beyond the evidence, as claims for policies; never in a token.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Whether the installation accepts its development root.
    pub development_roots_allowed: bool,
    /// Lowest accepted patch levels of the report's product.
    pub minimum_tcb: MinimumTcb,
}

impl PlatformPolicy {
    /// The policy that this service ships.
    pub fn shipped() -> Self {
        let policy = Policy::parse(DEFAULT_POLICY).expect("a test parses the shipped policy");
        Self { policy, hash: policy_hash(DEFAULT_POLICY) }
    }

    /// Claim `x-ms-policy-hash`.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Decides; a denial is told in six parts.
    pub fn decide(&self, claims: &Claims, circumstances: Circumstances) -> Result<Permit, Box<Denial>> {
        match self.policy.evaluate(incoming(claims, circumstances)) {
            Ok(Decision::Permit(permit)) => Ok(permit),
            Ok(Decision::Deny(deny)) => Err(Box::new(denial(deny))),
            Err(error) => Err(Box::new(unevaluated(error))),
        }
    }
}

/// Every claim with a single value, as the policy language sees it.
pub fn incoming(claims: &Claims, circumstances: Circumstances) -> Vec<Claim> {
    let mut incoming: Vec<Claim> = claims.iter().filter_map(|(name, value)| scalar(name, value)).collect();
    let development = if circumstances.development_roots_allowed { "allowed" } else { "refused" };
    incoming.push(Claim::of_service(CLAIM_DEVELOPMENT_ROOTS, development));
    let minimum = circumstances.minimum_tcb;
    let levels = [
        ("fmc", minimum.fmc),
        ("bootloader", minimum.bootloader),
        ("tee", minimum.tee),
        ("snpfw", minimum.snp),
        ("microcode", minimum.microcode),
    ];
    for (component, level) in levels {
        if let Some(level) = level {
            let name = format!("x-casemate-minimum-{component}-svn");
            incoming.push(Claim::of_service(name, i64::from(level)));
        }
    }
    debug_assert!(incoming.iter().all(|claim| claim.issuer == Issuer::AttestationService));
    incoming
}

fn scalar(name: &str, value: &Value) -> Option<Claim> {
    match value {
        Value::Bool(value) => Some(Claim::of_service(name, *value)),
        Value::String(value) => Some(Claim::of_service(name, value.as_str())),
        Value::Number(value) => Some(Claim::of_service(name, value.as_i64()?)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A denial of a policy with the service's stable code and a remedy.
pub fn denial(deny: Deny) -> Denial {
    let (code, remedy) = meaning(&deny.claim);
    let rule = format!("line {} of the attestation policy: {}", deny.line, deny.rule);
    Denial::new(code, deny.claim, deny.expected, deny.actual, rule, remedy)
}

/// A policy that could not be carried out denies.
pub fn unevaluated(error: EvaluationError) -> Denial {
    Denial::new(
        "PolicyNotEvaluated",
        "x-ms-policy-hash",
        "a policy that can be carried out on these claims",
        error.reason,
        format!("line {} of the attestation policy: {}", error.line, error.rule),
        "correct the policy",
    )
}

fn meaning(claim: &str) -> (&'static str, &'static str) {
    match claim {
        "x-ms-sevsnpvm-is-debuggable" => {
            ("GuestDebugAllowed", "launch the VM with the DEBUG bit (19) of the guest policy clear")
        }
        "x-ms-sevsnpvm-migration-allowed" => {
            ("MigrationAgentAllowed", "launch the VM with the MIGRATE_MA bit (18) of the guest policy clear")
        }
        "x-ms-sevsnpvm-vmpl" => ("VmplRefused", "ask for the report from VMPL 0"),
        CLAIM_REFERENCE => (
            "LaunchMeasurementUnknown",
            "launch a firmware, paravisor, CPU model and vCPU count that the attestation service is configured with, or add them to its configuration",
        ),
        CLAIM_TRUST_ROOT => (
            "DevelopmentRootRefused",
            "run the VM on an SEV-SNP host; for development only, set allow_development_roots and development_root",
        ),
        CLAIM_ALIAS_CHECK => (
            "AliasCheckIncomplete",
            "update the host's BIOS and secure processor firmware (AMD-SB-3015) and reset it",
        ),
        CLAIM_FMC_SVN
        | "x-ms-sevsnpvm-bootloader-svn"
        | "x-ms-sevsnpvm-tee-svn"
        | "x-ms-sevsnpvm-snpfw-svn"
        | "x-ms-sevsnpvm-microcode-svn" => (
            "TcbTooOld",
            "update the host's firmware and microcode, commit them, and fetch the VCEK of the new TCB",
        ),
        _ => ("PolicyDenied", "see the rule of the attestation policy"),
    }
}
