//! The attestation service: evidence in, token out.
//!
//! It speaks the protocol of Azure Attestation for `SevSnpVm`, `AzureGuest` and `Tpm`. A request's way is told in [`app`]; routes are in
//! [`http`]; used nonces and the decision log are in [`store`]. What it is not: it holds no key of any VM, and it trusts
//! no caller: everything that it says in a token follows from signed evidence and its own configuration.

pub mod app;
pub mod config;
pub mod http;
pub mod reconcile;
pub mod sign_minimum_tcb;
pub mod store;
pub mod verify;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use app::access::Access;
use app::ak_authority::{AkAuthority, AkAuthorityError};
use app::appraise::{Appraiser, AppraiserConfig};
use app::attest::Service;
use app::azure_guest::policy::GuestPolicy;
use app::collateral::Collateral;
use app::counts::Counts;
use app::nonce::Nonces;
use app::policies::PolicyChangeError;
use app::sample::Sampler;
use axum::http::HeaderName;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use config::{Config, ConfigError};
use http_service::health::LastReadiness;
use http_service::server::bounded;
use http_service::{Gate, GateConfig, Metrics};
use public_api::attestation_policy::ProviderSettings;
use reconcile::revocation::Sources;
use snp::CrlScope;
use store::{Store, StoreError};

/// Why the service does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration, or a file that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What is stored of the providers: keys, policies.
    #[error("opening the stored providers")]
    Providers(#[from] PolicyChangeError),
    /// The authority for attestation keys.
    #[error(transparent)]
    AkAuthority(#[from] AkAuthorityError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data directory.
    #[error("making or reading the data directory")]
    DataDirectory(#[source] std::io::Error),
    /// The address is taken, or is not this machine's.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// TLS certificate or key.
    #[error("reading the TLS certificate and key")]
    Tls(#[source] std::io::Error),
    /// The listener failed.
    #[error("serving")]
    Serve(#[source] std::io::Error),
}

/// Builds the service from its configuration, without listening.
pub async fn service(config: &Config) -> Result<Service, RunError> {
    std::fs::create_dir_all(&config.data_dir).map_err(RunError::DataDirectory)?;
    let appraiser = Appraiser::load(&AppraiserConfig::from(config))?;
    let store = Store::open(&config.data_dir).await?;
    let root = ProviderSettings { token_algorithm: config.token_algorithm, ..ProviderSettings::default() };
    let now = jiff::Timestamp::now().as_second();
    let timeout = Duration::from_millis(config.kds_timeout_ms);
    let gate = gate(config);
    let (anchors, urls) = (appraiser.anchors().clone(), config.kds_urls.clone());
    let (limits, metrics) = (config.unknown_chips, gate.metrics());
    let collateral = Collateral::open(anchors, urls, timeout, limits, store.clone(), metrics, now).await?;
    for stored in collateral.lists().await? {
        let Some(scope) = CrlScope::from_name(&stored.key) else { continue };
        if let Err(problem) = appraiser.add_crl(scope, &stored.list) {
            tracing::warn!(problem, "a revocation list that was learnt earlier is not used");
        }
    }
    app::reference_document::load(&appraiser, &store, now).await?;
    app::boot_reference::load(appraiser.boot_references(), &store).await?;
    app::minimum_tcb::load(&appraiser, &store, config.minimum_tcb_table.as_deref(), now).await?;
    Ok(Service {
        collateral,
        appraiser,
        providers: app::providers::load(&store, &config.data_dir, &config.issuer, root, now).await?,
        nonces: Nonces::open(&config.data_dir).map_err(RunError::DataDirectory)?,
        access: Access::new(config.callers.as_ref(), &config.administrator)?,
        store,
        sampler: Sampler::default(),
        data_dir: config.data_dir.clone(),
        changing: tokio::sync::Mutex::default(),
        ak_authority: AkAuthority::open(&config.data_dir, &config.issuer)?,
        guest_policy: GuestPolicy::shipped(),
        tpm_policy: GuestPolicy::shipped_for_tpm(),
        counts: Counts::new(gate.metrics()),
        last_readiness: LastReadiness::default(),
        gate,
    })
}

fn gate(config: &Config) -> Arc<Gate> {
    let metrics = Metrics::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let adopt = config.telemetry.otlp_endpoint.is_some().then_some(telemetry::adopt as _);
    let request_id = Some(HeaderName::from_static("x-ms-request-id"));
    Gate::new(GateConfig { limits: config.limits.clone(), request_id, adopt }, metrics)
}

/// Runs until `handle` is shut down. The process has installed a rustls crypto provider before.
pub async fn run(config: Config, handle: Handle<SocketAddr>) -> Result<(), RunError> {
    let listen = |source| RunError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let tls =
        RustlsConfig::from_pem_file(&config.tls_certificate, &config.tls_key).await.map_err(RunError::Tls)?;
    let service = Arc::new(service(&config).await?);
    if service.appraiser.development_roots_allowed() {
        tracing::warn!("development roots are allowed: evidence of a software secure processor is accepted");
    }
    tracing::info!(address = %config.listen, issuer = config.issuer, "serving");
    tokio::spawn(reconcile::revocation::keep_current(Arc::clone(&service), Sources::of(&config)));
    tokio::spawn(reconcile::rotation::keep_rotating(Arc::clone(&service)));
    let prepared = Arc::clone(&service);
    tokio::task::spawn_blocking(move || prepared.appraiser.references().prepare());
    tokio::spawn(Arc::clone(service.gate.metrics()).keep_up());
    let app = http::app(service).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum_server::from_tcp_rustls(listener, tls).map_err(RunError::Serve)?;
    bounded(server, &config.limits).handle(handle).serve(app).await.map_err(RunError::Serve)
}

/// Ends the service on SIGTERM or SIGINT, giving requests that are under way some seconds.
pub async fn shut_down_on_signal(handle: Handle<SocketAddr>) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signal handlers can be installed");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signal handlers can be installed");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    handle.graceful_shutdown(Some(Duration::from_secs(5)));
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
