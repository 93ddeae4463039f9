//! What the service holds while it runs, and how it is put together.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_service::Gate;
use http_service::health::LastReadiness;
use public_api::decision_log::Decision;
use serde_json::{Value, json};

use super::AppError;
use super::counts::Counts;
use super::opened::OpenedKeys;
use crate::config::{Config, ConfigError, MasterKeyConfig, RecoveryConfig};
use crate::crypto::master::MasterKeyError;
use crate::crypto::ready::ReadyKeys;
use crate::crypto::seal::MasterKey;
use crate::crypto::signer::{Signer, SignerError};
use crate::hsm::{Hsm, HsmError};
use crate::http;
use crate::store::decisions::{self, Event};
use crate::store::{Place, Reader, Store, StoreError, meta};
use crate::token::caller::{Caller, Callers, Permission};
use crate::token::evidence::Authorities;
use token_verifier::Issuer;
use token_verifier::Refusal;
use token_verifier::{Jwks, JwksError};

/// Root certificate of release answers, PEM, in the data folder.
pub const ROOT_FILE: &str = "release-signing-root.pem";

/// Seconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// The data folder.
    #[error("could not use the data folder {path}")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("another key service runs on the data folder {0}")]
    DataDirBusy(PathBuf),
    /// The database.
    #[error("the key database is not usable")]
    Store(#[from] StoreError),
    /// The master key.
    #[error("the master key is not usable")]
    MasterKey(#[from] MasterKeyError),
    /// The vault promised something else about deleted keys.
    #[error("`recovery.{key}`: this vault was made with {recorded}, which cannot be changed to {configured}")]
    Recovery {
        /// The key of the configuration.
        key: &'static str,
        /// What the database says.
        recorded: String,
        /// What the configuration says.
        configured: String,
    },
    /// The hardware security module.
    #[error("the hardware security module is not usable")]
    Hsm(#[from] HsmError),
    /// The signing identity.
    #[error("release answers cannot be signed")]
    Signer(#[from] SignerError),
    /// An issuer.
    #[error("an issuer's keys cannot be reached")]
    Jwks(#[from] JwksError),
}

/// The running service.
pub struct AppState {
    pub(crate) base_url: String,
    pub(crate) allow_development_roots: bool,
    pub(crate) challenge: String,
    pub(crate) recovery: RecoveryConfig,
    pub(crate) store: Store,
    pub(crate) master: MasterKey,
    pub(crate) hsm: Option<Arc<Hsm>>,
    pub(crate) all_keys_in_hsm: bool,
    pub(crate) signer: Signer,
    pub(crate) ready_keys: ReadyKeys,
    pub(crate) opened_keys: OpenedKeys,
    pub(crate) callers: Callers,
    pub(crate) authorities: Authorities,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counts: Counts,
    pub(crate) last_readiness: LastReadiness,
    clock: Clock,
    /// Held while a service runs on a file; the lock goes with the process.
    _lock: Option<File>,
}

impl AppState {
    /// Opens everything that the configuration names.
    pub async fn open(config: &Config, clock: Clock) -> Result<Self, StartError> {
        let place = config.place()?;
        let folder = data_dir(&config.data_dir)?;
        // A file is for one service; what several may do on a server, the server sees to.
        let lock = matches!(place, Place::Sqlite(_)).then(|| locked(folder)).transpose()?;
        let store = Store::open(&place).await?;
        let master = master_key(config, &store).await?;
        let recovery = recovery(config.recovery, &store).await?;
        let hsm = open_hsm(config).await?;
        let signer = Signer::load(&store, &master, config.host()?, clock()).await?;
        publish_root(&config.data_dir, &signer)?;
        if config.allow_development_roots {
            tracing::warn!("evidence of development roots can release keys: allow_development_roots is set");
        }
        let callers = &config.callers;
        let gate = http::gate(config);
        Ok(Self {
            base_url: config.base_url().to_owned(),
            allow_development_roots: config.allow_development_roots,
            challenge: format!(
                "Bearer authorization=\"{}\", resource=\"{}\"",
                callers.authorization, callers.audience
            ),
            recovery,
            store,
            master,
            hsm,
            all_keys_in_hsm: config.hsm.as_ref().is_some_and(|hsm| hsm.all_keys),
            signer,
            ready_keys: ReadyKeys::default(),
            opened_keys: OpenedKeys::default(),
            callers: Callers::new(
                Issuer::new(&callers.issuer, Jwks::new(&callers.source()?)?),
                &callers.audience,
            ),
            authorities: authorities(config)?,
            counts: Counts::new(gate.metrics()),
            gate,
            last_readiness: LastReadiness::default(),
            clock,
            _lock: lock,
        })
    }

    /// Seconds since 1970.
    pub fn now(&self) -> i64 {
        (self.clock)()
    }

    /// Passes if the caller may do this; otherwise the refusal is recorded.
    pub async fn permit(
        &self,
        caller: &Caller,
        permission: Permission,
        subject: &str,
    ) -> Result<(), AppError> {
        match caller.require(permission) {
            Ok(()) => Ok(()),
            Err(denial) => Err(self.refuse(subject, denial, json!({"caller": caller.id()})).await),
        }
    }

    /// Records a refusal and turns it into the error that the caller gets.
    pub async fn refuse(&self, subject: &str, denial: Refusal, detail: Value) -> AppError {
        let event = self.event(Decision::Refused, subject, Some(denial.clone()), detail);
        let written =
            self.store.write(move |connection| Box::pin(decisions::append(connection, event))).await;
        match written {
            Ok(_) => AppError::Denied(denial),
            Err(error) => AppError::Store(error),
        }
    }

    /// An entry for the decision log.
    pub fn event(&self, decision: Decision, subject: &str, denial: Option<Refusal>, detail: Value) -> Event {
        Event {
            time: rfc3339(self.now()),
            decision,
            subject: subject.to_owned(),
            denial: denial.map(|denial| *denial),
            detail,
        }
    }
}

/// Opens the token, if there is to be one. A service that would have to refuse its keys' use does not start.
async fn open_hsm(config: &Config) -> Result<Option<Arc<Hsm>>, StartError> {
    let Some(hsm) = config.hsm.clone() else { return Ok(None) };
    let opened = tokio::task::spawn_blocking(move || Hsm::open(&hsm)).await;
    let hsm = opened.map_err(|_| HsmError::Answer("a thread"))??;
    tracing::info!(platform = hsm.platform(), "keys of -HSM types live in a hardware security module");
    Ok(Some(Arc::new(hsm)))
}

/// Loads the master key and, for a new database, records its id. Of services that start at the same time on a new
/// database, one records its own, and the others find out here whether theirs is another.
async fn master_key(config: &Config, store: &Store) -> Result<MasterKey, StartError> {
    let recorded = meta::read(store.readers(), meta::MASTER_KEY_ID).await?;
    let load = |create: bool, recorded: Option<&[u8]>| {
        let wanted = MasterKeyConfig { create, ..config.master_key.clone() };
        MasterKey::load(&wanted, recorded.map(String::from_utf8_lossy).as_deref())
    };
    let master = load(config.master_key.create, recorded.as_deref())?;
    if recorded.is_some() {
        return Ok(master);
    }
    let id = master.id().as_str().as_bytes().to_vec();
    let record = store.write(move |connection| {
        Box::pin(async move { meta::replace(connection, meta::MASTER_KEY_ID, None, id).await })
    });
    Ok(load(false, Some(&record.await?.into_inner()))?)
}

/// Holds the vault to what it promised before, and records what it promises now.
async fn recovery(configured: RecoveryConfig, store: &Store) -> Result<RecoveryConfig, StartError> {
    let bytes = serde_json::to_vec(&configured).expect("the settings have only string keys");
    let record = store.write(move |connection| {
        Box::pin(async move {
            let recorded = promised(&mut *connection).await?;
            if let Some(broken) = recorded.and_then(|recorded| broken(recorded, configured)) {
                return Ok(Err(broken));
            }
            meta::write(connection, meta::RECOVERY, &bytes).await?;
            Ok(Ok(()))
        })
    });
    record.await?.into_inner()?;
    Ok(configured)
}

/// What the vault promises about deleted keys; nothing if it was never started.
pub(super) async fn promised<'c>(
    reader: impl Into<Reader<'c>>,
) -> Result<Option<RecoveryConfig>, StoreError> {
    let bytes = meta::read(reader, meta::RECOVERY).await?;
    let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    parsed.map_err(|_| StoreError::Corrupt("set of recovery settings"))
}

/// The promise that would be broken.
fn broken(recorded: RecoveryConfig, configured: RecoveryConfig) -> Option<StartError> {
    let differs =
        |key, recorded: String, configured: String| StartError::Recovery { key, recorded, configured };
    if recorded.days != configured.days {
        return Some(differs("days", recorded.days.to_string(), configured.days.to_string()));
    }
    let taken_back = recorded.purge_protection && !configured.purge_protection;
    taken_back.then(|| differs("purge_protection", "true".to_owned(), "false".to_owned()))
}

fn authorities(config: &Config) -> Result<Authorities, StartError> {
    let issuers = config.authority.iter().map(|authority| {
        let keys = Jwks::new(&authority.source()?)?;
        Ok(Issuer::new(&authority.issuer, keys))
    });
    Ok(Authorities::new(issuers.collect::<Result<_, StartError>>()?))
}

/// Puts the root certificate of release answers where an installation can hand it on.
fn publish_root(folder: &Path, signer: &Signer) -> Result<(), StartError> {
    let failed = |source| StartError::DataDir { path: folder.to_owned(), source };
    std::fs::write(folder.join(ROOT_FILE), signer.root_pem()).map_err(failed)
}

/// Makes the folder.
pub(crate) fn data_dir(folder: &Path) -> Result<&Path, StartError> {
    let failed = |source| StartError::DataDir { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    Ok(folder)
}

/// Takes the folder's lock.
pub(crate) fn locked(folder: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir { path: folder.to_owned(), source };
    let file =
        File::options().create(true).write(true).truncate(false).open(folder.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::DataDirBusy(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

pub(crate) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).expect("the clock is within its range").to_string()
}
