//! A whole platform in a folder of its own, driven by the built `casemate` as a user drives it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long one command may take: more than the slowest, which builds a guest's image.
const PATIENCE: Duration = Duration::from_secs(1500);

/// A running platform; stopped when it is dropped.
#[derive(Debug)]
pub struct Installation {
    dir: tempfile::TempDir,
    base_port: u16,
}

/// Folder of the built programs: the one that the test's own program was built into, or `debug` beside it, because
/// benchmarks measure what `make build` makes.
pub fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.ancestors().nth(2).context("a test program lies in target/PROFILE/deps")?;
    let found = [dir.to_path_buf(), dir.with_file_name("debug")].into_iter();
    let mut found = found.filter(|dir| dir.join("casemate").exists());
    found.next().context("casemate is not built: run `cargo build` first")
}

/// Built images outlive a run: `CASEMATE_IMAGE_CACHE`, or a folder beside the build.
pub fn image_cache() -> Result<PathBuf> {
    match std::env::var_os("CASEMATE_IMAGE_CACHE") {
        Some(cache) => Ok(PathBuf::from(cache)),
        None => Ok(programs()?.with_file_name("image-cache")),
    }
}

impl Installation {
    /// Starts a platform. `image_cache` (a data directory's `images`) is used for images, and kept.
    pub fn up(base_port: u16, image_cache: &Path, arguments: &[&str]) -> Result<Self> {
        Self::up_under(None, base_port, image_cache, arguments)
    }

    /// As [`Installation::up`], with every process under the fault plan in the folder `plan`.
    pub fn up_under(
        plan: Option<&Path>,
        base_port: u16,
        image_cache: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("casemate-test-").tempdir()?;
        std::fs::create_dir_all(image_cache)?;
        std::os::unix::fs::symlink(std::path::absolute(image_cache)?, dir.path().join("images"))?;
        let installation = Self { dir, base_port };
        let port = base_port.to_string();
        let mut all = vec!["up", "--base-port", &port];
        all.extend_from_slice(arguments);
        let mut up = installation.command(&all)?;
        up.envs(plan.map(|plan| (fault_plan::VARIABLE, plan)));
        succeeded(&all, up.output()?)?;
        Ok(installation)
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    /// First port.
    pub fn base_port(&self) -> u16 {
        self.base_port
    }

    /// Runs `casemate` and expects success; returns standard output.
    pub fn casemate(&self, arguments: &[&str]) -> Result<String> {
        self.casemate_with(arguments, &[])
    }

    /// The same with some environment variables.
    pub fn casemate_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<String> {
        let output = self.command(arguments)?.envs(variables.iter().copied()).output();
        succeeded(arguments, output.context("running casemate")?)
    }

    /// Runs `casemate --output json` and parses its output.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--output", "json"];
        all.extend_from_slice(arguments);
        serde_json::from_str(&self.casemate(&all)?)
            .with_context(|| format!("casemate {}", arguments.join(" ")))
    }

    /// Runs `casemate`, whatever comes of it.
    pub fn try_casemate(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context("running casemate")
    }

    /// Under `timeout` of the coreutils: a guest that answers no more ends a check, and not the patience of whoever runs it.
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", &PATIENCE.as_secs().to_string()]).arg(programs()?.join("casemate"));
        command.arg("--data-dir").arg(self.data()).args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `casemate` and expects a refusal; returns what it said on standard error.
    pub fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_casemate(arguments)?;
        if output.status.success() {
            bail!("casemate {} was expected to be refused", arguments.join(" "));
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Builds a guest image, with more arguments of `casemate image build`, unless the cache has it.
    pub fn ensure_image(&self, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
        let listed = self.json(&["image", "list"])?;
        let there = |all: &Vec<Value>| all.iter().any(|image| image["name"] == name);
        if !listed["images"].as_array().is_some_and(there) {
            let mut all = vec!["image", "build", "--name", name];
            all.extend_from_slice(arguments);
            self.casemate_with(&all, variables)?;
        }
        Ok(())
    }

    /// Runs a shell line in a VM and expects success; returns its output.
    pub fn in_guest(&self, vm: &str, line: &str) -> Result<String> {
        self.casemate(&["vm", "ssh", vm, "--", line])
    }

    /// The same with a file as the line's standard input.
    pub fn in_guest_with(&self, vm: &str, line: &str, input: &Path) -> Result<()> {
        let input = std::fs::File::open(input).with_context(|| input.display().to_string())?;
        let status = self.command(&["vm", "ssh", vm, "--", line])?.stdin(input).status()?;
        if !status.success() {
            bail!("`{line}` in {vm}: {status}");
        }
        Ok(())
    }

    /// Waits until a shell line in a VM succeeds.
    pub fn wait_for_guest(&self, vm: &str, line: &str, limit: Duration) -> Result<String> {
        wait_for(Duration::from_secs(2), limit, || Ok(self.in_guest(vm, line).ok())).with_context(|| {
            format!("waiting for {vm} to answer `{line}`; its console ends with:\n{}", self.console_end(vm))
        })
    }

    /// Folder of a VM on the host.
    pub fn vm_dir(&self, vm: &str) -> Result<PathBuf> {
        let shown = self.json(&["vm", "show", vm])?;
        let id = shown["properties"]["vmId"].as_str().context("a VM has a vmId")?.to_uppercase();
        Ok(self.data().join("host/vms").join(id))
    }

    /// The last lines of a VM's console.
    pub fn console_end(&self, vm: &str) -> String {
        let text = self.casemate(&["vm", "console", vm]).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Process ids of a program of this platform.
    pub fn processes(&self, program: &str) -> Result<Vec<i32>> {
        let own = self.data().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Ok(id) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(line) = std::fs::read(format!("/proc/{id}/cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let first = line.split(' ').next().unwrap_or_default();
            if first.ends_with(program) && line.contains(&own) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Kills a service's process at once; the supervisor brings it back.
    pub fn kill(&self, program: &str) -> Result<()> {
        self.processes(program)?.into_iter().try_for_each(kill_process)
    }

    /// A log of a service.
    pub fn log(&self, service: &str) -> String {
        std::fs::read_to_string(self.data().join("logs").join(format!("{service}.log"))).unwrap_or_default()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Err(error) = self.casemate(&["down"]) {
            tracing::warn!("stopping the platform under test: {error:#}");
        }
        if std::env::var_os("CASEMATE_KEEP").is_some() {
            self.dir.disable_cleanup(true);
        }
    }
}

/// Sends SIGKILL; a process that has just ended by itself is as good as killed.
pub fn kill_process(id: i32) -> Result<()> {
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("killing process {id}")),
    }
}

/// The standard output of a command that must succeed.
fn succeeded(arguments: &[&str], output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "casemate {} ({}):\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Asks every `interval` until there is an answer, at most for `limit`.
pub fn wait_for<T>(
    interval: Duration,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("nothing came within {} s", limit.as_secs());
        }
        std::thread::park_timeout(interval);
    }
}
