//! What the operator of the host tries, and the reason for which it is refused.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use devkit::installation::Installation;

use super::{OTHER, Scenario, VM};

pub fn stop(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    platform.casemate(&["vm", "stop", VM])?;
    let shown = platform.json(&["vm", "show", VM])?;
    ensure!(shown["properties"]["casemate"]["hostPhase"] == "stopped", "{shown}");
    Ok(())
}

/// Starts the VM, which must be refused; returns the code of the reason.
fn refused(platform: &Installation) -> Result<String> {
    platform.refused(&["vm", "start", VM])?;
    let shown = platform.json(&["vm", "show", VM])?;
    let failure = &shown["properties"]["casemate"]["failure"];
    for part in ["claim", "expected", "actual", "rule", "remedy"] {
        ensure!(
            failure[part].as_str().is_some_and(|text| !text.is_empty()),
            "the refusal lacks {part}: {failure}"
        );
    }
    Ok(failure["code"].as_str().context("a code")?.to_owned())
}

/// Flips one bit of a file, in place.
fn flip(path: &Path, offset: u64) -> Result<()> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 1], offset)?;
    Ok(())
}

/// Copies a file, runs the attack, and puts the file back whatever came of it.
fn with_restored<T>(path: &Path, attack: impl FnOnce() -> Result<T>) -> Result<T> {
    let keep = path.with_extension("kept");
    fs::copy(path, &keep)?;
    let outcome = attack();
    fs::rename(&keep, path)?;
    outcome
}

pub fn other_firmware(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let config = platform.data().join("host/config.toml");
    let code = with_restored(&config, || {
        let text = fs::read_to_string(&config)?;
        let line =
            text.lines().find(|line| line.starts_with("firmware_code")).context("the firmware's path")?;
        let path = line.split('"').nth(1).context("a quoted path")?;
        let other = platform.data().join("other-firmware.fd");
        fs::copy(path, &other)?;
        flip(&other, 4096)?;
        fs::write(&config, text.replace(line, &format!("firmware_code = {other:?}")))?;
        platform.kill("casemate-host-agent")?;
        refused(platform)
    })?;
    platform.kill("casemate-host-agent")?;
    ensure!(code == "LaunchMeasurementUnknown", "{code}");
    Ok(())
}

pub fn boot_region_changed(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let region = platform.vm_dir(VM)?.join("boot-region.img");
    let code = with_restored(&region, || {
        for chunk in 0..16 {
            flip(&region, chunk * 65_536 + 100)?;
        }
        refused(platform)
    })?;
    ensure!(code == "BootRegionTampered", "{code}");
    Ok(())
}

pub fn another_vms_state(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let stolen = platform.vm_dir(OTHER)?.join("guest-state.vmgs");
    let state = platform.vm_dir(VM)?.join("guest-state.vmgs");
    let code = with_restored(&state, || {
        fs::copy(&stolen, &state)?;
        refused(platform)
    })?;
    ensure!(code == "GuestStateOfAnotherVm", "{code}");
    Ok(())
}

pub fn older_state(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let dir = platform.vm_dir(VM)?;
    let (state, region) = (dir.join("guest-state.vmgs"), dir.join("boot-region.img"));
    let older = [(state.clone(), dir.join("older.vmgs")), (region.clone(), dir.join("older.img"))];
    for (from, to) in &older {
        fs::copy(from, to)?;
    }
    platform.casemate(&["vm", "start", VM])?;
    platform.casemate(&["vm", "stop", VM])?;
    let code = with_restored(&state, || {
        with_restored(&region, || {
            for (to, from) in &older {
                fs::copy(from, to)?;
            }
            refused(platform)
        })
    })?;
    ensure!(code == "RollbackRefused", "{code}");
    Ok(())
}

pub fn secure_boot_off(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let vars = platform.vm_dir(VM)?.join("vars.fd");
    let code = with_restored(&vars, || {
        fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &vars)?;
        refused(platform)
    })?;
    ensure!(code.contains("Firmware") || code.contains("SecureBoot"), "{code}");
    Ok(())
}

pub fn log_is_whole(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let entries = platform.json(&["log", "--refused", "--last", "100"])?;
    let text = entries.to_string();
    for code in ["LaunchMeasurementUnknown", "RollbackRefused"] {
        ensure!(text.contains(code), "{code} is not in the log: {text}");
    }
    Ok(())
}

pub fn delete(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let dirs = [platform.vm_dir(VM)?, platform.vm_dir(OTHER)?];
    for vm in [VM, OTHER] {
        platform.casemate(&["vm", "delete", vm])?;
    }
    for dir in dirs {
        ensure!(!dir.exists(), "{} is still there", dir.display());
    }
    let keys = platform.json(&["key", "list"])?;
    ensure!(!keys.to_string().contains("/keys/vm-"), "a platform key is still there: {keys}");
    Ok(())
}
