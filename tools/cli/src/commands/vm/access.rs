//! `casemate vm console` and `casemate vm ssh`.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Target;
use super::create::{Expectation, ssh_port};
use crate::arm::text;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// Prints the serial log of a VM on this machine's host; with `follow` goes on until interrupted.
pub async fn console(
    target: &Target,
    follow: bool,
    profile: &Profile,
    data_dir: &Path,
    printer: &Printer,
) -> Result<()> {
    let arm = profile.arm().await?;
    let vm = arm.get(&arm.vm(&target.resource_group, &target.name)).await?;
    let path =
        data_dir.join("host/vms").join(text(&vm["properties"]["vmId"]).to_uppercase()).join("serial.log");
    let Ok(mut file) = std::fs::File::open(&path) else {
        let message = format!("{} has no serial log on this machine yet", target.name);
        return Err(Failure::you(message, "it appears when the guest's firmware starts"));
    };
    printer.note(&format!("serial log: {}", path.display()));
    loop {
        copy_new(&mut file)?;
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Copies what is new; begins again where the log was begun anew.
fn copy_new(file: &mut std::fs::File) -> Result<()> {
    if file.stream_position()? > file.metadata()?.len() {
        file.seek(SeekFrom::Start(0))?;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes)?;
    out.flush().context("writing to standard output")
}

/// Becomes `ssh` to the VM.
pub async fn ssh(target: &Target, command: &[String], profile: &Profile, data_dir: &Path) -> Result<()> {
    let arm = profile.arm().await?;
    let vm = arm.get(&arm.vm(&target.resource_group, &target.name)).await?;
    let port = ssh_port(&vm)?;
    let expectation = Expectation::load(data_dir, &target.resource_group, &target.name)?;
    let user = expectation.as_ref().map_or_else(
        || text(&vm["properties"]["osProfile"]["adminUsername"]),
        |expectation| expectation.admin_username.clone(),
    );
    let mut ssh = Command::new("ssh");
    ssh.arg("-p").arg(port.to_string());
    ssh.arg("-o").arg("StrictHostKeyChecking=accept-new").arg("-o").arg("LogLevel=ERROR");
    let vm_id = text(&vm["properties"]["vmId"]);
    let known = data_dir.join("client/known_hosts");
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
    ssh.arg("-o").arg(format!("HostKeyAlias={vm_id}"));
    if let Some(key) = expectation.and_then(|expectation| expectation.ssh_private_key) {
        ssh.arg("-i").arg(key).arg("-o").arg("IdentitiesOnly=yes");
    }
    ssh.arg(format!("{user}@127.0.0.1")).args(command);
    Err(ssh.exec()).context("running ssh (Debian package openssh-client)")
}
