//! An operator whose QEMU does more than the host agent asked for: further drives, SMBIOS strings, firmware configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devkit::installation::wait_for;
use serde_json::Value;

use super::{BOOT, OTHER, Scenario};

/// A key that the operator would like to log in with.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDE9bDnb2Bm3mJ0fvkQkq5JQ1Wm2gkWc9gAEV9dVQv3F mallory";

/// A QEMU that adds the options in a file of the operator, one a line, to those of the host agent.
pub struct OperatorsQemu(tempfile::TempDir);

impl OperatorsQemu {
    pub fn new() -> Result<Self> {
        let qemu = Self(tempfile::tempdir()?);
        let text = format!(
            "#!/bin/bash\nmapfile -t more <{}\nexec qemu-system-x86_64 \"$@\" \"${{more[@]}}\"\n",
            qemu.options().display()
        );
        fs::write(qemu.program(), text)?;
        fs::set_permissions(qemu.program(), fs::Permissions::from_mode(0o755))?;
        qemu.add(&[])?;
        Ok(qemu)
    }

    pub fn program(&self) -> PathBuf {
        self.0.path().join("qemu")
    }

    fn options(&self) -> PathBuf {
        self.0.path().join("options")
    }

    /// What is added to each QEMU that starts from now on.
    fn add(&self, options: &[&str]) -> Result<()> {
        Ok(fs::write(self.options(), options.iter().map(|option| format!("{option}\n")).collect::<String>())?)
    }
}

/// A drive that looks like the config drive, with a user of the operator.
fn config_drive(dir: &Path) -> Result<PathBuf> {
    let user = serde_json::json!({
        "users": [{ "name": "mallory", "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": [KEY] }]
    });
    fs::write(dir.join("user-data"), format!("#cloud-config\n{user}\n"))?;
    fs::write(dir.join("meta-data"), r#"{"instance-id":"mallory","local-hostname":"mallory"}"#)?;
    let drive = dir.join("drive");
    fs::File::create(&drive)?.set_len(1 << 20)?;
    let line = "mkfs.vfat -n CIDATA drive && mcopy -i drive user-data meta-data ::";
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH")?);
    let status = Command::new("sh")
        .args(["-c", line])
        .env("PATH", path)
        .current_dir(dir)
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "the drive could not be made");
    Ok(drive)
}

/// Creates the other VM on a QEMU with a drive, credentials and seeds of the operator.
pub fn creates_the_other(scenario: &Scenario) -> Result<()> {
    let (platform, qemu) = (scenario.platform()?, &scenario.qemu);
    let drive = config_drive(qemu.0.path())?;
    let drive = format!("file={},format=raw,if=none,id=mallory,readonly=on", drive.display());
    let credentials = format!(
        "type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root={},\
         value=io.systemd.credential:tmpfiles.extra=f+ /mallory - - - - mallory",
        STANDARD.encode(KEY)
    );
    let password = "name=opt/io.systemd.credentials/passwd.hashed-password.root,string=mallory";
    let drive = ["-drive", &drive, "-device", "virtio-blk-pci,drive=mallory"];
    let seed = ["-smbios", "type=1,serial=ds=nocloud;s=http://10.0.2.2:1/;i=mallory"];
    let all = [&drive[..], &seed, &["-smbios", &credentials, "-fw_cfg", password]].concat();
    qemu.add(&all)?;
    platform.casemate(&["vm", "create", OTHER, "--image", &scenario.image])?;
    qemu.add(&[])
}

/// Nothing of what the operator added is found inside.
pub fn injects_users_and_credentials(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    platform.wait_for_guest(OTHER, "true", BOOT)?;
    let reached = platform.in_guest(OTHER, "lsblk -no NAME; sudo cat /sys/class/dmi/id/product_serial")?;
    ensure!(
        reached.contains("vdc") && reached.contains("i=mallory"),
        "the attack did not reach it: {reached}"
    );
    let found = platform.in_guest(
        OTHER,
        "hostname; cat /etc/passwd; sudo cat /etc/shadow /root/.ssh/authorized_keys /run/cloud-init/result.json; ls /",
    )?;
    ensure!(found.starts_with(OTHER) && !found.contains("mallory"), "{found}");
    Ok(())
}

/// Starts the other VM with one more word on the kernel's command line, which systemd-boot takes from SMBIOS.
pub fn adds_to_the_command_line(scenario: &mut Scenario) -> Result<()> {
    let (platform, qemu) = (scenario.platform()?, &scenario.qemu);
    platform.casemate(&["vm", "stop", OTHER])?;
    qemu.add(&["-smbios", "type=11,value=io.systemd.boot.kernel-cmdline-extra=init=/bin/sh"])?;
    platform.casemate(&["vm", "start", OTHER])?;
    let failure: Value = wait_for(Duration::from_secs(1), BOOT, || {
        let shown = platform.json(&["vm", "show", OTHER])?;
        let failure = &shown["properties"]["casemate"]["failure"];
        Ok(failure["code"].is_string().then(|| failure.clone()))
    })?;
    qemu.add(&[])?;
    ensure!(failure["code"] == "OtherBootMeasured", "{failure}");
    let named = failure["actual"].as_str().context("what was found")?;
    ensure!(named.contains("PCR 12") && named.contains("load options"), "{named}");
    Ok(())
}
