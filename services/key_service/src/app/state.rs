//! What the service holds while it runs, and how it is put together.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use http_service::health::LastReadiness;
use http_service::{Gate, Metrics};
use public_api::decision_log::Decision;
use serde_json::{Value, json};

use super::AppError;
use super::counts::Counts;
use super::opened::OpenedKeys;
use super::recent::RecentRecords;
use crate::config::{Config, ConfigError, MasterKeyConfig, RecoveryConfig};
use crate::crypto::master::MasterKeyError;
use crate::crypto::ready::ReadyKeys;
use crate::crypto::seal::MasterKey;
use crate::crypto::signer::{Signer, SignerError};
use crate::hsm::{Hsm, HsmError};
use crate::http;
use crate::store::decisions::Event;
use crate::store::{self, Place, Reader, Store, StoreError, meta};
use crate::token::access::{Access, On};
use crate::token::caller::{Caller, Callers};
use crate::token::evidence::Authorities;
use crate::token::permission::Permission;
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
    /// A database that was put in the place of a vault's own.
    #[error("the database in {0} is another vault's: it was sealed under another key")]
    ForeignDatabase(PathBuf),
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

/// What all vaults of a process share.
#[derive(Clone)]
pub(crate) struct Common {
    pub allow_development_roots: bool,
    pub authorities: Arc<Authorities>,
    /// With which bearer tokens are signed, whatever tenant they are of.
    pub caller_keys: Arc<Jwks>,
    pub ready_keys: Arc<ReadyKeys>,
    pub hsm: Option<Arc<Hsm>>,
    pub all_keys_in_hsm: bool,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// What a vault has of its own.
pub(crate) struct Own {
    /// Where its files lie.
    pub folder: PathBuf,
    /// DNS name in its signing certificate.
    pub host: String,
    /// The start of every key id.
    pub base_url: String,
    /// Where callers get tokens, as the challenge says it.
    pub authorization: String,
    /// The audience of their tokens.
    pub audience: String,
    pub callers: Callers,
    pub rules: Rules,
}

/// What may change while a vault runs.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub recovery: RecoveryConfig,
    pub access: Access,
}

/// A running vault.
pub struct AppState {
    pub(crate) base_url: String,
    pub(crate) challenge: String,
    pub(crate) store: Store,
    pub(crate) master: MasterKey,
    pub(crate) signer: Signer,
    pub(crate) opened_keys: OpenedKeys,
    pub(crate) recent_records: RecentRecords,
    pub(crate) callers: Callers,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counts: Counts,
    pub(crate) last_readiness: LastReadiness,
    pub(crate) common: Common,
    rules: RwLock<Arc<Rules>>,
    /// Held while a service runs on a file; the lock goes with the process.
    _lock: Option<File>,
}

impl AppState {
    /// Opens the default vault, with everything that the configuration names.
    pub async fn open(config: &Config, clock: Clock) -> Result<Self, StartError> {
        let place = config.place()?;
        let folder = data_dir(&config.data_dir)?;
        // A file is for one service; what several may do on a server, the server sees to.
        let lock = matches!(place, Place::Sqlite(_)).then(|| locked(folder)).transpose()?;
        let store = Store::open(&place).await?;
        let master = master_key(config, &store).await?;
        if config.allow_development_roots {
            tracing::warn!("evidence of development roots can release keys: allow_development_roots is set");
        }
        let callers = &config.callers;
        let common = common(config, clock).await?;
        let issuer = Issuer::new(&callers.issuer, Arc::clone(&common.caller_keys));
        let own = Own {
            folder: config.data_dir.clone(),
            host: config.host()?.to_owned(),
            base_url: config.base_url().to_owned(),
            authorization: callers.authorization.clone(),
            audience: callers.audience.clone(),
            callers: Callers::new(issuer, &callers.audience),
            rules: Rules { recovery: config.recovery, access: Access::AppRoles },
        };
        Self::assemble(config, common, own, (lock, store, master)).await
    }

