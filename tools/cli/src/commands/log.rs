//! `casemate log`: the decision logs of the attestation and the key service, and the proof that they are whole.

use std::path::Path;

use anyhow::{Context, Result};
use public_api::decision_log::{Entry, verify};
use serde_json::json;

use crate::printer::Printer;
use crate::profile::Profile;

/// Which entries.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only entries about this VM or key.
    #[arg(long)]
    subject: Option<String>,
    /// Only refusals.
    #[arg(long)]
    refused: bool,
    /// How many of the newest entries of each log to show.
    #[arg(long, default_value_t = 20)]
    last: usize,
}

/// Runs the command.
pub async fn run(arguments: &Arguments, data_dir: &Path, printer: &Printer) -> Result<()> {
    let profile = Profile::load(data_dir)?;
    let attestation = profile.attestation_client().await?;
    let keys = profile.key_client().await?;
    let logs = [
        (
            "attestation",
            whole(|after| attestation.log(after)).await.context("the attestation service's log")?,
        ),
        ("keys", whole(|after| keys.log(after)).await.context("the key service's log")?),
    ];
    let mut shown = Vec::new();
    for (service, entries) in &logs {
        let count = verify(None, entries).with_context(|| format!("the log of the {service} service"))?;
        printer.note(&format!("{service}: {count} entries, the chain is whole"));
        let wanted: Vec<&Entry> = entries.iter().filter(|entry| arguments.wants(entry)).collect();
        let skip = wanted.len().saturating_sub(arguments.last);
        shown.extend(wanted.into_iter().skip(skip).map(|entry| (*service, entry)));
    }
    shown.sort_by(|(_, a), (_, b)| a.time.cmp(&b.time));
    let value = json!(
        shown.iter().map(|(service, entry)| json!({"service": service, "entry": entry})).collect::<Vec<_>>()
    );
    printer.result(
        &value,
        &["time", "service", "decision", "subject", "why"],
        shown.iter().map(row).collect(),
    );
    Ok(())
}

impl Arguments {
    fn wants(&self, entry: &Entry) -> bool {
        let about = self.subject.as_ref().is_none_or(|subject| entry.subject.contains(subject.as_str()));
        about && (!self.refused || entry.denial.is_some())
    }
}

/// Reads a log from its beginning to its end.
pub async fn whole<F, T>(read: F) -> Result<Vec<Entry>, public_api::client::ClientError>
where
    F: Fn(u64) -> T,
    T: Future<Output = Result<Vec<Entry>, public_api::client::ClientError>>,
{
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry| entry.sequence);
        let page = read(after).await?;
        if page.is_empty() {
            return Ok(entries);
        }
        entries.extend(page);
    }
}

/// An entry as people read it.
pub fn row((service, entry): &(&str, &Entry)) -> Vec<String> {
    let why = entry.denial.as_ref().map_or_else(
        || crate::arm::text(&entry.detail),
        |denial| {
            format!("{}: {} expected {}, found {}", denial.code, denial.claim, denial.expected, denial.actual)
        },
    );
    let why = why.chars().take(160).collect();
    vec![
        entry.time.clone(),
        (*service).to_owned(),
        format!("{:?}", entry.decision),
        entry.subject.clone(),
        why,
    ]
}
