//! `casemate-paravisor --config FILE`: arguments, logging, start. Events go to standard output, logs to standard error.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use paravisor::development_host::{Ending, run};
use paravisor::failure::chain;
use tracing_subscriber::EnvFilter;

/// The paravisor of one VM on a development host.
#[derive(Parser)]
#[command(name = "casemate-paravisor", version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::error!("another TLS provider was installed before this one");
        return ExitCode::FAILURE;
    }
    match paravisor::config::load(&arguments.config) {
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
