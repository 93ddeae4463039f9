//! The default policy: which claims it sees, and how its denials are told.

use policy::language::{Claim, Deny, EvaluationError, Permit, Policy, policy_hash};
use policy::language::{Decision, Issuer};
use public_api::Denial;
use public_api::attestation::{CLAIM_BOOT_REFERENCE, CLAIM_REFERENCE, CLAIM_TRUST_ROOT, Claims};
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
        self.decide_incoming(incoming(claims, circumstances))
    }

    /// Decides about claims as [`incoming`] gives them.
    pub fn decide_incoming(&self, incoming: Vec<Claim>) -> Result<Permit, Box<Denial>> {
        match self.policy.evaluate(incoming) {
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
        CLAIM_BOOT_REFERENCE => (
            "BootChainUnknown",
            "boot the image as it was imported; or, if the guest was updated on purpose, add its new boot chain (PUT /bootReferences), or permit it in the policy",
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn genuine() -> Claims {
        let claims = json!({
            "x-ms-sevsnpvm-is-debuggable": false,
            "x-ms-sevsnpvm-migration-allowed": false,
            "x-ms-sevsnpvm-vmpl": 0,
            "x-ms-sevsnpvm-bootloader-svn": 4,
            "x-ms-sevsnpvm-tee-svn": 0,
            "x-ms-sevsnpvm-snpfw-svn": 24,
            "x-ms-sevsnpvm-microcode-svn": 219,
            "x-casemate-fmc-svn": 1,
            "x-casemate-trust-root": "amd",
            "x-casemate-alias-check-complete": true,
            "x-casemate-reference": "r",
        });
        claims.as_object().expect("an object").clone()
    }

    fn circumstances(development_roots_allowed: bool) -> Circumstances {
        let minimum_tcb = MinimumTcb {
            fmc: Some(1),
            bootloader: Some(4),
            tee: Some(0),
            snp: Some(24),
            microcode: Some(219),
        };
        Circumstances { development_roots_allowed, minimum_tcb }
    }

    /// A claim, a value that is denied, and the code of the denial; every one is denied when it is missing as well.
    fn rows() -> Vec<(&'static str, Value, &'static str)> {
        vec![
            ("x-ms-sevsnpvm-is-debuggable", json!(true), "GuestDebugAllowed"),
            ("x-ms-sevsnpvm-migration-allowed", json!(true), "MigrationAgentAllowed"),
            ("x-ms-sevsnpvm-vmpl", json!(1), "VmplRefused"),
            ("x-ms-sevsnpvm-vmpl", json!(4_294_967_295_u32), "VmplRefused"),
            ("x-ms-sevsnpvm-bootloader-svn", json!(3), "TcbTooOld"),
            ("x-ms-sevsnpvm-tee-svn", json!(-1), "TcbTooOld"),
            ("x-ms-sevsnpvm-snpfw-svn", json!(23), "TcbTooOld"),
            ("x-ms-sevsnpvm-microcode-svn", json!(218), "TcbTooOld"),
            ("x-casemate-fmc-svn", json!(0), "TcbTooOld"),
            ("x-casemate-trust-root", json!("development"), "DevelopmentRootRefused"),
            ("x-casemate-trust-root", json!("another"), "DevelopmentRootRefused"),
            ("x-casemate-alias-check-complete", json!(false), "AliasCheckIncomplete"),
            ("x-casemate-reference", Value::Null, "LaunchMeasurementUnknown"),
        ]
    }

    fn code(policy: &PlatformPolicy, claims: &Claims, development: bool) -> Option<String> {
        policy.decide(claims, circumstances(development)).err().map(|denial| denial.code)
    }

    #[test]
    fn genuine_claims_are_permitted_and_each_wrong_or_missing_one_is_denied() {
        let policy = PlatformPolicy::shipped();
        assert_eq!(code(&policy, &genuine(), false), None);
        for (claim, wrong, expected) in rows() {
            for value in [Some(wrong), None] {
                let mut claims = genuine();
                claims.remove(claim);
                claims.extend(value.map(|value| (claim.to_owned(), value)));
                assert_eq!(code(&policy, &claims, false).as_deref(), Some(expected), "{claim}");
            }
        }
    }

    #[test]
    fn development_evidence_needs_consent_and_no_alias_check() {
        let policy = PlatformPolicy::shipped();
        let mut claims = genuine();
        claims.insert("x-casemate-trust-root".to_owned(), json!("development"));
        claims.insert("x-casemate-alias-check-complete".to_owned(), json!(false));
        assert_eq!(code(&policy, &claims, true), None);
        assert_eq!(code(&policy, &claims, false).as_deref(), Some("DevelopmentRootRefused"));
    }

    /// A rule that could be deleted without a test noticing is no rule.
    #[test]
    fn every_rule_of_the_shipped_policy_is_needed() {
        let rules: Vec<&str> = DEFAULT_POLICY.split_inclusive("=> deny();").collect();
        assert_eq!(rules.len(), 12, "eleven rules and the rest");
        for removed in 0..rules.len() - 1 {
            let opening = if removed == 0 { "version=1.2; authorizationrules {" } else { "" };
            let text: String = rules
                .iter()
                .enumerate()
                .map(|(at, rule)| if at == removed { opening } else { rule })
                .collect();
            let weaker =
                PlatformPolicy { policy: Policy::parse(&text).expect("parses"), hash: String::new() };
            let noticed = rows().into_iter().any(|(claim, wrong, _)| {
                let mut claims = genuine();
                claims.insert(claim.to_owned(), wrong);
                code(&weaker, &claims, false).is_none()
            });
            assert!(noticed, "without rule {removed} nothing changes: {}", rules[removed]);
        }
    }
}
