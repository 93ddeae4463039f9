//! `casemate-host-agent`: arguments, logging, start.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use host_agent::{Config, drain, forward, probe, run};
use tracing_subscriber::EnvFilter;

/// Runs confidential VMs on this host.
#[derive(Parser)]
#[command(name = "casemate-host-agent", version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent (the default).
    Run,
    /// Stop every VM of this host, cleanly, and end. The agent itself must not run.
    Drain,
    /// Say which accelerator works on this machine, and why not KVM.
    Probe,
    /// Connect standard input and output with a Unix socket. QEMU starts this for each request to the metadata service.
    Forward {
        /// The socket.
        socket: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match arguments.command.unwrap_or(Command::Run) {
        Command::Forward { socket } => forward(&socket).await.map_err(Into::into),
        Command::Probe => {
            with_config(arguments.config, async |config| {
                let result = probe(&config).await;
                print(&result.to_string());
                Ok(())
            })
            .await
        }
        Command::Drain => {
            with_config(arguments.config, async |config| drain(config).await.map_err(Into::into)).await
        }
        Command::Run => {
            with_config(arguments.config, async |config| run(config).await.map_err(Into::into)).await
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn with_config(
    path: Option<PathBuf>,
    then: impl AsyncFnOnce(Config) -> Result<(), Failed>,
) -> Result<(), Failed> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "another cryptography provider is installed already")?;
    let path = path.ok_or("--config FILE is missing")?;
    then(Config::load(&path)?).await
}

#[allow(clippy::print_stdout, reason = "the answer of `probe` is data for people and scripts")]
fn print(line: &str) {
    println!("{line}");
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
