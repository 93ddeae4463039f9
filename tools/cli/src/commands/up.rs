//! `casemate up`: installs what is missing in the data directory, starts the platform, waits until it is healthy.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::image::boot_chain;
use super::status::health;
use crate::failure::Failure;
use crate::platform::install::{Settings, install};
use crate::platform::ports::Ports;
use crate::platform::{lock, programs};
use crate::printer::Printer;
use crate::profile::Profile;

/// How to start.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// First of five consecutive ports on the loopback address.
    #[arg(long, default_value_t = 8443)]
    base_port: u16,
    /// How guest code is run; `auto` takes KVM where it was seen to run firmware.
    #[arg(long, value_parser = ["auto", "kvm", "tcg"], default_value = "auto")]
    accelerator: String,
    /// QEMU's program.
    #[arg(long, default_value = "qemu-system-x86_64")]
    qemu: String,
}

/// How long services may take to become healthy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command.
pub async fn run(arguments: Arguments, data_dir: &Path, printer: &Printer) -> Result<()> {
    if Path::new("/dev/sev").exists() {
        let message = "this machine has an AMD secure processor, and the paravisor's front end for silicon is not built yet";
        return Err(Failure::you(
            message,
            "run on another machine; docs/run-without-hardware.md tells what that shows",
        ));
    }
    programs::check_to_run()?;
    if let Some(holder) = lock::holder(data_dir)? {
        let message = format!("{} is in use by process {holder}", data_dir.display());
        return Err(Failure::you(
            message,
            "`casemate status` shows the running platform, `casemate down` stops it",
        ));
    }
    Ports::from_base(arguments.base_port).check_free()?;
    let settings =
        Settings { base_port: arguments.base_port, accelerator: arguments.accelerator, qemu: arguments.qemu };
    let profile = install(data_dir, settings)?;
    start_supervisor(data_dir)?;
    wait_until_healthy(&profile, data_dir, printer).await?;
    boot_chain::announce(data_dir, &profile, printer).await;
    super::status::run(data_dir, printer).await
}

/// The supervisor outlives this command: it gets a session of its own.
fn start_supervisor(data_dir: &Path) -> Result<()> {
    let log = OpenOptions::new().create(true).append(true).open(data_dir.join("logs/supervisor.log"))?;
    let own = std::env::current_exe().context("finding casemate's own path")?;
    let mut command = Command::new(own);
    command.arg("--data-dir").arg(data_dir).arg("supervise");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    command.spawn().context("starting the supervisor")?;
    Ok(())
}

async fn wait_until_healthy(profile: &Profile, data_dir: &Path, printer: &Printer) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut progress = printer.progress();
    for (name, url) in [
        ("attestation service", &profile.attestation),
        ("control plane", &profile.control_plane),
        ("key service", &profile.keys),
    ] {
        progress.show(&format!("waiting for the {name}"));
        loop {
            let answer = health(profile, url).await;
            if answer["status"] == Value::String("ok".to_owned()) {
                break;
            }
            if Instant::now() > deadline {
                let message = format!("the {name} at {url} is not healthy: {}", answer["status"]);
                let hint = format!("its log is in {}", data_dir.join("logs").display());
                return Err(Failure::you(message, hint));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
