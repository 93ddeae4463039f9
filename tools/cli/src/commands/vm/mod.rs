//! `casemate vm`: confidential VMs.

mod access;
mod create;
mod keys;
mod life;
mod proof;
mod show;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::printer::Printer;
use crate::profile::Profile;

/// Resource group of VMs that were created without one.
pub const DEFAULT_GROUP: &str = "default";

/// Which VM.
#[derive(Debug, Args)]
pub struct Target {
    /// The VM's name.
    name: String,
    /// Its resource group.
    #[arg(long, short = 'g', default_value = DEFAULT_GROUP)]
    resource_group: String,
}

/// What to do with VMs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a VM and wait until its keys were released and it runs.
    Create(create::Arguments),
    /// All VMs of the subscription.
    List,
    /// One VM: state, trust, address, or why it failed.
    Show(Target),
    /// Start a stopped VM.
    Start(Target),
    /// Stop a VM; disk, keys and guest state are kept.
    Stop(Target),
    /// Restart a VM: its boot chain is predicted and sealed anew.
    Restart(Target),
    /// Delete a VM, its disk, its guest state and its platform key.
    Delete(Target),
    /// The serial console's log.
    Console {
        #[command(flatten)]
        target: Target,
        /// Go on with what comes.
        #[arg(long, short)]
        follow: bool,
    },
    /// Log in to a VM with ssh.
    Ssh {
        #[command(flatten)]
        target: Target,
        /// A command to run instead of a shell.
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// The key that a VM's disk and guest state are under; with an option another one, also while the VM runs.
    Key(keys::Change),
    /// Make a disk encryption set, or give one another key: its running VMs move to it at once.
    KeySet(keys::Set),
    /// Verify the VM's evidence and compare it with what was deployed, claim by claim.
    Attest(Target),
    /// Save the VM's evidence: report, certificates, runtime claims, launch document, token.
    Evidence {
        #[command(flatten)]
        target: Target,
        /// Where to write it; standard output if not given.
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

/// Runs the command.
pub async fn run(command: Command, data_dir: &Path, printer: &Printer) -> Result<()> {
    let profile = Profile::load(data_dir)?;
    match command {
        Command::Create(arguments) => create::run(arguments, &profile, data_dir, printer).await,
        Command::List => show::list(&profile, printer).await,
        Command::Show(target) => show::one(&target, &profile, printer).await,
        Command::Start(target) => life::act(&target, "start", &profile, printer).await,
        Command::Stop(target) => life::act(&target, "deallocate", &profile, printer).await,
        Command::Restart(target) => life::act(&target, "restart", &profile, printer).await,
        Command::Delete(target) => life::delete(&target, &profile, data_dir, printer).await,
        Command::Console { target, follow } => {
            access::console(&target, follow, &profile, data_dir, printer).await
        }
        Command::Ssh { target, command } => access::ssh(&target, &command, &profile, data_dir).await,
        Command::Key(change) => keys::change(&change, &profile, printer).await,
        Command::KeySet(set) => keys::set(&set, &profile, printer).await,
        Command::Attest(target) => proof::attest(&target, &profile, data_dir, printer).await,
        Command::Evidence { target, file } => {
            proof::evidence(&target, file.as_deref(), &profile, printer).await
        }
    }
}
