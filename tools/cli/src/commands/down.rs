//! `casemate down`: stops VMs and services; leaves nothing behind but the data directory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::platform::lock;
use crate::printer::Printer;

/// Clean stops of guests may take their time.
const PATIENCE: Duration = Duration::from_secs(240);

/// Runs the command.
pub async fn run(data_dir: &Path, printer: &Printer) -> Result<()> {
    let Some(holder) = lock::holder(data_dir)? else {
        printer.note("the platform is not running");
        return Ok(());
    };
    printer.note("stopping VMs, then services");
    kill(Pid::from_raw(holder), Signal::SIGTERM).with_context(|| format!("stopping process {holder}"))?;
    let deadline = Instant::now() + PATIENCE;
    while lock::holder(data_dir)?.is_some() {
        if Instant::now() > deadline {
            bail!(
                "process {holder} did not stop within {} s; its log is {}",
                PATIENCE.as_secs(),
                data_dir.join("logs").display()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    printer.note(&format!("stopped; everything that is left lies in {}", data_dir.display()));
    Ok(())
}