    /// Opens a named vault of the installation whose default vault this is.
    pub(crate) async fn open_named(&self, config: &Config, id: &str, own: Own) -> Result<Self, StartError> {
        let lock = Some(locked(data_dir(&own.folder)?)?);
        let store = Store::open(&Place::Sqlite(own.folder.join(store::FILE))).await?;
        let master = self.master.for_vault(id);
        if !is_sealed_under(&master, &store).await? {
            return Err(StartError::ForeignDatabase(own.folder));
        }
        Self::assemble(config, self.common.clone(), own, (lock, store, master)).await
    }

    async fn assemble(
        config: &Config,
        common: Common,
        own: Own,
        (lock, store, master): (Option<File>, Store, MasterKey),
    ) -> Result<Self, StartError> {
        let rules = Rules { recovery: recovery(own.rules.recovery, &store).await?, ..own.rules };
        let signer = Signer::load(&store, &master, &own.host, (common.clock)()).await?;
        publish_root(&own.folder, &signer)?;
        Ok(Self {
            base_url: own.base_url,
            challenge: format!(
                "Bearer authorization=\"{}\", resource=\"{}\"",
                own.authorization, own.audience
            ),
            store,
            master,
            signer,
            callers: own.callers,
            opened_keys: OpenedKeys::default(),
            recent_records: RecentRecords::default(),
            counts: Counts::new(&common.metrics),
            gate: http::gate(config, &common.metrics),
            last_readiness: LastReadiness::default(),
            common,
            rules: RwLock::new(Arc::new(rules)),
            _lock: lock,
        })
    }

    /// What holds now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these hold. They are promised in the database before.
    pub(crate) async fn set_rules(&self, rules: Rules) -> Result<(), StartError> {
        recovery(rules.recovery, &self.store).await?;
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(())
    }

    /// Seconds since 1970.
    pub fn now(&self) -> i64 {
        (self.common.clock)()
    }

    /// Passes if the caller may do this; otherwise the refusal is recorded.
    pub async fn permit(&self, caller: &Caller, permission: Permission, on: On<'_>) -> Result<(), AppError> {
        match self.rules().access.require(caller, permission, on) {
            Ok(()) => Ok(()),
            Err(denial) => {
                let detail = json!({"caller": caller.id(), "object": caller.object_id()});
                Err(self.refuse(&on.subject(), denial, detail).await)
            }
        }
    }

    /// Records a refusal and turns it into the error that the caller gets.
    pub async fn refuse(&self, subject: &str, denial: Refusal, detail: Value) -> AppError {
        let event = self.event(Decision::Refused, subject, Some(denial.clone()), detail);
        match self.store.append(event).await {
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

async fn common(config: &Config, clock: Clock) -> Result<Common, StartError> {
    Ok(Common {
        allow_development_roots: config.allow_development_roots,
        authorities: Arc::new(authorities(config)?),
        caller_keys: Arc::new(Jwks::new(&config.callers.source()?)?),
        ready_keys: Arc::default(),
        hsm: open_hsm(config).await?,
        all_keys_in_hsm: config.hsm.as_ref().is_some_and(|hsm| hsm.all_keys),
        metrics: Metrics::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
        clock,
    })
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

/// Whether a database is new, or was sealed under this key before.
async fn is_sealed_under(key: &MasterKey, store: &Store) -> Result<bool, StartError> {
    match meta::read(store.readers(), meta::MASTER_KEY_ID).await? {
        Some(recorded) => Ok(recorded == key.id().as_str().as_bytes()),
        None => record_key(key, store).await.map(|()| true),
    }
}

async fn record_key(key: &MasterKey, store: &Store) -> Result<(), StartError> {
    let id = key.id().as_str().as_bytes().to_vec();
    let record = store.write(move |connection| {
        Box::pin(async move { meta::write(connection, meta::MASTER_KEY_ID, &id).await })
    });
    Ok(record.await.map(drop)?)
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
