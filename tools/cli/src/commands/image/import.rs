//! `casemate image import`: from a user's file to an entry in the catalogue.

use std::path::Path;
use std::process::Command as Process;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    Catalog, CatalogImage, Import, PUBLISHER, SKU, boot_chain, dir, enter, format, list, tempfile_in,
};
use crate::arm::text;
use crate::failure::Failure;
use crate::platform::{lock, programs};
use crate::printer::Printer;
use crate::profile::Profile;

/// Converts to raw, lets the paravisor's binary judge and digest it, and enters it into the catalogue.
pub async fn run(import: &Import, data_dir: &Path, printer: &Printer) -> Result<()> {
    let work = tempfile_in(&dir(data_dir))?;
    let incoming = work.join("incoming");
    std::fs::create_dir_all(&incoming)?;
    let added = add_in(&incoming, import, data_dir);
    let _ = std::fs::remove_dir_all(&incoming);
    // Stays while `image build` has its own files there.
    let _ = std::fs::remove_dir(&work);
    let image = added?;
    printer.note(&format!("image {} {} is in the catalogue", image.name, image.version));
    list(&Catalog { images: vec![image] }, printer);
    if lock::holder(data_dir)?.is_some() {
        boot_chain::announce(data_dir, &Profile::load(data_dir)?, printer).await;
    }
    Ok(())
}

fn add_in(incoming: &Path, import: &Import, data_dir: &Path) -> Result<CatalogImage> {
    let raw = incoming.join("disk.raw");
    convert(&import.file, &raw)?;
    let report = inspect(&raw, &incoming.join("manifest.json"))?;
    let image = CatalogImage {
        name: import.name.clone(),
        digest: text(&report["digest"]),
        publisher: PUBLISHER.to_owned(),
        offer: import.name.clone(),
        sku: SKU.to_owned(),
        version: import.version.clone(),
        size_bytes: report["sizeBytes"].as_u64().context("the inspection gave no size")?,
        disk_encrypted: report["diskEncrypted"].as_bool().context("the inspection gave no kind")?,
    };
    let target = dir(data_dir).join(&image.digest);
    if !target.exists() {
        std::fs::rename(incoming, &target).with_context(|| format!("making {}", target.display()))?;
    }
    boot_chain::keep(&target, &report["bootChain"])?;
    enter(&image, data_dir)?;
    Ok(image)
}

/// A file of a known format becomes a sparse raw file.
fn convert(from: &Path, to: &Path) -> Result<()> {
    if !from.is_file() {
        let message = format!("{} is no file", from.display());
        return Err(Failure::you(message, "give the path of a raw, qcow2 or VHD file"));
    }
    // An absolute path cannot be taken for one of QEMU's protocols.
    let from = from.canonicalize().with_context(|| format!("finding {}", from.display()))?;
    let source = format::recognise(&from)?;
    let output = Process::new("qemu-img")
        .args(["convert", "--image-opts", "-O", "raw", "-S", "4k"])
        .arg(source.options(&from)?)
        .arg(to)
        .output()
        .context("running qemu-img (Debian package qemu-utils)")?;
    if !output.status.success() {
        let message = format!("{}: {}", from.display(), String::from_utf8_lossy(&output.stderr).trim());
        return Err(Failure::you(message, "look at the file with `qemu-img check`, or fetch it again"));
    }
    let made = to.metadata().context("reading the converted image")?.len();
    match source.disk_bytes {
        Some(stated) if stated != made => bail!("qemu-img made {made} bytes of a disk of {stated} bytes"),
        _ => Ok(()),
    }
}

/// The paravisor's judgement: a manifest and its digest, or the reason why this can never boot.
fn inspect(raw: &Path, manifest: &Path) -> Result<Value> {
    let output = Process::new(programs::ours("casemate-paravisor")?)
        .arg("inspect-image")
        .arg("--image")
        .arg(raw)
        .arg("--manifest")
        .arg(manifest)
        .output()
        .context("running casemate-paravisor inspect-image")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let message = format!("this image could never boot confidentially: {}", said.trim());
        return Err(Failure::refused(message, "`docs/images.md` says what an image must have"));
    }
    serde_json::from_slice(&output.stdout).context("reading the inspection")
}
