//! `casemate-attestation`: arguments, tracing, start.

use std::path::PathBuf;
use std::process::ExitCode;

use attestation_service::config::Config;
use attestation_service::sign_minimum_tcb::SignMinimumTcb;
use attestation_service::verify::VerifyArguments;
use attestation_service::{chain, run, shut_down_on_signal, verify};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

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
    Verify(VerifyArguments),
    /// Sign a table of minimum patch levels and print it as a compact JWS.
    SignMinimumTcb(SignMinimumTcb),
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    match (arguments.command, arguments.config) {
        (Some(Command::Verify(arguments)), _) => verify::main(&arguments),
        (Some(Command::SignMinimumTcb(arguments)), _) => arguments.run(),
        (None, Some(config)) => serve(&config),
        (None, None) => ExitCode::from(2),
    }
}

#[tokio::main]
async fn serve(config: &std::path::Path) -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no provider was installed before");
    let handle = axum_server::Handle::new();
    tokio::spawn(shut_down_on_signal(handle.clone()));
    let result = match Config::read(config) {
        Ok(config) => run(config, handle).await,
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
