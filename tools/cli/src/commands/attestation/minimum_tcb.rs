//! `casemate attestation minimum-tcb`: the signed table of minimum patch levels. `casemate-attestation sign-minimum-tcb` signs one.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use public_api::client::Connection;
use public_api::collateral::{MinimumTcbDryRun, MinimumTcbInForce, PatchLevels};
use reqwest::Method;

use super::read_text;
use crate::printer::Printer;
use crate::profile::Profile;

/// What to do with the table.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What is in force.
    Show,
    /// Put a table in force. A lower sequence than that in force is refused.
    Set {
        /// The signed table (JWS).
        file: PathBuf,
    },
    /// Which VMs and chips a table would refuse.
    DryRun {
        /// The table, signed (JWS) or not (JSON).
        file: PathBuf,
    },
}

/// Runs the command.
pub async fn run(command: Command, profile: &Profile, printer: &Printer) -> Result<()> {
    let service = profile.attestation_client().await?.0;
    match command {
        Command::Show => show(&service.get("/minimumTcb").await?, printer),
        Command::Set { file } => {
            show(&service.exchange(Method::PUT, "/minimumTcb", &read_text(&file)?).await?, printer)
        }
        Command::DryRun { file } => dry_run(&service, &read_text(&file)?, printer).await,
    }
}

fn show(in_force: &MinimumTcbInForce, printer: &Printer) -> Result<()> {
    let mut rows = Vec::new();
    match &in_force.table {
        None => printer.note("no table is in force"),
        Some(table) => {
            printer.note(&format!("sequence {}, issued on {}", table.sequence, table.issued_on));
            for (product, requirements) in &table.products {
                rows.extend(requirements.iter().map(|one| {
                    vec![product.clone(), one.bulletin.clone(), one.date.clone(), levels(&one.minimum)]
                }));
            }
        }
    }
    printer.result(&serde_json::to_value(in_force)?, &["product", "bulletin", "date", "at least"], rows);
    Ok(())
}

fn levels(minimum: &PatchLevels) -> String {
    let parts = [
        ("fmc", minimum.fmc),
        ("bootloader", minimum.bootloader),
        ("tee", minimum.tee),
        ("snp", minimum.snp),
        ("microcode", minimum.microcode),
    ];
    let given = parts.iter().filter_map(|(name, level)| level.map(|level| format!("{name} {level}")));
    given.collect::<Vec<_>>().join(", ")
}

async fn dry_run(service: &Connection, table: &str, printer: &Printer) -> Result<()> {
    let result: MinimumTcbDryRun = service.exchange(Method::POST, "/minimumTcb:dryRun", table).await?;
    let vms = result.refused.iter().map(|one| {
        vec![one.provider.clone(), one.subject.clone(), one.chip_id.clone(), one.denial.to_string()]
    });
    let idle = result.refused_idle_chips.iter().map(|chip| {
        let why = format!("{} at {}, without a VM", chip.product, chip.tcb);
        vec!["-".to_owned(), "-".to_owned(), chip.chip_id.clone(), why]
    });
    let rows = vms.chain(idle).collect();
    printer.result(&serde_json::to_value(&result)?, &["provider", "vm", "chip", "why"], rows);
    printer.note(&format!(
        "looked at the evidence of {} VMs: permits {}, refuses those of {} chips",
        result.evaluated,
        result.permitted,
        result.refused_chips.len()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_levels_are_shown() {
        let minimum = PatchLevels { snp: Some(24), microcode: Some(219), ..PatchLevels::default() };
        assert_eq!(levels(&minimum), "snp 24, microcode 219");
        assert_eq!(levels(&PatchLevels::default()), "");
    }
}
