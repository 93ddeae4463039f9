//! Named vaults: several in one process, each with a database, a sealing key, a decision log, a signing identity, limits and
//! an access list of its own.
//!
//! The vault at `public_url` is there always, and keeps the registry of the others. A named vault is opened when it is first
//! asked for:
//!
//! ```text
//!   request ── host ──► public_url's, or none of ours ──► the default vault
//!                  └──► {name}.{vaults.domain}       ──► the vault of that name, if it is live
//!                                                   └──► nobody: 404, whatever the reason
//!
//!   absent --PUT--> live --DELETE--> deleted --DELETE, or its days over--> purging --> absent
//!                    ^                  |
//!                    '-----recover------'
//! ```
//!
//! A vault's id is random and used for no second vault: it is part of its folder's name and of the derivation of its sealing
//! key. So a name that is taken again never meets the files of the one before, and a row or a whole database that is put
//! into another vault's place does not open there.

mod change;
pub mod config;
pub mod host;
mod settings;
pub mod upkeep;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use public_api::vaults::{VaultKind, VaultSettings};
use token_verifier::Issuer;
use tokio::runtime::Handle;
use tower::ServiceExt as _;

use crate::app::state::{Own, Rules};
use crate::app::{AppError, AppState, Clock, StartError};
use crate::config::{Config, RecoveryConfig};
use crate::http;
use crate::store::vaults::{self as registry, VaultRecord};
use crate::token::access::Access;
use crate::token::caller::Callers;
use config::VaultsConfig;
use host::{Addressed, Hosts};

/// Folder of the named vaults, in the data folder.
const FOLDER: &str = "vaults";

/// A vault that is open.
#[derive(Clone)]
struct Opened {
    state: Arc<AppState>,
    router: Router,
}

/// Where named vaults are served.
struct Named {
    config: VaultsConfig,
    hosts: Hosts,
}

/// All vaults of a process.
pub struct Vaults {
    config: Config,
    named: Option<Named>,
    default: Opened,
    nobody: Router,
    open: RwLock<HashMap<String, Opened>>,
    /// Held while a vault is opened or its state changes, so that a vault that is being deleted is not opened again.
    changes: tokio::sync::Mutex<()>,
}

impl Vaults {
    /// Opens the default vault; the named ones are opened when they are asked for.
    pub async fn open(config: Config, clock: Clock) -> Result<Arc<Self>, StartError> {
        let state = Arc::new(AppState::open(&config, clock).await?);
        let named = match config.vaults.clone() {
            None => None,
            Some(section) => {
                let hosts = Hosts::new(&section, config.host()?, config.public_url.port());
                Some(Named { config: section, hosts })
            }
        };
        let nobody = http::nobody(&state.gate);
        let default = Opened { router: http::app(Arc::clone(&state)), state };
        let (open, changes) = (RwLock::default(), tokio::sync::Mutex::default());
        Ok(Arc::new(Self { config, named, default, nobody, open, changes }))
    }

    /// The vault at `public_url`.
    pub fn default_vault(&self) -> &Arc<AppState> {
        &self.default.state
    }

