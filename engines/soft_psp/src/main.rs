//! `soft-pspd --config FILE`: runs the software secure processor.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "soft-pspd", version, about = "A software AMD secure processor for development hosts")]
struct Arguments {
    /// The configuration (TOML).
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome = soft_psp::Config::load(&Arguments::parse().config)
        .map_err(|error| Box::new(error) as Box<dyn std::error::Error>)
        .and_then(|config| Ok(soft_psp::run(&config)?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&*error), "stopped");
            ExitCode::FAILURE
        }
    }
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
