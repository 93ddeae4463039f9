//! A provider: a named, isolated instance of the service with its own issuer, signing keys, policies and policy signers.
//!
//! The one named `default` is at the root of the service and always there. All providers judge by the same roots,
//! revocation lists and reference values; what they make of the claims is their own.

pub mod document;
pub mod in_force;
mod quote_facts;
pub mod registry;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use public_api::attestation_policy::{AttestationType, ProviderSettings, ProviderView, TrustModel};

use super::signing::Signer;
use document::PolicySigner;
use in_force::InForce;

/// The provider at the root.
pub const DEFAULT: &str = "default";

/// A provider in memory. What it holds is stored; this is what requests are answered from.
pub struct Provider {
    name: String,
    created_on: i64,
    settings: ProviderSettings,
    /// Signs its tokens.
    pub signer: Signer,
    policies: RwLock<BTreeMap<AttestationType, InForce>>,
    policy_signers: RwLock<Arc<Vec<PolicySigner>>>,
}

impl Provider {
    /// A provider with what is stored of it.
    pub fn new(
        name: &str,
        created_on: i64,
        settings: ProviderSettings,
        signer: Signer,
        policies: BTreeMap<AttestationType, InForce>,
        policy_signers: Vec<PolicySigner>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            created_on,
            settings,
            signer,
            policies: RwLock::new(policies),
            policy_signers: RwLock::new(Arc::new(policy_signers)),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who may set its policies.
    pub fn trust_model(&self) -> TrustModel {
        self.settings.trust_model
    }

    /// How it was made.
    pub fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    /// As the provider routes show it.
    pub fn view(&self) -> ProviderView {
        ProviderView {
            name: self.name.clone(),
            attest_uri: self.signer.issuer().to_owned(),
            trust_model: self.settings.trust_model,
            token_algorithm: self.settings.token_algorithm,
            tpm_attestation_authentication: self.settings.tpm_attestation_authentication,
            resource: self.settings.resource.clone(),
            created_on: self.created_on,
        }
    }

    /// What decides about evidence of this type.
    pub fn in_force(&self, kind: AttestationType) -> InForce {
        let policies = self.policies.read().unwrap_or_else(PoisonError::into_inner);
        policies.get(&kind).cloned().unwrap_or_default()
    }

    /// Replaces what decides. It has been stored before.
    pub fn put_in_force(&self, kind: AttestationType, in_force: InForce) {
        self.policies.write().unwrap_or_else(PoisonError::into_inner).insert(kind, in_force);
    }

    /// The certificates that sign its policies.
    pub fn policy_signers(&self) -> Arc<Vec<PolicySigner>> {
        Arc::clone(&self.policy_signers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the certificates. They have been stored before.
    pub fn set_policy_signers(&self, signers: Vec<PolicySigner>) {
        *self.policy_signers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signers);
    }
}
