//! Which accelerator truly works. A `/dev/kvm` that opens but cannot run firmware exists (nested or emulated
//! virtualisation), so the probe lets the firmware run and waits for its first words on the serial console.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use internal_api::host::Accelerator;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::config::{AcceleratorChoice, Config};
use crate::process;

/// How long the firmware may take to its first words under KVM; it needs about two seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// What the probe came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// To be used.
    pub accelerator: Accelerator,
    /// Why not KVM, when it was tried.
    pub why_not_kvm: Option<String>,
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.accelerator, &self.why_not_kvm) {
            (Accelerator::Kvm, _) => f.write_str("kvm: the firmware ran"),
            (Accelerator::Tcg, None) => f.write_str("tcg: configured"),
            (Accelerator::Tcg, Some(why)) => write!(f, "tcg: KVM does not work here: {why}"),
        }
    }
}

/// Finds the accelerator that `config` asks for. With `kvm` the result says KVM even when it was seen to fail: the
/// operator's word counts, and the reason is given.
pub async fn probe(config: &Config) -> ProbeResult {
    if config.accelerator == AcceleratorChoice::Tcg {
        return ProbeResult { accelerator: Accelerator::Tcg, why_not_kvm: None };
    }
    let why_not_kvm = try_kvm(config, Path::new("/dev/kvm")).await.err();
    let works = why_not_kvm.is_none() || config.accelerator == AcceleratorChoice::Kvm;
    let accelerator = if works { Accelerator::Kvm } else { Accelerator::Tcg };
    ProbeResult { accelerator, why_not_kvm }
}

async fn try_kvm(config: &Config, device: &Path) -> Result<(), String> {
    if let Err(error) = std::fs::File::options().read(true).write(true).open(device) {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => format!("{} is missing", device.display()),
            io::ErrorKind::PermissionDenied => {
                format!("{} is not open to this user (group kvm)", device.display())
            }
            _ => format!("{}: {error}", device.display()),
        });
    }
    if !process::runnable(&config.qemu) {
        return Err(format!("{} was not found: apt install qemu-system-x86", config.qemu.display()));
    }
    let folder = tempfile_folder(&config.runtime_dir).map_err(|error| error.to_string())?;
    let vars = folder.join("vars.fd");
    let result = match std::fs::copy(&config.firmware_vars, &vars) {
        Ok(_) => run_firmware(config, &vars, "kvm").await,
        Err(error) => Err(format!("{}: {error}", config.firmware_vars.display())),
    };
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn tempfile_folder(runtime_dir: &Path) -> io::Result<std::path::PathBuf> {
    let folder = runtime_dir.join(format!("probe-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

async fn run_firmware(config: &Config, vars: &Path, accelerator: &str) -> Result<(), String> {
    let comma = |path: &Path| path.display().to_string().replace(',', ",,");
    let (code, vars) = (comma(&config.firmware_code), comma(vars));
    let cpu = if accelerator == "kvm" { "host" } else { "max,la57=off" };
    let mut child = Command::new(&config.qemu)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,smm=on"])
        .args(["-accel", accelerator, "-cpu", cpu, "-m", "256M", "-serial", "stdio"])
        .args(["-global", "driver=cfi.pflash01,property=secure,value=on"])
        .arg("-drive")
        .arg(format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"))
        .arg("-drive")
        .arg(format!("if=pflash,unit=1,format=raw,file={vars}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", config.qemu.display()))?;
    let mut serial = child.stdout.take().expect("stdout is a pipe");
    let mut first = [0; 1];
    match tokio::time::timeout(LIMIT, serial.read(&mut first)).await {
        Ok(Ok(1)) => Ok(()),
        Ok(_) => Err(format!("QEMU ended: {}", last_words(&mut child).await)),
        Err(_) => Err(format!("the firmware said nothing within {} s", LIMIT.as_secs())),
    }
}

async fn last_words(child: &mut tokio::process::Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = tokio::time::timeout(Duration::from_secs(1), stderr.read_to_string(&mut text)).await;
    }
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::text;

    fn config(root: &Path, more: &str) -> Config {
        toml::from_str(&format!("{}{more}", text(&root.display().to_string()))).expect("valid")
    }

    /// A stand-in for QEMU.
    fn script(folder: &Path, body: &str) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.join("qemu");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        path
    }

    async fn tried(body: &str) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("folder");
        let qemu = script(folder.path(), body);
        std::fs::write(folder.path().join("vars.fd"), b"").expect("vars");
        let config = config(folder.path(), &format!("qemu = \"{}\"\n", qemu.display()));
        try_kvm(&config, Path::new("/dev/null")).await
    }

    #[tokio::test]
    async fn a_firmware_that_speaks_is_proof() {
        assert_eq!(tried("echo BdsDxe").await, Ok(()));
    }

    #[tokio::test]
    async fn a_kvm_that_opens_but_runs_nothing_is_no_kvm() {
        let why = tried("echo 'kvm run failed: Invalid argument' >&2; exit 1").await;
        assert_eq!(why, Err("QEMU ended: kvm run failed: Invalid argument".to_owned()));
    }

    #[tokio::test]
    async fn a_missing_device_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let why = try_kvm(&config(folder.path(), ""), Path::new("/nonexistent/kvm")).await;
        assert_eq!(why, Err("/nonexistent/kvm is missing".to_owned()));
    }

    #[tokio::test]
    async fn tcg_is_not_probed() {
        let folder = tempfile::tempdir().expect("folder");
        let result = probe(&config(folder.path(), "accelerator = \"tcg\"\n")).await;
        assert_eq!(result.to_string(), "tcg: configured");
    }
}
