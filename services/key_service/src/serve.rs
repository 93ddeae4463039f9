//! Start, serve over TLS, stop.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum_server::Handle;
use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use http_service::server::bounded;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::StartError;
use crate::config::Config;
use crate::reconcile;
use crate::vaults::{self, Vaults};

/// Requests in flight get this long at a stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error("the key service could not start")]
    Start(#[from] StartError),
    /// The address is taken or not allowed.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("could not use the TLS certificate {certificate} with its key {key}")]
    Tls {
        /// PEM chain.
        certificate: PathBuf,
        /// PEM key.
        key: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server or a signal handler.
    #[error("the server failed")]
    Serve(#[source] std::io::Error),
    /// The database's writer.
    #[error("the key database stopped taking writes")]
    WriterEnded,
}

/// Runs until SIGTERM or SIGINT. A rustls crypto provider must be installed before.
pub async fn run(config: Config) -> Result<(), RunError> {
    let listen_failed = |source| RunError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).map_err(listen_failed)?;
    listener.set_nonblocking(true).map_err(listen_failed)?;
    let tls = tls(&config)?;
    let stop = (terminate(SignalKind::terminate())?, terminate(SignalKind::interrupt())?);
    let all = Vaults::open(config.clone(), Arc::new(unix_time)).await?;
    let state = all.default_vault();
    if let Err(error) = state.common.ready_keys.start() {
        tracing::warn!(%error, "no keys are made ahead; each is made while its caller waits");
    }
    let loops = [
        tokio::spawn(reconcile::prune::run(all.clone())),
        tokio::spawn(reconcile::forget::run(all.clone())),
        tokio::spawn(reconcile::rotate::run(all.clone())),
        tokio::spawn(reconcile::sweep::run(all.clone())),
        tokio::spawn(vaults::upkeep::run(all.clone())),
        tokio::spawn(Arc::clone(state.gate.metrics()).keep_up()),
    ];
    let handle = Handle::<SocketAddr>::new();
    tracing::info!(listen = %config.listen, "the key service is ready");
    let server = from_tcp_rustls(listener, tls).map_err(RunError::Serve)?;
    let server = bounded(server, &config.limits).handle(handle.clone());
    let app = vaults::app(all.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let server = server.serve(app);
    let mut server = std::pin::pin!(server);
    let ended = tokio::select! {
        result = &mut server => result.map_err(RunError::Serve),
        () = state.store.ended() => Err(RunError::WriterEnded),
        () = signalled(stop) => {
            handle.graceful_shutdown(Some(STOP_GRACE));
            server.await.map_err(RunError::Serve)
        }
    };
    loops.iter().for_each(tokio::task::JoinHandle::abort);
    ended
}

fn terminate(kind: SignalKind) -> Result<Signal, RunError> {
    signal(kind).map_err(RunError::Serve)
}

async fn signalled((mut terminate, mut interrupt): (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
}

fn tls(config: &Config) -> Result<RustlsConfig, RunError> {
    let (certificate, key) = (config.tls_certificate.clone(), config.tls_key.clone());
    let server = server_config(config).map_err(|source| RunError::Tls { certificate, key, source })?;
    Ok(RustlsConfig::from_config(Arc::new(server)))
}

fn server_config(config: &Config) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&config.tls_certificate)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&config.tls_key)?;
    let mut server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}

fn unix_time() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(elapsed.as_secs()).expect("the clock is within its range")
}
