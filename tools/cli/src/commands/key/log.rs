//! `casemate key log`: what happened to keys. `casemate log` shows it together with the attestation service's.

use anyhow::{Context as _, Result};
use clap::Args;
use public_api::client::KeyClient;
use public_api::decision_log::{Entry, verify};
use serde_json::json;

use super::key_name;
use crate::commands::log::{row, whole};
use crate::printer::Printer;

/// Which entries.
#[derive(Debug, Args)]
pub struct Log {
    /// Only entries about this key.
    #[arg(value_parser = key_name)]
    name: Option<String>,
    /// Only refusals.
    #[arg(long)]
    refused: bool,
    /// How many of the newest entries to show.
    #[arg(long, default_value_t = 20)]
    last: usize,
}

impl Log {
    fn wants(&self, entry: &Entry) -> bool {
        let key = entry.subject.rsplit_once("keys/").map(|(_, key)| key.split('/').next().unwrap_or(key));
        let about =
            self.name.as_deref().is_none_or(|name| key.is_some_and(|key| key.eq_ignore_ascii_case(name)));
        about && (!self.refused || entry.denial.is_some())
    }
}

/// Reads the whole log, proves it, shows its end.
pub async fn run(log: &Log, keys: &KeyClient, printer: &Printer) -> Result<()> {
    let entries = whole(|after| keys.log(after)).await?;
    let count = verify(None, &entries).context("the log of the key service")?;
    printer.note(&format!("{count} entries, the chain is whole"));
    let wanted: Vec<(&str, &Entry)> =
        entries.iter().filter(|entry| log.wants(entry)).map(|entry| ("keys", entry)).collect();
    let shown = &wanted[wanted.len().saturating_sub(log.last)..];
    let value = json!(shown.iter().map(|(_, entry)| entry).collect::<Vec<_>>());
    let rows = shown.iter().map(row).collect();
    printer.result(&value, &["time", "service", "decision", "subject", "why"], rows);
    Ok(())
}
