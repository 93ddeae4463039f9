//! `casemate attestation collateral`: certificates and revocation lists, and where they come from.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use public_api::client::Connection;
use public_api::collateral::{BundleImported, CollateralBundle, PrefetchRequest, Prefetched};
use public_api::encoding::to_base64url;
use reqwest::Method;
use serde_json::{Value, json};

use super::{read_text, write_or_print};
use crate::arm::text;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// A chip whose certificate is wanted.
#[derive(Debug, Args)]
pub struct Chip {
    /// Milan, Genoa or Turin.
    #[arg(long, requires_all = ["chip_id", "tcb"], required_unless_present = "report")]
    product: Option<String>,
    /// Hex, as the claim `x-casemate-chip-id` has it.
    #[arg(long)]
    chip_id: Option<String>,
    /// Hex, as the claim `x-casemate-reported-tcb` has it.
    #[arg(long)]
    tcb: Option<String>,
    /// An attestation report of the chip, instead of the three.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["product", "chip_id", "tcb"])]
    report: Option<PathBuf>,
}

/// What to do with collateral.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trusted roots, until when their revocation lists hold, and which servers rest and why.
    Status,
    /// Everything that the service has, for one that cannot reach AMD's servers.
    Export {
        /// Where to write it; standard output if not given.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Take what another service exported. Every item is verified first; one bad item refuses the whole.
    Import {
        /// The exported file.
        file: PathBuf,
    },
    /// Fetch the certificate of a chip before its first VM attests.
    Prefetch(Chip),
}

/// Runs the command.
pub async fn run(command: Command, profile: &Profile, printer: &Printer) -> Result<()> {
    let service = profile.attestation_client().await?.0;
    match command {
        Command::Status => status(&service, printer).await,
        Command::Export { file } => {
            let bundle: CollateralBundle = service.get("/collateral/bundle").await?;
            write_or_print(file.as_deref(), &serde_json::to_string_pretty(&bundle)?, printer)
        }
        Command::Import { file } => {
            let imported: BundleImported =
                service.exchange(Method::POST, "/collateral/bundle", &read_text(&file)?).await?;
            let facts = [
                ("issuers", imported.issuers.to_string()),
                ("certificates of chips", imported.vceks.to_string()),
                ("revocation lists", imported.revocation_lists.to_string()),
            ];
            printer.facts(&serde_json::to_value(imported)?, &facts);
            Ok(())
        }
        Command::Prefetch(chip) => {
            let fetched: Prefetched = service.post("/collateral:prefetch", &request(chip)?).await?;
            let until = fetched.revocation_list_until.clone().unwrap_or_else(|| "-".to_owned());
            let facts = [
                ("product", fetched.name.product.clone()),
                ("chip", fetched.name.chip_id.clone()),
                ("tcb", fetched.name.tcb.clone()),
                ("revocation list until", until),
            ];
            printer.facts(&serde_json::to_value(&fetched)?, &facts);
            Ok(())
        }
    }
}

fn request(chip: Chip) -> Result<PrefetchRequest> {
    let report = match chip.report {
        None => None,
        Some(path) => Some(to_base64url(&std::fs::read(&path).map_err(|error| {
            Failure::you(format!("{} cannot be read: {error}", path.display()), "name a file with a report")
        })?)),
    };
    Ok(PrefetchRequest { product: chip.product, chip_id: chip.chip_id, tcb: chip.tcb, report })
}

async fn status(service: &Connection, printer: &Printer) -> Result<()> {
    let health: Value = service.get("/health").await?;
    let value = json!({
        "roots": health["pinnedRoots"], "revocationLists": health["revocationLists"],
        "keyDistributionServices": health["keyDistributionServices"],
    });
    printer.result(&value, &["what", "which", "state"], rows(&health));
    Ok(())
}

fn rows(health: &Value) -> Vec<Vec<String>> {
    let lists = &health["revocationLists"];
    let roots = health["pinnedRoots"].as_object().into_iter().flatten().map(|(name, digest)| {
        let list = lists[name].as_str().map_or_else(
            || "no revocation list".to_owned(),
            |until| format!("revocation list until {until}"),
        );
        vec!["root".to_owned(), format!("{name} ({})", text(digest)), list]
    });
    let servers = health["keyDistributionServices"].as_array().into_iter().flatten().map(|server| {
        let state = match server["restsUntil"].as_str() {
            None => "asked".to_owned(),
            Some(until) => format!("rests until {until}: {}", text(&server["reason"])),
        };
        vec!["server".to_owned(), text(&server["url"]), state]
    });
    roots.chain(servers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_rests_is_told_with_its_reason() {
        let health = json!({
            "pinnedRoots": {"amd Milan": "ab"}, "revocationLists": {"amd Milan": null},
            "keyDistributionServices": [
                {"url": "https://a"}, {"url": "https://b", "restsUntil": "2026-01-01T00:00:00Z", "reason": "429"},
            ],
        });
        let shown: Vec<String> = rows(&health).iter().map(|row| row.join(" | ")).collect();
        expect_test::expect![[r#"
            root | amd Milan (ab) | no revocation list
            server | https://a | asked
            server | https://b | rests until 2026-01-01T00:00:00Z: 429"#]]
        .assert_eq(&shown.join("\n"));
    }
}
