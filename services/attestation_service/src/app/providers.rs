//! Making, showing and removing providers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use public_api::attestation_policy::{AttestationType, ProviderSettings, ProviderView, TrustModel};
use public_api::decision_log::Decision;
use public_api::encoding::from_base64_any;
use serde_json::json;

use super::attest::Service;
use super::fields::FieldError;
use super::policies::{PolicyChangeError, load_in_force};
use super::provider::document::PolicySigner;
use super::provider::registry::{Registry, is_name, issuer};
use super::provider::{DEFAULT, Provider};
use super::signing::Signer;
use crate::store::{Change, Record, Store};

/// Most providers beside the one at the root.
const MAX_PROVIDERS: usize = 1000;

/// Why a provider was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Name or settings.
    #[error(transparent)]
    Form(#[from] FieldError),
    /// There is one with other settings.
    #[error(
        "provider {0} is there already, with other settings; its trust model and signers cannot be changed this way"
    )]
    Exists(String),
    /// There is none.
    #[error("there is no provider {0}")]
    NotFound(String),
    /// The one at the root.
    #[error("the provider `default` is the service itself: it can be neither made nor removed")]
    IsDefault,
    /// No more.
    #[error("there are {MAX_PROVIDERS} providers; remove one first")]
    TooMany,
    /// What its policies need.
    #[error(transparent)]
    Policy(#[from] PolicyChangeError),
}

impl Service {
    /// All providers.
    pub fn provider_views(&self) -> Vec<ProviderView> {
        self.providers.all().iter().map(|provider| provider.view()).collect()
    }

    /// `PUT /providers/{name}`. The same again changes nothing. Returns whether it was made now.
    pub async fn put_provider(
        &self,
        name: &str,
        settings: ProviderSettings,
        caller: &str,
        now: i64,
    ) -> Result<(ProviderView, bool), ProviderError> {
        let _changing = self.changing.lock().await;
        let signers = checked(name, &settings)?;
        if let Some(provider) = self.providers.find(name) {
            let same = *provider.settings() == settings;
            return if same {
                Ok((provider.view(), false))
            } else {
                Err(ProviderError::Exists(name.to_owned()))
            };
        }
        if self.providers.all().len() > MAX_PROVIDERS {
            return Err(ProviderError::TooMany);
        }
        let directory = directory(&self.data_dir, name);
        // Keys of a former provider of this name, or of a making that a crash ended, sign nothing for this one.
        if directory.exists() {
            std::fs::remove_dir_all(&directory).map_err(|error| PolicyChangeError::Signer(error.into()))?;
        }
        let issuer = issuer(self.providers.default_provider().signer.issuer(), name);
        let signer = Signer::open(&directory, &issuer, settings.token_algorithm, now)
            .map_err(PolicyChangeError::Signer)?;
        self.store_provider(name, &settings, &signers, caller, now).await?;
        let provider = Arc::new(Provider::new(name, now, settings, signer, BTreeMap::new(), signers));
        self.providers.insert(Arc::clone(&provider));
        Ok((provider.view(), true))
    }

    async fn store_provider(
        &self,
        name: &str,
        settings: &ProviderSettings,
        signers: &[PolicySigner],
        caller: &str,
        now: i64,
    ) -> Result<(), PolicyChangeError> {
        let settings = serde_json::to_string(settings).map_err(crate::store::StoreError::from)?;
        let mut changes = vec![Change::AddProvider { provider: name.to_owned(), settings, created_on: now }];
        changes.extend(signers.iter().map(|signer| Change::AddSigner {
            provider: name.to_owned(),
            thumbprint: signer.thumbprint(),
            certificate: signer.certificate.clone(),
        }));
        let record = record(name, "ProviderMade", caller);
        Ok(self.store.record_with(record, changes).await.map(drop)?)
    }

