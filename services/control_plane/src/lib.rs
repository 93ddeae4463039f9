//! The control plane: Resource Manager's front door, tokens, durable state, and the reconcilers that bring VMs to life.
//!
//! It holds public metadata only. Keys lie in the key service and are released to attested VMs; evidence is kept to be
//! shown, never judged. What it is not: a party that a tenant trusts with anything but availability.

pub mod app;
pub mod config;
pub mod http;
pub mod identity;
pub mod reconcile;
pub mod store;

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum_server::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use zeroize::Zeroizing;

use crate::app::ControlPlane;
use crate::app::images::Catalogue;
use crate::config::{Config, ConfigError, read_text};
use crate::identity::{Directory, SigningKey, SigningKeyError, TokenAuthority, load_secret};
use crate::reconcile::attestation_service::AttestationService;
use crate::reconcile::key_service::KeyService;
use crate::reconcile::vault_service::VaultService;
use crate::reconcile::{FaultPlan, Probe, Reconcilers};
use crate::store::{Store, StoreError};

/// An error and its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Configuration.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// Signing key.
    #[error("there is no key to sign tokens with")]
    SigningKey(#[from] SigningKeyError),
    /// Database.
    #[error("the database is not usable")]
    Store(#[from] StoreError),
    /// TLS refused a key or certificate.
    #[error("TLS does not accept a certificate or key")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A PEM file.
    #[error("{path} is not usable: {reason}")]
    Material {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A directory or port.
    #[error("cannot use {what}")]
    System {
        /// Directory or address.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key service's client.
    #[error("the key service's client cannot be set up: {0}")]
    KeyService(String),
    /// The attestation service's client.
    #[error("the attestation service's client cannot be set up: {0}")]
    AttestationService(String),
}

/// A running control plane.
pub struct Running {
    /// Where the public interface listens.
    pub public: SocketAddr,
    /// Where the host interface listens.
    pub hosts: SocketAddr,
    /// Shared state.
    pub app: Arc<ControlPlane>,
    handles: [Handle<SocketAddr>; 2],
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(system("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("SIGINT"))?;
    let running = start(config, Arc::new(FaultPlan)).await?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
    }
    running.stop().await;
    Ok(())
}

/// Starts both interfaces and the reconcilers.
pub async fn start(config: Config, probe: Arc<dyn Probe>) -> Result<Running, StartError> {
    let app = Arc::new(assemble(config).await?);
    let keys = KeyService::new(&app.config.keys, app.tokens.clone(), app.directory.home())
        .map_err(|error| StartError::KeyService(chain(&*error)))?;
    let attestation =
        AttestationService::new(&app).map_err(|error| StartError::AttestationService(chain(&error)))?;
    let public = listen(app.config.listen)?;
    let hosts = listen(app.config.hosts.listen)?;
    let vaults = VaultService::new(&app).map_err(|error| StartError::KeyService(chain(&*error)))?;
    let public_tls = http::public_server(&app.config.tls_certificate, &app.config.tls_key)?;
    let section = &app.config.hosts;
    let host_tls = http::host_server(&section.tls_certificate, &section.tls_key, &section.client_ca)?;
    let handles = [Handle::new(), Handle::new()];
    let addresses = [address(&public)?, address(&hosts)?];
    info!(public = %addresses[0], hosts = %addresses[1], "listening");
    let reconcilers =
        Reconcilers { app: app.clone(), keys, vaults, attestation, polled: Arc::default(), probe };
    let tasks = vec![
        tokio::spawn(serve("public", public, public_tls, handles[0].clone(), http::router(app.clone()))),
        tokio::spawn(serve("host", hosts, host_tls, handles[1].clone(), http::host_router(app.clone()))),
        tokio::spawn(reconcilers.run()),
    ];
    Ok(Running { public: addresses[0], hosts: addresses[1], app, handles, tasks })
}

async fn serve(
    name: &'static str,
    listener: TcpListener,
    tls: rustls::ServerConfig,
    handle: Handle<SocketAddr>,
    router: axum::Router,
) {
    if let Err(error) = http::serve(listener, tls, handle, router).await {
        tracing::error!("the {name} interface ended: {error}");
    }
}

/// Opens what the control plane keeps on disk.
pub async fn assemble(config: Config) -> Result<ControlPlane, StartError> {
    config.check()?;
    let directory = &config.data_dir;
    std::fs::create_dir_all(directory).map_err(system(&directory.display().to_string()))?;
    let key = SigningKey::load(&directory.join("token-signing-key.pem"))?;
    let audiences = vec![
        config.public_url.clone(),
        "https://management.azure.com".to_owned(),
        "https://management.core.windows.net".to_owned(),
    ];
    Ok(ControlPlane {
        store: Store::open(&directory.join("control-plane.sqlite")).await?,
        tokens: TokenAuthority::new(key, &config.public_url, audiences),
        directory: Directory::new(&config.identity)?,
        catalogue: Catalogue::new(&config.image_dir),
        trust_bundle: read_text(&config.trust_bundle)?,
        url_key: Arc::new(url_key(&directory.join("url-key"))?),
        config,
    })
}

fn url_key(path: &Path) -> Result<hmac::Key, StartError> {
    let secret = load_secret(path, || {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SigningKeyError::Generate)?;
        Ok(bytes)
    })?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).map_err(system(&address.to_string()))?;
    listener.set_nonblocking(true).map_err(system(&address.to_string()))?;
    Ok(listener)
}

fn address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(system("a listening socket"))
}

fn system(what: &str) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.to_owned();
    move |source| StartError::System { what, source }
}

impl Running {
    /// Stops: open requests get a moment, then the database is closed.
    pub async fn stop(self) {
        for handle in &self.handles {
            handle.graceful_shutdown(Some(Duration::from_millis(500)));
        }
        let mut tasks = self.tasks;
        if let Some(reconcilers) = tasks.pop() {
            reconcilers.abort();
            let _ = reconcilers.await;
        }
        for task in tasks {
            let _ = task.await;
        }
        self.app.store.close().await;
    }

    /// Ends everything where it stands, as a crash would.
    pub fn kill(self) {
        for handle in &self.handles {
            handle.shutdown();
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}
