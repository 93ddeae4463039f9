//! `casemate`: what people type. Starts the platform on one machine, and drives it as a tenant would.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 done, 2 the input was wrong, 3 the
//! platform refused (and said why), 1 something failed on our side.

mod arm;
mod commands;
mod failure;
mod platform;
mod printer;
mod profile;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::printer::{Format, Printer};

#[derive(Parser)]
#[command(name = "casemate", version, about = "A confidential VM service that you host yourself")]
struct Arguments {
    /// Where the platform keeps everything (or CASEMATE_DATA_DIR).
    #[arg(long, global = true, env = "CASEMATE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the platform on this machine.
    Up(commands::up::Arguments),
    /// Stop the platform and its VMs; only the data directory stays.
    Down,
    /// What runs, where it listens, and what is trusted.
    Status,
    /// Guest images: build, import, list.
    #[command(subcommand)]
    Image(commands::image::Command),
    /// Confidential VMs: create, look at, start, stop, delete, log in, attest.
    #[command(subcommand)]
    Vm(commands::vm::Command),
    /// A VM's disk without its platform, with the tenant's recovery key.
    #[command(subcommand)]
    Disk(commands::disk::Command),
    /// Verify an evidence bundle without asking anyone.
    Verify(commands::verify::Arguments),
    /// The attestation service: providers, policies, signers, collateral, patch levels, reference values.
    #[command(subcommand)]
    Attestation(commands::attestation::Command),
    /// Keys of the key service.
    #[command(subcommand)]
    Key(commands::key::Command),
    /// The decision log: every attestation, release and refusal, and the proof that it is whole.
    Log(commands::log::Arguments),
    /// Runs the services as children until it is told to stop (used by `up`).
    #[command(hide = true)]
    Supervise,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printer = Printer::new(arguments.output);
    match run(arguments, &printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, &printer),
    }
}

fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a second TLS provider is installed"))?;
    let data_dir = profile::data_dir(arguments.data_dir)?;
    if let Command::Supervise = arguments.command {
        return platform::supervise::run(&data_dir);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Up(up) => commands::up::run(up, &data_dir, printer).await,
            Command::Down => commands::down::run(&data_dir, printer).await,
            Command::Status => commands::status::run(&data_dir, printer).await,
            Command::Image(image) => commands::image::run(image, &data_dir, printer).await,
            Command::Vm(vm) => commands::vm::run(vm, &data_dir, printer).await,
            Command::Disk(disk) => commands::disk::run(disk, &data_dir, printer).await,
            Command::Verify(verify) => commands::verify::run(&verify, &data_dir, printer),
            Command::Attestation(command) => commands::attestation::run(command, &data_dir, printer).await,
            Command::Key(key) => commands::key::run(key, &data_dir, printer).await,
            Command::Log(log) => commands::log::run(&log, &data_dir, printer).await,
            Command::Supervise => unreachable!("handled above, outside of the async runtime"),
        }
    })
}
