//! `casemate status`: what runs, where it listens, and what is trusted.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::arm::text;
use crate::platform::lock;
use crate::printer::Printer;
use crate::profile::Profile;

/// Runs the command.
pub async fn run(data_dir: &Path, printer: &Printer) -> Result<()> {
    let profile = Profile::load(data_dir)?;
    let running = lock::holder(data_dir)?;
    let services = [
        ("control plane", &profile.control_plane),
        ("attestation service", &profile.attestation),
        ("key service", &profile.keys),
    ];
    let mut rows = Vec::new();
    let mut value = json!({"dataDirectory": data_dir, "supervisor": running, "services": {}});
    for (name, url) in services {
        let health = health(&profile, url).await;
        rows.push(vec![name.to_owned(), url.clone(), text(&health["status"])]);
        value["services"][name] = json!({"url": url, "health": health});
    }
    printer.result(&value, &["service", "address", "health"], rows);
    let trust = match &profile.development_root {
        Some(_) => "development: a software secure processor; the operator of this machine can read every VM",
        None => "AMD",
    };
    printer.note(&format!("trust root: {trust}"));
    printer.note(&format!("data directory: {}", data_dir.display()));
    Ok(())
}

/// A service's own word on its health, or why there is none.
pub async fn health(profile: &Profile, url: &str) -> Value {
    let answer = match profile.connect(url) {
        Ok(connection) => connection.get::<Value>("/health").await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| json!({"status": format!("not reachable ({error})")}))
}
