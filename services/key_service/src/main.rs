//! `casemate-keys`: arguments, tracing, start.

mod core_dump;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use key_service::command::Command;
use key_service::config::Config;
use key_service::{RunError, chain};
use telemetry::{Telemetry, TelemetryConfig, TelemetryError};

/// Requests allocate many small things on all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The key service: holds keys, releases them to verified tokens.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = core_dump::forbid() {
        return with_logs(|| failed(&error));
    }
    match (arguments.command, arguments.config) {
        (Some(command), _) => with_logs(|| run_command(command)),
        (None, Some(config)) => serve(&config),
        (None, None) => ExitCode::from(2),
    }
}

/// Runs something whose log lines go to standard error, and nothing else anywhere.
fn with_logs(work: impl FnOnce() -> ExitCode) -> ExitCode {
    match start_telemetry(&TelemetryConfig::default()) {
        Ok(_nothing_to_send) => work(),
        Err(_) => ExitCode::FAILURE,
    }
}

fn start_telemetry(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    telemetry::start(config, "casemate-keys", env!("CARGO_PKG_VERSION"))
}

#[tokio::main(flavor = "current_thread")]
async fn run_command(command: Command) -> ExitCode {
    command.run().await
}

fn serve(path: &Path) -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no other provider is installed before the first line of main");
    let config = Config::load(path);
    let wanted = config.as_ref().map(|config| config.telemetry.clone()).unwrap_or_default();
    let (telemetry, config) = match (start_telemetry(&wanted), config) {
        (Ok(telemetry), Ok(config)) => (telemetry, config),
        (Ok(_), Err(error)) => return failed(&error),
        // Without logs there is nobody to tell but who reads the logs of a service without spans.
        (Err(error), _) => return with_logs(|| failed(&error)),
    };
    let ended = run_to_the_end(config);
    let code = ended.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS);
    telemetry.shut_down();
    code
}

#[tokio::main]
async fn run_to_the_end(config: Config) -> Result<(), RunError> {
    key_service::run(config).await
}

fn failed(error: &dyn Error) -> ExitCode {
    tracing::error!("{}", chain(error));
    ExitCode::FAILURE
}
