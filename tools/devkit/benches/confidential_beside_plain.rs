//! What confidentiality adds to a boot: a confidential VM beside plain QEMU with the same guest image.
//!
//! The plain guest is the same recipe's image without disk encryption (`casemate image build --plain`: same packages,
//! same kernel), because an encrypted image cannot boot without its key. Its QEMU has the command line of the confidential
//! VM's, less the TPM; both disks are files that QEMU reads itself, in place of the paravisor's. Both boot from the same
//! firmware, Secure Boot on, one after the other.
//!
//! Times begin at QEMU's start: when the guest's processors are set going. The login prompt is the first `login:` on the
//! serial console. The plain guest gets no further towards its tenant: without a TPM it knows no drive that it could take its
//! provisioning data from. What comes before QEMU's start is `put_to_first_instruction`'s. Memory is the most that a process
//! had resident until then.
//!
//! `cargo bench -p devkit --bench confidential_beside_plain`
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use devkit::installation::{Installation, image_cache};
use devkit::observed::{arguments, now_millis, peak_mib, processes, when_file_says};

const BASE_PORT: u16 = 21443;
const VM: &str = "bench-confidential";
const LIMIT: Duration = Duration::from_secs(900);
const FIRMWARE_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

/// One boot.
struct Boot {
    firmware: f64,
    login: f64,
    qemu_mib: f64,
    paravisor_mib: f64,
}

fn main() -> Result<()> {
    let platform = Installation::up(BASE_PORT, &image_cache()?, &[])?;
    platform.ensure_image("debian-13", &[], &[])?;
    platform.ensure_image("debian-13-plain", &["--plain"], &[])?;
    platform.casemate(&["vm", "create", VM, "--no-wait"])?;
    let dir = platform.vm_dir(VM)?;
    let confidential = confidential(&dir)?;
    let stand_in = StandIn::prepare(&platform, &dir)?;
    platform.casemate(&["vm", "delete", VM])?;
    let plain = stand_in.boot()?;
    print(&confidential, &plain);
    Ok(())
}

fn confidential(dir: &Path) -> Result<Boot> {
    let started = when_file_says(&dir.join("qemu-events.out"), "return", LIMIT)?;
    let qemu = one(&processes("qemu-system-x86_64", &dir.display().to_string())?)?;
    let paravisor = one(&processes("casemate-paravisor", &dir.display().to_string())?)?;
    let mut boot = observe(started, &dir.join("serial.log"), qemu)?;
    boot.paravisor_mib = peak_mib(paravisor)?;
    Ok(boot)
}

/// Waits for the two signs of a boot.
fn observe(started: u64, serial: &Path, qemu: u32) -> Result<Boot> {
    let since = |time: u64| time.saturating_sub(started) as f64 / 1000.0;
    let firmware = since(when_file_says(serial, "", LIMIT)?);
    let login = since(when_file_says(serial, "login:", LIMIT)?);
    Ok(Boot { firmware, login, qemu_mib: peak_mib(qemu)?, paravisor_mib: 0.0 })
}

fn one(found: &[u32]) -> Result<u32> {
    match found {
        [id] => Ok(*id),
        other => bail!("expected one process, found {other:?}"),
    }
}

/// The plain guest: files in a folder of its own, and the command line of the confidential one with them in it.
struct StandIn {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl StandIn {
    /// Takes over what the running confidential VM has: command line and config drive.
    fn prepare(platform: &Installation, dir: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("casemate-plain-").tempdir()?;
        let id = one(&processes("qemu-system-x86_64", &dir.display().to_string())?)?;
        let old = arguments(id).split_off(1);
        let config = server_path(&old, "config")?;
        let config = format!("nbd+unix:///?socket={}", config.display());
        run(Command::new("qemu-img")
            .args(["convert", "-O", "raw", &config])
            .arg(folder.path().join("config.img")))?;
        let image = plain_image(platform)?;
        run(Command::new("cp").arg("--sparse=always").arg(image).arg(folder.path().join("disk.img")))?;
        let size = fs::metadata(dir.join("disk.img"))?.len();
        File::options().write(true).open(folder.path().join("disk.img"))?.set_len(size)?;
        fs::copy(FIRMWARE_VARS, folder.path().join("vars.fd"))?;
        let arguments = plain_arguments(&old, dir, folder.path())?;
        Ok(Self { folder, arguments })
    }

    fn boot(&self) -> Result<Boot> {
        let log = File::create(self.folder.path().join("qemu.log"))?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = now_millis();
        let qemu = Process(command.spawn().context("starting the plain QEMU")?);
        observe(started, &self.folder.path().join("serial.log"), qemu.0.id())
    }
}

/// Ended when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The socket that a node of the old command line is served on.
fn server_path(arguments: &[String], node: &str) -> Result<PathBuf> {
    let node = format!("node-name={node},");
    let found =
        arguments.iter().find(|argument| argument.starts_with("driver=nbd,") && argument.contains(&node));
    let path =
        found.and_then(|argument| argument.split(',').find_map(|part| part.strip_prefix("server.path=")));
    Ok(PathBuf::from(path.context("a disk that the paravisor serves")?))
}

/// The old command line without TPM, monitors and metadata service, and with files for disks.
fn plain_arguments(old: &[String], dir: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut new = Vec::new();
    let mut words = old.iter().peekable();
    while let Some(option) = words.next() {
        let value = words.next_if(|word| !word.starts_with('-')).cloned();
        let text = value.as_deref().unwrap_or_default();
        let left_out = ["id=tpm,", "emulator,", "tpm-crb", "id=events", "chardev=events", "unix:"];
        if left_out.iter().any(|start| text.starts_with(start) || text.contains(&format!(",{start}"))) {
            continue;
        }
        new.push(option.clone());
        new.extend(value.as_deref().map(|text| with_files(text, dir, folder)));
    }
    Ok(new)
}

fn with_files(value: &str, dir: &Path, folder: &Path) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    match value {
        text if text.contains("node-name=os,") => {
            format!("driver=raw,node-name=os,file.driver=file,file.filename={}", file("disk.img"))
        }
        text if text.contains("node-name=config,") => {
            format!(
                "driver=raw,node-name=config,read-only=on,file.driver=file,file.filename={}",
                file("config.img")
            )
        }
        text if text.starts_with("socket,id=console,") => {
            format!("file,id=console,path={}", file("serial.log"))
        }
        text if text.contains("guestfwd=") => "user,id=net1,restrict=on".to_owned(),
        text => text.replace(&dir.display().to_string(), &folder.display().to_string()),
    }
}

fn plain_image(platform: &Installation) -> Result<PathBuf> {
    let listed = platform.json(&["image", "list"])?;
    let images = listed["images"].as_array().context("a list of images")?;
    let image = images.iter().find(|image| image["name"] == "debian-13-plain").context("the plain image")?;
    let digest = image["digest"].as_str().context("the image's digest")?;
    Ok(platform.data().join("images").join(digest).join("disk.raw"))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn print(confidential: &Boot, plain: &Boot) {
    println!("{:<40} {:>13} {:>9} {:>9}", "", "confidential", "plain", "added");
    for (words, of) in [
        ("QEMU's start to first serial byte, s", (|boot| boot.firmware) as fn(&Boot) -> f64),
        ("QEMU's start to login prompt, s", |boot| boot.login),
        ("peak memory of QEMU, MiB", |boot| boot.qemu_mib),
        ("peak memory of the paravisor, MiB", |boot| boot.paravisor_mib),
    ] {
        let (one, other) = (of(confidential), of(plain));
        println!("{words:<40} {one:>13.1} {other:>9.1} {:>9.1}", one - other);
    }
}
