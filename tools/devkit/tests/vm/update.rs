//! A guest that changes its own boot chain: another kernel, a new initramfs, by Debian's own tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{BOOT, Scenario, VM, guest};

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

/// Rebuilds the initramfs, installs the kernel that came after the image's, and restarts, all in the guest.
pub fn another_kernel_boots(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let [_, newest] = &scenario.kernels;
    let package = download(newest, platform.data())?;
    let before = platform.in_guest(VM, "uname -r")?;
    platform.in_guest_with(VM, "cat >/tmp/kernel.deb", &package)?;
    platform.in_guest(VM, "sudo dpkg -i /tmp/kernel.deb 2>&1")?;
    // Any package may ask for a new initramfs so.
    platform.in_guest(
        VM,
        "sudo dpkg-trigger --no-await update-initramfs && sudo dpkg --configure --pending 2>&1",
    )?;
    platform.in_guest(VM, "sudo systemctl --no-block reboot")?;
    let wanted = newest.trim_start_matches("linux-image-");
    platform.wait_for_guest(VM, &format!("test $(uname -r) = {wanted}"), BOOT)?;
    ensure!(before.trim() != wanted, "the image had kernel {wanted} already");
    Ok(())
}

/// The chain that booted is the predicted one, and the token of now names it.
pub fn the_new_chain_is_shown(scenario: &mut Scenario) -> Result<()> {
    guest::root_is_encrypted(scenario)?;
    guest::pcrs_are_predicted(scenario)?;
    guest::claims_match(scenario)
}
