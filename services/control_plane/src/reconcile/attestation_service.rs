//! The attestation service as reconcilers need it: a provider is there, a provider is gone. Both can be asked for any number of
//! times, and neither touches a provider of somebody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use internal_api::host::HostChip;
use internal_api::paravisor::Failure;
use public_api::attestation_policy::ProviderSettings;
use public_api::client::{AttestationClient, ClientError, Connection};
use public_api::collateral::PrefetchRequest;

use crate::app::{ControlPlane, now_seconds};
use crate::identity::TokenAuthority;

/// Lifetime of the service's own tokens.
const TOKEN_SECONDS: i64 = 300;
/// How long an answer may take; generating an RSA key is the longest. The other reconcilers wait meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds until a chip that could not be fetched is asked for again.
const PREFETCH_PAUSE: i64 = 60;

/// An attestation service and the right to make providers there.
#[derive(Clone)]
pub struct AttestationService {
    connection: Connection,
    tokens: TokenAuthority,
    tenant: String,
    audience: String,
    /// What was last logged, so that waiting is told once.
    told: Arc<Mutex<String>>,
    /// The chips that it was told of, and when one that it could not fetch may be asked for again (Unix seconds).
    chips: Arc<Mutex<HashMap<HostChip, Asked>>>,
}

/// What came of telling the service of a chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It has what evidence of the chip needs.
    Fetched,
    /// Not yet; not before this time again (Unix seconds).
    Again(i64),
}

/// Why a provider is not there, or not gone.
#[derive(Debug)]
pub enum ProviderTrouble {
    /// Ask again later.
    Transient(String),
    /// Asking again changes nothing.
    Permanent(Box<Failure>),
}

impl AttestationService {
    /// A client that signs in with tokens of its own making.
    pub fn new(app: &ControlPlane) -> Result<Self, ClientError> {
        let connection = Connection::new(&app.config.attestation_url, &app.trust_bundle, TIMEOUT)?;
        Ok(Self {
            connection,
            tokens: app.tokens.clone(),
            tenant: app.directory.home().to_owned(),
            audience: app.config.attestation_audience.clone(),
            told: Arc::default(),
            chips: Arc::default(),
        })
    }

    fn client(&self) -> AttestationClient {
        let roles = ["Attestation Contributor".to_owned()];
        let (tenant, audience) = (&self.tenant, &self.audience);
        let token = self.tokens.mint(tenant, "control-plane", audience, &roles, now_seconds(), TOKEN_SECONDS);
        AttestationClient(self.connection.clone().with_bearer(token))
    }

    /// Makes sure that the provider exists with these settings, which name the resource that it belongs to.
    pub async fn ensure(&self, name: &str, settings: &ProviderSettings) -> Result<(), ProviderTrouble> {
        match self.client().put_provider(name, settings).await {
            Ok(_) => Ok(()),
            Err(ClientError::Status { status: 409, code, .. }) if code == "ProviderExists" => {
                Err(ProviderTrouble::Permanent(Box::new(foreign(name))))
            }
            Err(error) => Err(trouble(name, &error)),
        }
    }

    /// Makes sure that the provider of this resource is gone. Another one's of the same name stays.
    pub async fn remove(&self, name: &str, settings: &ProviderSettings) -> Result<(), ProviderTrouble> {
        let client = self.client();
        match client.provider(name).await {
            Ok(view) if view.resource != settings.resource => return Ok(()),
            Ok(_) => {}
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(trouble(name, &error)),
        }
        match client.remove_provider(name).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(trouble(name, &error)),
        }
    }

    /// What it was told of, since this process began.
    pub fn asked(&self) -> HashMap<HostChip, Asked> {
        self.chips.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a chip is being asked for: if nothing comes of it, it is asked for again after a pause.
    pub fn note_asking(&self, chip: &HostChip, now: i64) {
        self.note(chip, Asked::Again(now + PREFETCH_PAUSE));
    }

    fn note(&self, chip: &HostChip, asked: Asked) {
        self.chips.lock().unwrap_or_else(PoisonError::into_inner).insert(chip.clone(), asked);
    }

    /// Has it fetch what evidence of a chip needs. That it cannot is no obstacle: evidence may bring its certificates.
    pub async fn prefetch(&self, host: &str, chip: &HostChip) {
        let request = PrefetchRequest {
            product: Some(chip.product.clone()),
            chip_id: Some(chip.chip_id.clone()),
            tcb: Some(chip.tcb.clone()),
            report: None,
        };
        match self.client().prefetch(&request).await {
            Ok(_) => {
                tracing::info!(host, chip = chip.chip_id, "the attestation service knows the host's chip");
                self.note(chip, Asked::Fetched);
            }
            Err(error) => {
                tracing::warn!(host, problem = crate::chain(&error), "the host's chip is not known yet");
            }
        }
    }

    /// Logs what is waited for, if that is news.
    pub fn tell(&self, text: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != text {
            tracing::warn!("attestation providers are waiting: {text}");
            text.clone_into(&mut told);
        }
    }
}

fn is_missing(error: &ClientError) -> bool {
    matches!(error, ClientError::Status { status: 404, .. })
}

/// A denial is about our own right to call: the operator mends that, and the tenant's wish stays.
fn trouble(name: &str, error: &ClientError) -> ProviderTrouble {
    match error {
        ClientError::Status { status, code, message, .. }
            if (400..500).contains(status) && ![401, 403, 408, 429].contains(status) =>
        {
            ProviderTrouble::Permanent(Box::new(refused(name, &format!("{code}: {message}"))))
        }
        _ => ProviderTrouble::Transient(crate::chain(error)),
    }
}

fn refused(name: &str, answer: &str) -> Failure {
    Failure {
        code: "AttestationProviderRefused".to_owned(),
        claim: format!("attestation provider {name}"),
        expected: "a provider that the attestation service makes".to_owned(),
        actual: answer.to_owned(),
        rule: "the attestation service's answer".to_owned(),
        remedy: "delete the provider, mend what the answer names, and create it anew".to_owned(),
        transient: false,
    }
}

fn foreign(name: &str) -> Failure {
    Failure {
        code: "AttestationProviderForeign".to_owned(),
        claim: format!("attestation provider {name}"),
        expected: "a name that is free at the attestation service".to_owned(),
        actual: "a provider that was not made for this resource".to_owned(),
        rule: "a provider belongs to one resource, or to the operator; nobody takes over another one's"
            .to_owned(),
        remedy: "delete this resource and choose another name".to_owned(),
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
            code: "C".into(),
            message: "m".into(),
        };
        for (answer, permanent) in [
            (400, true),
            (409, true),
            (413, true),
            (401, false),
            (403, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            let found = matches!(trouble("n", &status(answer)), ProviderTrouble::Permanent(_));
            assert_eq!(found, permanent, "{answer}");
        }
        let denial = public_api::Denial::new("RoleMissing", "roles", "e", "a", "r", "m");
        let denied = ClientError::Denied { service: "s".into(), denial: Box::new(denial) };
        assert!(matches!(trouble("n", &denied), ProviderTrouble::Transient(_)));
    }
}
