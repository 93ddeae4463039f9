//! The key distribution service's double: the addresses of AMD 57230 chapter 4, over plain HTTP on loopback.

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
        .route("/vcek/v1/{product}/cert_chain", get(chain))
        .route("/vcek/v1/{product}/crl", get(crl))
        .route("/vcek/v1/{product}/{hwid}", get(vcek))
        .with_state(authority)
}

async fn chain(State(authority): State<Arc<Authority>>, Path(product): Path<String>) -> Response {
    match is_ours(&authority, &product) {
        false => StatusCode::NOT_FOUND.into_response(),
        true => ([(CONTENT_TYPE, "application/x-pem-file")], authority.chain_pem()).into_response(),
    }
}

async fn crl(State(authority): State<Arc<Authority>>, Path(product): Path<String>) -> Response {
    if !is_ours(&authority, &product) {
        return StatusCode::NOT_FOUND.into_response();
    }
    der(authority.crl(jiff::Timestamp::now().as_second()))
}

async fn vcek(
    State(authority): State<Arc<Authority>>,
    Path((product, hwid)): Path<(String, String)>,
    Query(levels): Query<BTreeMap<String, String>>,
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

/// Patch levels of the query; a level that is not given is zero, one that is not a number or unknown is an error.
fn tcb(levels: &BTreeMap<String, String>, product: Product) -> Option<TcbVersion> {
    const KNOWN: [&str; 5] = ["blSPL", "teeSPL", "snpSPL", "ucodeSPL", "fmcSPL"];
    if levels.keys().any(|name| !KNOWN.contains(&name.as_str())) {
        return None;
    }
    let level = |name: &str| levels.get(name).map_or(Some(0), |text| text.parse::<u8>().ok());
    Some(TcbVersion {
        fmc: if product == Product::Turin { Some(level("fmcSPL")?) } else { None },
        boot_loader: level("blSPL")?,
        tee: level("teeSPL")?,
        snp: level("snpSPL")?,
        microcode: level("ucodeSPL")?,
        reserved: [0; 4],
    })
}
