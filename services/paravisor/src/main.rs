//! `casemate-paravisor --config FILE`: one VM's paravisor on a development host; events go to standard output, logs to
//! standard error. `casemate-paravisor inspect-image`: the judge of images.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use paravisor::development_host::{Ending, run};
use paravisor::failure::chain;
use tracing_subscriber::EnvFilter;

/// The paravisor of one VM on a development host.
#[derive(Parser)]
#[command(name = "casemate-paravisor", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Judge a raw image, write its manifest, print what it is (JSON).
    InspectImage(InspectImage),
}

#[derive(Args)]
struct InspectImage {
    /// The raw image.
    #[arg(long)]
    image: PathBuf,
    /// Where the manifest is written.
    #[arg(long)]
    manifest: PathBuf,
    /// Firmware variables to predict the boot with.
    #[arg(long, default_value = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd")]
    vars: PathBuf,
    /// The image's name in its manifest.
    #[arg(long, default_value = "image")]
    name: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match arguments {
        Arguments { command: Some(Command::InspectImage(asked)), .. } => inspect(&asked),
        Arguments { config: Some(config), .. } => serve(&config),
        Arguments { .. } => ExitCode::from(2),
    }
}

fn inspect(asked: &InspectImage) -> ExitCode {
    match paravisor::inspect::run(&asked.image, &asked.vars, &asked.manifest, &asked.name) {
        Ok(report) => match writeln!(std::io::stdout().lock(), "{report}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "{}", chain(&error));
            ExitCode::from(3)
        }
    }
}

fn serve(path: &Path) -> ExitCode {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::error!("another TLS provider was installed before this one");
        return ExitCode::FAILURE;
    }
    match paravisor::config::load(path) {
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
        Ok(config) => match run(&config) {
            Ending::Clean => ExitCode::SUCCESS,
            Ending::Refused => ExitCode::from(3),
        },
    }
}
