//! The key service's named vaults as the control plane needs them: a vault is there with these settings, a vault is gone. Both can
//! be asked for any number of times, and neither touches a vault of somebody else.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use internal_api::paravisor::Failure;
use public_api::client::{ClientError, Connection, VaultsClient};
use public_api::vaults::{VaultSettings, VaultView};

use crate::app::{ControlPlane, now_seconds};
use crate::config::read_text;
use crate::identity::TokenAuthority;

/// Lifetime of the service's own tokens.
const TOKEN_SECONDS: i64 = 300;
/// How long an answer may take; a new vault makes two RSA keys.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The app role that makes vaults and sees no key.
const OPERATOR: &str = "Casemate Vault Operator";

/// A key service and the right to make vaults there.
#[derive(Clone)]
pub struct VaultService {
    connection: Connection,
    tokens: TokenAuthority,
    tenant: String,
    audience: String,
    /// What was last logged, so that waiting is told once.
    told: Arc<Mutex<String>>,
}

/// Why a vault is not there, or not gone.
#[derive(Debug)]
pub enum VaultTrouble {
    /// Ask again later.
    Transient(String),
    /// Asking again changes nothing.
    Permanent(Box<Failure>),
}

impl VaultService {
    /// A client that signs in with tokens of its own making.
    pub fn new(app: &ControlPlane) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let keys = &app.config.keys;
        let connection = Connection::new(&keys.url, &read_text(Path::new(&keys.ca))?, TIMEOUT)?;
        Ok(Self {
            connection,
            tokens: app.tokens.clone(),
            tenant: app.directory.home().to_owned(),
            audience: keys.audience.clone(),
            told: Arc::default(),
        })
    }

    fn client(&self) -> VaultsClient {
        let roles = [OPERATOR.to_owned()];
        let (tenant, audience) = (&self.tenant, &self.audience);
        let token = self.tokens.mint(tenant, "control-plane", audience, &roles, now_seconds(), TOKEN_SECONDS);
        VaultsClient(self.connection.clone().with_bearer(token))
    }

    /// Makes sure that the vault exists with these settings, which name the resource that it belongs to.
    pub async fn ensure(&self, name: &str, settings: &VaultSettings) -> Result<(), VaultTrouble> {
        self.client().put(name, settings).await.map(drop).map_err(|error| trouble(name, &error))
    }

    /// Makes sure that the deleted vault of the same resource is live again, for this life of it.
    pub async fn recover(&self, name: &str, settings: &VaultSettings) -> Result<VaultView, VaultTrouble> {
        let recovered = self.client().recover(name, &settings.resource).await;
        recovered.map_err(|error| trouble(name, &error))
    }

    /// Makes sure that the vault of this resource is deleted. Another one's of the same name stays.
    pub async fn remove(&self, name: &str, settings: &VaultSettings) -> Result<(), VaultTrouble> {
        match self.client().delete(name, &settings.resource.incarnation).await {
            Ok(()) => Ok(()),
            Err(ClientError::Status { status: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(trouble(name, &error)),
        }
    }

    /// All deleted vaults, whosever they were.
    pub async fn deleted(&self) -> Result<Vec<VaultView>, VaultTrouble> {
        self.client().all_deleted().await.map_err(|error| trouble("deleted", &error))
    }

    /// Destroys a deleted vault.
    pub async fn purge(&self, view: &VaultView) -> Result<(), VaultTrouble> {
        let purged = self.client().purge(&view.name, &view.settings.resource.incarnation).await;
        match purged {
            Ok(()) | Err(ClientError::Status { status: 404, .. }) => Ok(()),
            Err(ClientError::Denied { denial, .. }) if denial.code == "PurgeProtected" => {
                Err(VaultTrouble::Permanent(Box::new(Failure {
                    code: denial.code,
                    claim: denial.claim,
                    expected: denial.expected,
                    actual: denial.actual,
                    rule: denial.rule,
                    remedy: denial.remedy,
                    transient: false,
                })))
            }
            Err(error) => Err(trouble(&view.name, &error)),
        }
    }

    /// Logs what is waited for, if that is news.
    pub fn tell(&self, text: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != text {
            tracing::warn!("vaults are waiting: {text}");
            text.clone_into(&mut told);
        }
    }
}

/// A denial is about our own right to call: the operator mends that, and the tenant's wish stays.
fn trouble(name: &str, error: &ClientError) -> VaultTrouble {
    match error {
        ClientError::Status { status, code, message, .. }
            if (400..500).contains(status) && ![401, 403, 408, 429].contains(status) =>
        {
            VaultTrouble::Permanent(Box::new(refused(name, code, message)))
        }
        _ => VaultTrouble::Transient(crate::chain(error)),
    }
}

fn refused(name: &str, code: &str, message: &str) -> Failure {
    let (code, remedy) = match code {
        "VaultAlreadyExists" => ("VaultAlreadyExists", "delete this resource and choose another name"),
        "VaultDeleted" => ("ConflictError", "recover the deleted vault (createMode: recover), or purge it"),
        _ => ("VaultRefused", "mend what the answer names"),
    };
    Failure {
        code: code.to_owned(),
        claim: format!("vault {name}"),
        expected: "a vault that the key service makes".to_owned(),
        actual: message.to_owned(),
        rule: "the key service's answer".to_owned(),
        remedy: remedy.to_owned(),
        transient: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_mends_is_waited_for_and_what_the_tenant_mends_fails() {
        let status = |status| ClientError::Status {
            service: "s".into(),
            status,
            code: "VaultDeleted".into(),
            message: "m".into(),
        };
        for (answer, permanent) in
            [(400, true), (409, true), (401, false), (403, false), (429, false), (500, false)]
        {
            let found = matches!(trouble("n", &status(answer)), VaultTrouble::Permanent(_));
            assert_eq!(found, permanent, "{answer}");
        }
    }
}
