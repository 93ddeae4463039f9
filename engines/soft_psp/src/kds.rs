//! The key distribution service's double: the addresses of AMD 57230, over plain HTTP on loopback.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use snp::{Product, TcbVersion};
use tokio::signal::unix::{SignalKind, signal};

use crate::RunError;
use crate::authority::Authority;
use crate::config::Config;

/// Serves until SIGTERM or SIGINT.
pub fn serve(config: &Config, authority: Arc<Authority>) -> Result<(), RunError> {
    let on = |source| RunError::Listen { on: config.kds_listen.to_string(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(on)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(config.kds_listen).await.map_err(on)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(on)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(on)?;
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        axum::serve(listener, router(authority)).with_graceful_shutdown(stop).await.map_err(on)
    })
}

fn router(authority: Arc<Authority>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/vcek/v1/{product}/cert_chain", get(chain))
        .route("/vcek/v1/{product}/crl", get(crl))
        .route("/vcek/v1/{product}/{hwid}", get(vcek))
        .route("/vlek/v1/{product}/cert_chain", get(vlek_chain))
        .route("/vlek/v1/{product}/crl", get(crl))
        .with_state(authority)
}

/// What runs here, and that its root is nobody's but this installation's.
async fn health(State(authority): State<Arc<Authority>>) -> Response {
    let body = format!(
        r#"{{"status":"ok","version":"{}","trustRoot":"development","trustRootId":"{}","product":"{}"}}"#,
        env!("CARGO_PKG_VERSION"),
        hex::encode(authority.root_id()),
        authority.product()
    );
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

async fn chain(State(authority): State<Arc<Authority>>, Path(product): Path<String>) -> Response {
    match is_ours(&authority, &product) {
        false => StatusCode::NOT_FOUND.into_response(),
        true => ([(CONTENT_TYPE, "application/x-pem-file")], authority.chain_pem()).into_response(),
    }
}

async fn vlek_chain(State(authority): State<Arc<Authority>>, Path(product): Path<String>) -> Response {
    match authority.vlek_chain_pem().filter(|_| is_ours(&authority, &product)) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(chain) => ([(CONTENT_TYPE, "application/x-pem-file")], chain).into_response(),
    }
}

/// One list for both kinds of keys: the root revokes nothing.
async fn crl(State(authority): State<Arc<Authority>>, Path(product): Path<String>) -> Response {
    if !is_ours(&authority, &product) {
        return StatusCode::NOT_FOUND.into_response();
    }
    der(authority.crl(jiff::Timestamp::now().as_second()))
}

async fn vcek(
    State(authority): State<Arc<Authority>>,
    Path((product, hwid)): Path<(String, String)>,
    Query(levels): Query<Vec<(String, String)>>,
) -> Response {
    let chip = authority.chip_id();
    let own = hex::encode(&chip[..authority.product().chip_id_len()]);
    if !is_ours(&authority, &product) || !hwid.eq_ignore_ascii_case(&own) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match tcb(&levels, authority.product()) {
        None => StatusCode::BAD_REQUEST.into_response(),
        Some(tcb) if !authority.tcb().at_least(tcb) => StatusCode::NOT_FOUND.into_response(),
        Some(tcb) => der(authority.vcek(tcb)),
    }
}

fn is_ours(authority: &Authority, product: &str) -> bool {
    authority.product().name() == product
}

fn der(made: Result<Vec<u8>, crate::authority::AuthorityError>) -> Response {
    match made {
        Ok(bytes) => ([(CONTENT_TYPE, "application/pkix-cert")], bytes).into_response(),
        Err(error) => {
            tracing::error!(%error, "a certificate could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Patch levels of the query; a level that is not given is zero, one that is not a number, unknown or given twice is an
/// error.
fn tcb(levels: &[(String, String)], product: Product) -> Option<TcbVersion> {
    let mut given = BTreeMap::new();
    for (name, text) in levels {
        let level: u8 = text.parse().ok()?;
        let known = ["blSPL", "teeSPL", "snpSPL", "ucodeSPL", "fmcSPL"].contains(&name.as_str());
        if !known || given.insert(name.as_str(), level).is_some() {
            return None;
        }
    }
    let level = |name: &str| given.get(name).copied().unwrap_or(0);
    Some(TcbVersion {
        fmc: (product == Product::Turin).then(|| level("fmcSPL")),
        boot_loader: level("blSPL"),
        tee: level("teeSPL"),
        snp: level("snpSPL"),
        microcode: level("ucodeSPL"),
        reserved: [0; 4],
    })
}
