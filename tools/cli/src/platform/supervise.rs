//! The supervisor: runs the services as children, starts one again when it ends, stops all in order.
//!
//! It holds the data directory's lock for as long as it lives. Killing one child is how its failure is tested: the
//! others go on, and the supervisor brings it back.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::platform::lock;

/// What to run; written by the installer as `supervisor.toml`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Sockets lie here; removed when the platform stops.
    pub runtime_dir: PathBuf,
    /// In the order of starting.
    pub services: Vec<Service>,
}

/// One child.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Name, also of its log.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Program and arguments to run once after it was stopped for good.
    #[serde(default)]
    pub afterwards: Vec<String>,
}

impl Plan {
    /// Where the plan lies.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("supervisor.toml")
    }

    fn load(data_dir: &Path) -> Result<Self> {
        let path = Self::path(data_dir);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(data_dir: &Path) -> Result<()> {
    let _lock = lock::take(data_dir)?;
    let plan = Plan::load(data_dir)?;
    std::fs::create_dir_all(&plan.runtime_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(supervise(&plan, data_dir));
    let _ = std::fs::remove_dir_all(&plan.runtime_dir);
    result
}

/// A child and when it may be started again.
struct Running {
    service: Service,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A child that lived this long is started again without a longer pause.
const HEALTHY: Duration = Duration::from_secs(30);
/// How long a child may take to stop.
const STOP: Duration = Duration::from_secs(20);

async fn supervise(plan: &Plan, data_dir: &Path) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = Vec::new();
    for service in &plan.services {
        let child = Some(spawn(service, data_dir)?);
        let service = service.clone();
        running.push(Running { service, child, started: Instant::now(), pause: FIRST_PAUSE });
    }
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tick.tick() => {
                for one in &mut running {
                    one.revive(data_dir)?;
                }
            }
        }
    }
    for one in running.iter_mut().rev() {
        one.stop(data_dir).await?;
    }
    Ok(())
}

impl Running {
    /// Notices that the child ended; starts it again after its pause.
    fn revive(&mut self, data_dir: &Path) -> Result<()> {
        if let Some(child) = &mut self.child {
            if child.try_wait()?.is_none() {
                return Ok(());
            }
            self.child = None;
            let lived = self.started.elapsed();
            // Under a fault plan a service that ends has done so by plan.
            let healthy = lived > HEALTHY || fault_plan::is_in_force();
            self.pause = if healthy { FIRST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
            self.started = Instant::now();
        }
        if self.started.elapsed() >= self.pause {
            self.child = Some(spawn(&self.service, data_dir)?);
            self.started = Instant::now();
        }
        Ok(())
    }

    async fn stop(&mut self, data_dir: &Path) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
            if tokio::time::timeout(STOP, child.wait()).await.is_err() {
                child.kill().await?;
            }
        }
        if let Some((program, arguments)) = self.service.afterwards.split_first() {
            let status = command(program, arguments, &self.service.name, data_dir)?.status().await;
            status.with_context(|| format!("running {program}"))?;
        }
        Ok(())
    }
}

fn spawn(service: &Service, data_dir: &Path) -> Result<Child> {
    let (program, arguments) = service.command.split_first().context("a service has a command")?;
    let child = command(program, arguments, &service.name, data_dir)?.spawn();
    child.with_context(|| format!("starting {program}"))
}

fn command(program: &str, arguments: &[String], name: &str, data_dir: &Path) -> Result<Command> {
    let path = data_dir.join("logs").join(format!("{name}.log"));
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("opening {}", path.display()))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.kill_on_drop(false);
    Ok(command)
}