    /// `DELETE /providers/{name}`: with its policies, signers and signing keys.
    pub async fn delete_provider(&self, name: &str, caller: &str) -> Result<(), ProviderError> {
        let _changing = self.changing.lock().await;
        if name == DEFAULT {
            return Err(ProviderError::IsDefault);
        }
        if self.providers.find(name).is_none() {
            return Err(ProviderError::NotFound(name.to_owned()));
        }
        let change = Change::RemoveProvider(name.to_owned());
        let record = record(name, "ProviderRemoved", caller);
        self.store.record_with(record, vec![change]).await.map_err(PolicyChangeError::from)?;
        self.providers.remove(name);
        // Its keys sign nothing any more; a later provider of this name gets new ones.
        if let Err(error) = std::fs::remove_dir_all(directory(&self.data_dir, name)) {
            tracing::warn!(name, %error, "the signing keys of a removed provider are still there");
        }
        Ok(())
    }
}

impl Service {
    /// `POST /signingKeys:rotate`: the next key of a provider, which signs from `active_from` on.
    pub async fn rotate_signing_key(
        &self,
        provider: &Provider,
        caller: &str,
        now: i64,
        active_from: i64,
    ) -> Result<(), PolicyChangeError> {
        let _changing = self.changing.lock().await;
        let kid = provider.signer.add_key(provider.settings().token_algorithm, active_from)?;
        let mut record = record(provider.name(), "SigningKeyMade", caller);
        record.detail["kid"] = json!(kid);
        record.detail["activeFrom"] = json!(active_from.max(now));
        Ok(self.store.record(record).await.map(drop)?)
    }
}

/// Opens all providers that are stored.
pub async fn load(
    store: &Store,
    data_dir: &Path,
    base: &str,
    root: ProviderSettings,
    now: i64,
) -> Result<Registry, PolicyChangeError> {
    let default = open(store, data_dir, base, DEFAULT, now, root).await?;
    let mut named = Vec::new();
    for stored in store.providers().await? {
        let settings = serde_json::from_str(&stored.settings).map_err(crate::store::StoreError::from)?;
        named.push(open(store, data_dir, base, &stored.name, stored.created_on, settings).await?);
    }
    Ok(Registry::new(default, named))
}

async fn open(
    store: &Store,
    data_dir: &Path,
    base: &str,
    name: &str,
    created_on: i64,
    settings: ProviderSettings,
) -> Result<Provider, PolicyChangeError> {
    let now = jiff::Timestamp::now().as_second();
    let signer =
        Signer::open(&directory(data_dir, name), &issuer(base, name), settings.token_algorithm, now)?;
    let mut policies = BTreeMap::new();
    for kind in AttestationType::ALL {
        policies.insert(kind, load_in_force(store, name, kind).await?);
    }
    let signers = store.policy_signers(name).await?.into_iter().filter_map(PolicySigner::from_der).collect();
    Ok(Provider::new(name, created_on, settings, signer, policies, signers))
}

fn directory(data_dir: &Path, name: &str) -> std::path::PathBuf {
    data_dir.join("providers").join(name)
}

fn record(name: &str, operation: &str, caller: &str) -> Record {
    Record {
        decision: Decision::PolicyChanged,
        subject: format!("providers/{name}"),
        denial: None,
        detail: json!({"operation": operation, "caller": caller}),
    }
}

fn checked(name: &str, settings: &ProviderSettings) -> Result<Vec<PolicySigner>, ProviderError> {
    if name == DEFAULT {
        return Err(ProviderError::IsDefault);
    }
    if !is_name(name) {
        let expected =
            "expected 3 to 24 lower-case letters, digits and hyphens, a letter first, no hyphen last";
        return Err(FieldError::new("name", expected).into());
    }
    let given = &settings.policy_signing_certificates;
    let signers: Vec<PolicySigner> =
        given.iter().filter_map(|text| PolicySigner::from_der(from_base64_any(text).ok()?)).collect();
    let field = |problem| Err(FieldError::new("policySigningCertificates", problem).into());
    if signers.len() != given.len() {
        return field("expected base64 of the DER of RSA or P-256 or P-384 certificates");
    }
    match (settings.trust_model, signers.is_empty()) {
        (TrustModel::Isolated, true) => field("needed by the trust model Isolated"),
        (TrustModel::Aad, false) => field("only the trust model Isolated has policy signing certificates"),
        _ => Ok(signers),
    }
}
