//! Serial logs: a URL that works for a while without a token, as Azure's boot diagnostics give it.
//!
//! The log shows what a guest prints on its serial port; it is the operator's to see and holds nothing confidential.

use aws_lc_rs::hmac;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use public_api::encoding::{from_base64_any, to_base64url};
use serde_json::json;

use super::{App, Call, reply, virtual_machines};
use crate::app::now_seconds;
use crate::app::refusal::{Kind, Refusal};

/// How long a URL works if the caller does not say; the same as Azure's.
const DEFAULT_MINUTES: i64 = 120;
/// No more than this much of a log's end is sent.
const LONGEST: u64 = 16 << 20;

/// `POST .../retrieveBootDiagnosticsData`.
pub async fn retrieve(app: App, call: Call) -> Result<Response, Refusal> {
    let vm = virtual_machines::find(&app, &call.place("vm")).await?;
    if app.config.serial_log.is_none() {
        let message = "This installation's control plane cannot read its hosts' serial logs.";
        return Err(Refusal::conflict("BootDiagnosticsNotAvailable", message));
    }
    let minutes = call.query("sasUriExpirationTimeInMinutes").and_then(|text| text.parse::<i64>().ok());
    let minutes = minutes.unwrap_or(DEFAULT_MINUTES).clamp(1, 1440);
    let expiry = now_seconds() + minutes * 60;
    let signature = to_base64url(hmac::sign(&app.url_key, &signed_text(&vm.vm_id, expiry)).as_ref());
    let url = format!("{}/serial-logs/{}?se={expiry}&sig={signature}", app.config.public_url, vm.vm_id);
    Ok(reply::ok(&json!({"serialConsoleLogBlobUri": url})))
}

fn signed_text(vm_id: &str, expiry: i64) -> Vec<u8> {
    format!("serial-log\n{vm_id}\n{expiry}").into_bytes()
}

/// `GET /serial-logs/{vm}?se=...&sig=...`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    let vm_id = call.parameter("vm");
    if !is_signed(&app, &call, vm_id) {
        let message = "The URL's signature is wrong or its time is over; ask for a new one.";
        return Err(Refusal::new(Kind::Forbidden, "AuthenticationFailed", message));
    }
    let vms = app.store.vms().await?;
    let vm = vms.iter().find(|vm| vm.vm_id == vm_id);
    let path = vm.and_then(|vm| app.config.serial_log_path(&vm.vm_id, &vm.resource.name));
    let missing = || Refusal::new(Kind::NotFound, "BlobNotFound", "There is no serial log yet.");
    let text = read_end(&path.ok_or_else(missing)?).await.map_err(|_| missing())?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

fn is_signed(app: &App, call: &Call, vm_id: &str) -> bool {
    let expiry = call.query("se").and_then(|text| text.parse::<i64>().ok());
    let signature = call.query("sig").and_then(|text| from_base64_any(text).ok());
    let (Some(expiry), Some(signature)) = (expiry, signature) else { return false };
    let right = hmac::verify(&app.url_key, &signed_text(vm_id, expiry), &signature).is_ok();
    right && now_seconds() < expiry
}

async fn read_end(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let mut file = tokio::fs::File::open(path).await?;
    let length = file.metadata().await?.len();
    file.seek(std::io::SeekFrom::Start(length.saturating_sub(LONGEST))).await?;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).await?;
    Ok(text)
}
