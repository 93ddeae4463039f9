//! `casemate-paravisor --config FILE`: one VM's paravisor on a development host; events go to standard output, logs to
//! standard error. `casemate-paravisor inspect-image`: the judge of images. `export-disk` and `recovery-key`: the tenant's way
//! to the data without a platform.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use paravisor::development_host::{Ending, run};
use paravisor::failure::{Stop, chain};
use paravisor::recover::Request;
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
    /// Make one plain disk image of a stopped VM's files; print what it is (JSON), or why not.
    ExportDisk(ExportDisk),
    /// Unwrap a VM's recovery passphrase into a new file.
    RecoveryKey(RecoveryKey),
}

#[derive(Args)]
struct ExportDisk {
    /// The VM's folder as its host had it.
    #[arg(long)]
    host_folder: PathBuf,
    /// The tenant's private key (PEM, PKCS #8).
    #[arg(long)]
    key: PathBuf,
    /// The image to make.
    #[arg(long)]
    to: PathBuf,
    /// The VM that it must be.
    #[arg(long)]
    vm_id: Option<uuid::Uuid>,
    /// What the VM's evidence says: `recovery-document-key`.
    #[arg(long)]
    fingerprint: Option<String>,
    /// The generation that it must have at least.
    #[arg(long)]
    generation: Option<u64>,
    /// Take a document of another generation than the guest state's.
    #[arg(long)]
    accept_older: bool,
    /// Take what the guest itself damaged.
    #[arg(long)]
    accept_damaged: bool,
}

#[derive(Args)]
struct RecoveryKey {
    /// The recovery file (`guest-state.vmgs.recovery.json`).
    #[arg(long)]
    file: PathBuf,
    /// The tenant's private key (PEM, PKCS #8).
    #[arg(long)]
    key: PathBuf,
    /// The file to make, mode 0600.
    #[arg(long)]
    to: PathBuf,
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
        Arguments { command: Some(Command::ExportDisk(asked)), .. } => export(asked),
        Arguments { command: Some(Command::RecoveryKey(asked)), .. } => {
            answer(paravisor::recover::recovery_key(&asked.file, &asked.key, &asked.to))
        }
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

fn export(asked: ExportDisk) -> ExitCode {
    let request = Request {
        folder: asked.host_folder,
        key: asked.key,
        to: asked.to,
        vm_id: asked.vm_id,
        fingerprint: asked.fingerprint,
        generation: asked.generation,
        accept_older: asked.accept_older,
        accept_damaged: asked.accept_damaged,
    };
    answer(paravisor::recover::export(&request))
}

/// The result, or the refusal in five parts; both JSON on standard output.
fn answer(result: Result<serde_json::Value, Stop>) -> ExitCode {
    let (text, code) = match result {
        Ok(value) => (value.to_string(), ExitCode::SUCCESS),
        Err(stop) => match serde_json::to_string(stop.failure()) {
            Ok(text) => (text, ExitCode::from(3)),
            Err(_) => return ExitCode::FAILURE,
        },
    };
    if writeln!(std::io::stdout().lock(), "{text}").is_err() { ExitCode::FAILURE } else { code }
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
