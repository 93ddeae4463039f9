//! `casemate key generation`: which guest state of each VM a key released last, and the way back to one that was restored
//! from a backup.

use anyhow::Result;
use clap::{Args, Subcommand};
use public_api::client::KeyClient;
use public_api::key_generations::GenerationResetParameters;
use uuid::Uuid;

use super::Name;
use crate::printer::Printer;

/// What to do with generations.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The generation of each VM's guest state that was released last.
    List(Name),
    /// Put a VM's newest generation back: from then on older guest states of the VM are released again, down to --to.
    Reset(Reset),
}

/// `reset`: whoever runs it says what it is now and what it shall be, so that nothing is put back by a slip.
#[derive(Debug, Args)]
pub struct Reset {
    #[command(flatten)]
    key: Name,
    /// The VM's id (`properties.vmId`).
    #[arg(long, value_name = "VMID")]
    vm: Uuid,
    /// What the newest generation is now; refused if it is something else.
    #[arg(long, value_name = "N")]
    from: u64,
    /// The generation of the guest state that was restored; lower than --from. Older ones stay refused.
    #[arg(long, value_name = "M")]
    to: u64,
}

/// Runs the command.
pub async fn run(command: &Command, keys: &KeyClient, printer: &Printer) -> Result<()> {
    match command {
        Command::List(name) => list(name, keys, printer).await,
        Command::Reset(asked) => reset(asked, keys, printer).await,
    }
}

async fn list(name: &Name, keys: &KeyClient, printer: &Printer) -> Result<()> {
    let list = keys.generations(&name.name).await?;
    let rows = list.value.iter().map(|one| vec![one.vm_id.clone(), one.generation.to_string()]).collect();
    printer.result(&serde_json::to_value(&list)?, &["vm", "generation"], rows);
    Ok(())
}

async fn reset(asked: &Reset, keys: &KeyClient, printer: &Printer) -> Result<()> {
    let Reset { key, vm, from, to } = asked;
    let parameters = GenerationResetParameters { from: *from, to: *to };
    let reset = keys.reset_generation(&key.name, &vm.to_string(), parameters).await?;
    let facts = [
        ("vm", reset.vm_id.clone()),
        ("generation", reset.generation.to_string()),
        ("keys", reset.keys.join(", ")),
    ];
    printer.facts(&serde_json::to_value(&reset)?, &facts);
    let first = to.saturating_add(1);
    printer.note(&format!(
        "destroy copies of the guest states that were left behind (generations {first} and above): \
         the key service cannot tell them from new ones of the same number"
    ));
    Ok(())
}
