//! `casemate key random`: random bytes of the key service.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use public_api::encoding::to_base64url;
use public_api::key_operations::{GetRandomBytesRequest, RandomBytes};
use serde_json::json;

use super::Vault;
use super::backup::write_new;
use crate::printer::Printer;

/// How many, and where to.
#[derive(Debug, Args)]
pub struct Random {
    /// 1 to 128.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=128))]
    count: u32,
    /// Write them to this new file instead of showing them.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Gets random bytes.
pub async fn run(random: &Random, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let bytes: RandomBytes = vault.post("/rng", &GetRandomBytesRequest { count: random.count }).await?;
    match &random.to {
        None => {
            printer.text(&serde_json::to_value(&bytes)?, &to_base64url(&bytes.value));
        }
        Some(path) => {
            write_new(path, &bytes.value)?;
            let to = path.display().to_string();
            printer.facts(&json!({"to": to, "bytes": random.count}), &[("written to", to.clone())]);
        }
    }
    Ok(())
}