    /// The vaults that are open now.
    pub fn open_ones(&self) -> Vec<Arc<AppState>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let named = open.values().map(|opened| Arc::clone(&opened.state));
        std::iter::once(Arc::clone(&self.default.state)).chain(named).collect()
    }

    /// The live vaults, the default one first. One that does not open is left out, and told in the log.
    pub async fn live(&self) -> Result<Vec<Arc<AppState>>, AppError> {
        let mut live = vec![Arc::clone(&self.default.state)];
        if self.named.is_none() {
            return Ok(live);
        }
        for record in registry::all(self.default.state.store.readers()).await? {
            if record.deletion.is_some() {
                continue;
            }
            match self.find(record.settings.kind, &record.name).await {
                Ok(found) => live.extend(found.map(|opened| opened.state)),
                Err(error) => {
                    tracing::error!(
                        error = crate::chain(&error),
                        vault = record.name,
                        "a vault does not open"
                    );
                }
            }
        }
        Ok(live)
    }

    /// The named vault, opened if it is not yet; nothing if there is no live one of this kind.
    async fn find(&self, kind: VaultKind, name: &str) -> Result<Option<Opened>, AppError> {
        if let Some(opened) = self.opened(name, kind) {
            return Ok(Some(opened));
        }
        let _changes = self.changes.lock().await;
        if let Some(opened) = self.opened(name, kind) {
            return Ok(Some(opened));
        }
        let record = registry::find(self.default.state.store.readers(), name).await?;
        match record.filter(|record| record.deletion.is_none() && record.settings.kind == kind) {
            Some(record) => self.load(&record).await.map(Some),
            None => Ok(None),
        }
    }

    /// One that is open and can write.
    fn opened(&self, name: &str, kind: VaultKind) -> Option<Opened> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let opened = open.get(name).filter(|opened| !opened.state.store.has_ended())?;
        let is_kind = matches!(&opened.state.rules().access, Access::Named { kind: own, .. } if *own == kind);
        is_kind.then(|| opened.clone())
    }

    /// Opens a vault and keeps it. The caller holds `changes`.
    async fn load(&self, record: &VaultRecord) -> Result<Opened, AppError> {
        self.close(&record.name);
        let own = self.own(record).ok_or_else(|| AppError::VaultNotFound(record.name.clone()))?;
        let state = Arc::new(self.opening(&record.id, own).await?);
        let opened = Opened { router: http::app(Arc::clone(&state)), state };
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(record.name.clone(), opened.clone());
        Ok(opened)
    }

    /// On a thread of its own: the keys of a new signing identity take a second.
    async fn opening(&self, id: &str, own: Own) -> Result<AppState, AppError> {
        let (default, config, id) = (Arc::clone(&self.default.state), self.config.clone(), id.to_owned());
        let runtime = Handle::current();
        let work = move || runtime.block_on(default.open_named(&config, &id, own));
        Ok(tokio::task::spawn_blocking(work).await??)
    }

    fn close(&self, name: &str) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What a named vault has of its own; nothing if its kind is not served.
    fn own(&self, record: &VaultRecord) -> Option<Own> {
        let Named { config, hosts } = self.named.as_ref()?;
        let kind = record.settings.kind;
        let (host, audience) = (hosts.host(kind, &record.name)?, hosts.audience(kind)?);
        let tenant = record.settings.tenant_id.to_ascii_lowercase();
        let keys = Arc::clone(&self.default.state.common.caller_keys);
        let issuer = Issuer::new(&config.issuer_of(&tenant), keys);
        Some(Own {
            folder: self.folder(record),
            base_url: hosts.url(&host),
            host,
            authorization: config.authorization_of(&tenant),
            callers: Callers::new(issuer, &audience).of_tenant(&tenant),
            audience,
            rules: rules(&record.settings),
        })
    }

    /// The name is checked and the id is ours, so neither leads out of the folder.
    fn folder(&self, record: &VaultRecord) -> PathBuf {
        self.config.data_dir.join(FOLDER).join(format!("{}.{}", record.name, record.id))
    }

    async fn router(self: &Arc<Self>, request: &mut Request) -> Result<Router, AppError> {
        let Some(named) = &self.named else { return Ok(self.default.router.clone()) };
        match named.hosts.addressed(request.uri(), request.headers()) {
            Addressed::Default => {
                request.extensions_mut().insert(Arc::clone(self));
                Ok(self.default.router.clone())
            }
            Addressed::Nobody => Ok(self.nobody.clone()),
            Addressed::Named(kind, name) => {
                let found = self.find(kind, &name).await?;
                Ok(found.map_or_else(|| self.nobody.clone(), |opened| opened.router))
            }
        }
    }
}

/// What a vault's settings say about its keys and callers.
fn rules(settings: &VaultSettings) -> Rules {
    let (days, purge_protection) = (settings.soft_delete_retention_in_days, settings.purge_protection);
    Rules {
        recovery: RecoveryConfig { days, purge_protection },
        access: Access::Named {
            kind: settings.kind,
            resource: settings.resource.id.clone(),
            access: settings.access.clone(),
        },
    }
}

/// All vaults behind one router, which hands each request to the vault that its host names.
pub fn app(vaults: Arc<Vaults>) -> Router {
    Router::new().fallback(dispatch).with_state(vaults)
}

async fn dispatch(State(vaults): State<Arc<Vaults>>, mut request: Request) -> Response {
    match vaults.router(&mut request).await {
        Ok(router) => {
            let answer: Result<Response, Infallible> = router.oneshot(request).await;
            answer.unwrap_or_else(|never| match never {})
        }
        Err(error) => error.into_response(),
    }
}
