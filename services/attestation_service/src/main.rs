//! `casemate-attestation`: arguments, tracing, start.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use attestation_service::config::Config;
use attestation_service::sign_minimum_tcb::SignMinimumTcb;
use attestation_service::verify::VerifyArguments;
use attestation_service::{RunError, chain, run, shut_down_on_signal, verify};
use clap::{Parser, Subcommand};
use telemetry::{Telemetry, TelemetryConfig, TelemetryError};

/// A request makes and drops some hundred small values: a tenth of its time went into the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The attestation service of Casemate.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Verify an evidence bundle offline and print the result, claim by claim, as JSON.
    Verify(Box<VerifyArguments>),
    /// Sign a table of minimum patch levels and print it as a compact JWS.
    SignMinimumTcb(SignMinimumTcb),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.command, arguments.config) {
        (Some(Command::Verify(arguments)), _) => with_logs(|| verify::main(&arguments)),
        (Some(Command::SignMinimumTcb(arguments)), _) => with_logs(|| arguments.run()),
        (None, Some(config)) => serve(&config),
        (None, None) => ExitCode::from(2),
    }
}

/// Runs a command whose log lines go to standard error, and nothing else anywhere.
fn with_logs(command: impl FnOnce() -> ExitCode) -> ExitCode {
    match start_telemetry(&TelemetryConfig::default()) {
        Ok(_nothing_to_send) => command(),
        Err(_) => ExitCode::FAILURE,
    }
}

fn start_telemetry(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    telemetry::start(config, "casemate-attestation", env!("CARGO_PKG_VERSION"))
}

fn serve(path: &Path) -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no provider was installed before");
    let config = Config::read(path);
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
    let handle = axum_server::Handle::new();
    tokio::spawn(shut_down_on_signal(handle.clone()));
    run(config, handle).await
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!("{}", chain(error));
    ExitCode::FAILURE
}
