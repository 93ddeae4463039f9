//! What a tenant does with keys of its own under a VM that lives: exchange, rotate, revoke and restore them, go back to the
//! platform's, and take the disk away without the platform.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devkit::installation::{Installation, wait_for};
use devkit::machine;
use serde_json::Value;

use crate::Scenario;
use crate::points::Phase;
use crate::site::{Site, VM};

/// The tenant's key, and the disk encryption set that names it.
const KEY: &str = "mine";
const SET: &str = "set";

/// One life with all of it; the guest's count of its boots shows that its data came along.
pub fn keys_change_under_a_vm(scenario: &mut Scenario) -> Result<()> {
    let folder = scenario.folder.as_ref().context("the platforms' folder")?.path().join("tenant");
    std::fs::create_dir_all(&folder)?;
    let site = scenario.sites.first_mut().context("a platform")?;
    site.plan.set(None)?;
    let lived = life(site, &folder);
    let ended = site.clear();
    lived.and(ended)
}

fn life(site: &Site, folder: &Path) -> Result<()> {
    let platform = &site.platform;
    let (private, public) = (path(folder, "private.pem"), path(folder, "public.pem"));
    sh(folder, "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out private.pem")?;
    sh(folder, "openssl pkey -in private.pem -pubout -out public.pem")?;
    platform.casemate(&["vm", "create", VM, "--image", "small", "--recovery-key", &public])?;
    let evidence = path(folder, "evidence.json");
    platform.casemate(&["vm", "evidence", VM, "--file", &evidence])?;
    let newest = customers_key_takes_over_and_rotates(site).context("a customer's key under a running VM")?;
    revoked_and_restored(site, &newest).context("revocation")?;
    platforms_key_again(site, &newest).context("back to the platform's key")?;
    platform.casemate(&["vm", "stop", VM])?;
    exported(platform, folder, &["--key", &private, "--evidence", &evidence]).context("the export")
}

/// Twice the key changes while the VM runs, and its guest and paravisor go on. Returns the key in use.
fn customers_key_takes_over_and_rotates(site: &Site) -> Result<String> {
    let platform = &site.platform;
    let before = platform.processes("casemate-paravisor")?;
    let first = kid(&platform.json(&["key", "create", KEY])?)?;
    platform.casemate(&["vm", "key-set", SET, "--key", &first])?;
    let moved = platform.json(&["vm", "key", VM, "--disk-encryption-set", SET])?;
    ensure!(moved["inUse"] == *first, "{moved}");
    let second = kid(&platform.json(&["key", "rotate", KEY])?)?;
    platform.casemate(&["vm", "key-set", SET, "--key", &second])?;
    wait_for(Duration::from_millis(200), Duration::from_secs(60), || {
        Ok((platform.json(&["vm", "key", VM])?["inUse"] == *second).then_some(()))
    })?;
    ensure!(platform.processes("casemate-paravisor")? == before, "the VM was started anew");
    platform.casemate(&["key", "update", KEY, "--key-version", version(&first), "--disable"])?;
    platform.casemate(&["vm", "stop", VM])?;
    platform.casemate(&["vm", "start", VM])?;
    booted(site, &[1, 2])?;
    Ok(second)
}

fn revoked_and_restored(site: &Site, key: &str) -> Result<()> {
    let platform = &site.platform;
    platform.casemate(&["vm", "stop", VM])?;
    platform.casemate(&["key", "update", KEY, "--key-version", version(key), "--disable"])?;
    platform.refused(&["vm", "start", VM])?;
    let shown = platform.json(&["vm", "show", VM])?;
    ensure!(shown["properties"]["casemate"]["failure"]["code"] == "KeyDisabled", "{shown}");
    platform.casemate(&["key", "update", KEY, "--key-version", version(key), "--enable"])?;
    platform.casemate(&["vm", "start", VM])?;
    booted(site, &[1, 2, 3])
}

/// Not before the customer's key lets the platform's follow.
fn platforms_key_again(site: &Site, key: &str) -> Result<()> {
    let platform = &site.platform;
    let said = platform.refused(&["vm", "key", VM, "--platform"])?;
    ensure!(said.contains("SuccessorNotNamed"), "{said}");
    let shown = platform.json(&["vm", "show", VM])?;
    let id = shown["properties"]["vmId"].as_str().context("a VM has an id")?.to_lowercase();
    let (vault, _) = key.split_once("/keys/").context("a key's URL")?;
    let own = format!("{vault}/keys/vm-{id}");
    platform.casemate(&["key", "let-follow", KEY, "--key-version", version(key), "--successor", &own])?;
    let moved = platform.json(&["vm", "key", VM, "--platform"])?;
    ensure!(moved["inUse"].as_str().is_some_and(|key| key.starts_with(&own)), "{moved}");
    platform.casemate(&["key", "delete", KEY])?;
    platform.casemate(&["vm", "stop", VM])?;
    platform.casemate(&["vm", "start", VM])?;
    booted(site, &[1, 2, 3, 4])
}

/// The disk as one image that stock `cryptsetup` opens with what the tenant's private key unwraps.
fn exported(platform: &Installation, folder: &Path, known: &[&str]) -> Result<()> {
    let image = path(folder, "image.raw");
    let export = [&["disk", "export", VM, "--to", &image], known].concat();
    let made = platform.json(&export)?;
    let file = platform.vm_dir(VM)?.join("guest-state.vmgs.recovery.json");
    let file = file.to_str().context("a path in UTF-8")?;
    let private = path(folder, "private.pem");
    platform.casemate(&[
        "disk",
        "recovery-key",
        file,
        "--key",
        &private,
        "--to",
        &path(folder, "passphrase"),
    ])?;
    let start = made["volumeStart"].as_u64().context("where the volume starts")?;
    let skip = start / 4096;
    sh(folder, &format!("dd if=image.raw of=volume bs=4096 skip={skip} conv=sparse status=none"))?;
    sh(folder, "cryptsetup open --test-passphrase --key-file passphrase volume")
}

fn booted(site: &Site, wanted: &[u64]) -> Result<()> {
    site.settle(Phase::Start, None)?;
    let boots = machine::boots(&site.platform.vm_dir(VM)?.join("serial.log"));
    ensure!(boots == wanted, "the guest counted its boots as {boots:?}");
    Ok(())
}

fn kid(bundle: &Value) -> Result<String> {
    Ok(bundle["key"]["kid"].as_str().context("a key has an id")?.to_owned())
}

fn version(kid: &str) -> &str {
    kid.rsplit('/').next().unwrap_or_default()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn sh(folder: &Path, line: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", line]).current_dir(folder).output()?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
