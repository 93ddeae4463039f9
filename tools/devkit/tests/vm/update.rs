//! A guest that changes its own boot chain: another kernel, a new initramfs, by Debian's own tools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{BOOT, Scenario, VM, guest};

/// How long the update of an emulated guest may take.
const UPDATE: Duration = Duration::from_secs(900);

/// Runs the recipe's script for kernels; returns what it printed.
fn kernels(arguments: &[&str]) -> Result<String> {
    let script = devkit::installation::programs()?.join("../../images/kernels.sh");
    let output = Command::new(&script).args(arguments).output().context("running images/kernels.sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "images/kernels.sh {}: {said}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// Package names of the kernel that the image starts with, and of the one that comes after it.
pub fn two_kernels() -> Result<[String; 2]> {
    let all = kernels(&["list"])?;
    let all: Vec<&str> = all.lines().collect();
    let [.., older, newest] = all[..] else { anyhow::bail!("Debian has a single kernel now: {all:?}") };
    Ok([older.to_owned(), newest.to_owned()])
}

fn download(package: &str, dir: &Path) -> Result<PathBuf> {
    let path = kernels(&["download", package, dir.to_str().context("a path in UTF-8")?])?;
    Ok(PathBuf::from(path.trim()))
}

/// Installs the kernel that came after the image's and then rebuilds the initramfs, in the guest and in the background: it
/// takes minutes where the guest is emulated.
pub fn begins(scenario: &Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let package = download(&scenario.kernels[1], platform.data())?;
    platform.in_guest_with(VM, "cat >/tmp/kernel.deb", &package)?;
    // Any package may ask for a new initramfs as the second line does.
    let script = "set -e\ndpkg -i /tmp/kernel.deb\n\
                  dpkg-trigger --no-await update-initramfs\ndpkg --configure --pending\ntouch /run/updated\n";
    platform.in_guest(VM, &format!("printf '{script}' >/tmp/update.sh"))?;
    platform.in_guest(VM, "sudo systemd-run --quiet --unit=update sh /tmp/update.sh")?;
    Ok(())
}

/// Waits for the update and restarts the guest from within.
pub fn another_kernel_boots(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let wanted = scenario.kernels[1].trim_start_matches("linux-image-");
    let before = platform.in_guest(VM, "uname -r")?;
    ensure!(before.trim() != wanted, "the image had kernel {wanted} already");
    platform.wait_for_guest(VM, "test -e /run/updated || ! systemctl is-active --quiet update", UPDATE)?;
    let said = platform.in_guest(VM, "sudo journalctl --no-pager -o cat -u update; ls /run/updated")?;
    ensure!(said.contains("/run/updated"), "the update failed: {said}");
    // The connection may end before its answer comes.
    platform.try_casemate(&["vm", "ssh", VM, "--", "sudo systemctl --no-block reboot"])?;
    platform.wait_for_guest(VM, &format!("test $(uname -r) = {wanted}"), BOOT)?;
    Ok(())
}

/// The chain that booted is the predicted one, and the token of now names it.
pub fn the_new_chain_is_shown(scenario: &mut Scenario) -> Result<()> {
    guest::root_is_encrypted(scenario)?;
    guest::pcrs_are_predicted(scenario)?;
    guest::token_names_no_boot_chain(scenario)?;
    guest::claims_match(scenario)
}
