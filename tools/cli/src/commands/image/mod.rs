//! `casemate image`: guest images, by the digest of their manifest.
//!
//! An image's manifest names its size, its partitions and the digest of every chunk; the manifest's own digest is bound
//! into every VM's launch. The paravisor's binary makes the manifest, because it is the one that must be able to boot it.

pub mod boot_chain;
mod format;
mod import;

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

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
        Command::Build { name, plain } => build(&name, plain, data_dir, printer).await,
        Command::Import(import) => import::run(&import, data_dir, printer).await,
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
async fn build(name: &str, plain: bool, data_dir: &Path, printer: &Printer) -> Result<()> {
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
    let added = import::run(&import, data_dir, printer).await;
    let _ = std::fs::remove_dir_all(&work);
    added
}

fn tempfile_in(parent: &Path) -> Result<PathBuf> {
    let path = parent.join(format!("work-{}", std::process::id()));
    std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
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
