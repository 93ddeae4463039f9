//! `casemate image`: guest images, by the digest of their manifest.
//!
//! An image's manifest names its size, its partitions and the digest of every chunk; the manifest's own digest is bound
//! into every VM's launch. The paravisor's binary makes the manifest, because it is the one that must be able to boot it.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arm::text;
use crate::failure::Failure;
use crate::platform::{programs, recipe};
use crate::printer::Printer;

/// Publisher of images of this installation.
pub const PUBLISHER: &str = "casemate";
/// SKU of images of this installation.
pub const SKU: &str = "default";

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the Debian guest image from Debian's packages.
    Build {
        /// Name in the catalogue.
        #[arg(long, default_value = "debian-13")]
        name: String,
        /// Build an image without disk encryption, for `VMGuestStateOnly`.
        #[arg(long)]
        plain: bool,
    },
    /// Import a raw, qcow2 or VHD file; refuses what could never boot confidentially.
    Import(Import),
    /// All images.
    List,
}

/// What to import.
#[derive(Debug, Args)]
pub struct Import {
    /// The file.
    file: PathBuf,
    /// Name in the catalogue.
    #[arg(long)]
    name: String,
    /// Version in the catalogue.
    #[arg(long, default_value = "1.0.0")]
    version: String,
}

/// The catalogue that the control plane reads.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Catalog {
    /// The images; names are unique.
    pub images: Vec<CatalogImage>,
}

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CatalogImage {
    /// Name for people.
    pub name: String,
    /// SHA-256 (hex) of the manifest; the files are `<digest>/disk.raw` and `<digest>/manifest.json`.
    pub digest: String,
    /// `imageReference.publisher`.
    pub publisher: String,
    /// `imageReference.offer`.
    pub offer: String,
    /// `imageReference.sku`.
    pub sku: String,
    /// `imageReference.version`.
    pub version: String,
    /// Size of the raw image.
    pub size_bytes: u64,
    /// Whether it unlocks an encrypted root by TPM.
    pub disk_encrypted: bool,
}

/// Runs the command.
pub async fn run(command: Command, data_dir: &Path, printer: &Printer) -> Result<()> {
    match command {
        Command::Build { name, plain } => build(&name, plain, data_dir, printer),
        Command::Import(import) => add(&import, data_dir, printer),
        Command::List => {
            list(&load(data_dir)?, printer);
            Ok(())
        }
    }
}

/// Where images lie.
pub fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("images")
}

fn load(data_dir: &Path) -> Result<Catalog> {
    let path = dir(data_dir).join("catalog.json");
    if !path.exists() {
        return Ok(Catalog::default());
    }
    serde_json::from_slice(&std::fs::read(&path)?).with_context(|| format!("reading {}", path.display()))
}

/// Digest of an image of this installation's catalogue.
pub fn digest_of(data_dir: &Path, name: &str) -> Result<Option<String>> {
    let images = load(data_dir)?.images;
    Ok(images.into_iter().find(|image| image.name == name).map(|image| image.digest))
}

fn list(catalog: &Catalog, printer: &Printer) {
    let row = |image: &CatalogImage| {
        let encrypted = if image.disk_encrypted { "unlocks by TPM" } else { "plain" };
        let mib = image.size_bytes >> 20;
        vec![
            image.name.clone(),
            image.version.clone(),
            format!("{mib} MiB"),
            encrypted.to_owned(),
            image.digest.clone(),
        ]
    };
    let value = serde_json::to_value(catalog).expect("a catalogue is JSON");
    printer.result(
        &value,
        &["name", "version", "size", "disk", "digest"],
        catalog.images.iter().map(row).collect(),
    );
}

/// Builds the recipe's image, then imports it like any other.
fn build(name: &str, plain: bool, data_dir: &Path, printer: &Printer) -> Result<()> {
    programs::check(&programs::TO_BUILD_IMAGE)?;
    let work = tempfile_in(&dir(data_dir))?;
    printer.note("building the guest image from Debian's packages (some minutes)");
    let mut command = Process::new("bash");
    command.arg(recipe::script(data_dir)?);
    if plain {
        command.arg("--plain");
    }
    command.arg(&work);
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("running the image recipe")?;
    if !status.success() {
        let _ = std::fs::remove_dir_all(&work);
        bail!("the image recipe failed ({status}); its output stands above");
    }
    let file = work.join(if plain { "debian-plain.raw" } else { "debian.raw" });
    let import = Import { file, name: name.to_owned(), version: "13.0.0".to_owned() };
    let added = add(&import, data_dir, printer);
    let _ = std::fs::remove_dir_all(&work);
    added
}

fn tempfile_in(parent: &Path) -> Result<PathBuf> {
    let path = parent.join(format!("work-{}", std::process::id()));
    std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// Converts to raw, lets the paravisor's binary judge and digest it, and enters it into the catalogue.
fn add(import: &Import, data_dir: &Path, printer: &Printer) -> Result<()> {
    let incoming = tempfile_in(&dir(data_dir))?.join("incoming");
    std::fs::create_dir_all(&incoming)?;
    let added = add_in(&incoming, import, data_dir);
    let _ = std::fs::remove_dir_all(&incoming);
    let image = added?;
    printer.note(&format!("image {} {} is in the catalogue", image.name, image.version));
    list(&Catalog { images: vec![image] }, printer);
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
    enter(&image, data_dir)?;
    Ok(image)
}

fn enter(image: &CatalogImage, data_dir: &Path) -> Result<()> {
    let mut catalog = load(data_dir)?;
    catalog.images.retain(|other| other.name != image.name);
    catalog.images.push(image.clone());
    let path = dir(data_dir).join("catalog.json");
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec_pretty(&catalog)?)?;
    std::fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))
}

/// Any format that `qemu-img` reads becomes a sparse raw file.
fn convert(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Err(Failure::you(
            format!("{} does not exist", from.display()),
            "give the path of an image file",
        ));
    }
    let output = Process::new("qemu-img")
        .args(["convert", "-O", "raw", "-S", "4k"])
        .args([from, to])
        .output()
        .context("running qemu-img (Debian package qemu-utils)")?;
    if !output.status.success() {
        let message = format!("{}: {}", from.display(), String::from_utf8_lossy(&output.stderr).trim());
        return Err(Failure::you(message, "raw, qcow2 and VHD images can be imported"));
    }
    Ok(())
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
