//! Judges an image before it is taken into a catalogue: could it ever boot confidentially, and what is its manifest?
//!
//! It asks the same questions as the paravisor will at the VM's first start, so that an image which could never start is
//! refused when it is imported, with the reason.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use sealed_disk::image::{Facts, Layout, Manifest};
use serde_json::{Value, json};
use uuid::Uuid;
use vtpm::predict::{Inputs, PredictError, Prediction, predict};
use vtpm::vars::{VarStore, VarsError};

use crate::flow::attest::{boot_chain, loader_name};
use crate::flow::rules;

pub mod initramfs;

use self::initramfs::InitramfsError;

/// Time for unpacking an initramfs; a usual one takes a second.
const UNPACKING: Duration = Duration::from_secs(60);

/// Why an image is refused.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A file could not be read or written.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// No partition table, no system partition, no root, no room for a header.
    #[error("the image's layout")]
    Layout(#[from] sealed_disk::image::ImageError),
    /// The firmware variables of this machine.
    #[error("the firmware variables that the boot is predicted with")]
    Vars(#[from] VarsError),
    /// No signed loader, no entry, an entry that cannot be predicted.
    #[error("the boot chain")]
    Boot(#[from] PredictError),
    /// The initramfs of that entry could not unlock the disk.
    #[error("the initramfs of {entry}")]
    Initramfs {
        /// The entry.
        entry: String,
        /// Why not.
        #[source]
        source: InitramfsError,
    },
    /// The command line opens no volume by TPM, or leaves a door open.
    #[error("the command line of the default entry: expected {expected}, found {found}")]
    CommandLine {
        /// What must be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// Inspects `image` with the firmware variables `vars`, writes its manifest, and tells digest, size and kind.
///
/// # Errors
/// See [`InspectError`]; nothing is written then.
pub fn run(image: &Path, vars: &Path, manifest: &Path, name: &str) -> Result<Value, InspectError> {
    let io = |what| move |source| InspectError::Io { what, source };
    let file = File::open(image).map_err(io("opening the image"))?;
    Layout::discover(&file)?;
    let flash = std::fs::read(vars).map_err(io("reading the firmware variables"))?;
    let variables = VarStore::parse(&flash)?;
    let mut disk = file.try_clone().map_err(io("opening the image"))?;
    let prediction = predict(Inputs::from_vars(&mut disk, &variables))?;
    let volume = volume(&prediction)?;
    if volume.is_some() {
        let initramfs = prediction.initrd.read(&mut disk)?;
        initramfs::check(&initramfs, &prediction.release, Instant::now() + UNPACKING)
            .map_err(|source| InspectError::Initramfs { entry: prediction.entry.clone(), source })?;
    }
    let facts = Facts {
        name: name.to_owned(),
        luks_uuid: volume.as_ref().map_or(Uuid::nil(), |(uuid, _)| *uuid),
        mapping: volume.as_ref().map_or(String::new(), |(_, mapping)| mapping.clone()),
        loader: loader_name(prediction.loader).to_owned(),
    };
    let bytes = Manifest::build(&file, facts)?.to_bytes();
    let digest = hex::encode(Manifest::digest_of(&bytes));
    std::fs::write(manifest, &bytes).map_err(io("writing the manifest"))?;
    let size = file.metadata().map_err(io("reading the image"))?.len();
    Ok(json!({
        "digest": digest,
        "sizeBytes": size,
        "diskEncrypted": volume.is_some(),
        "loader": loader_name(prediction.loader),
        "entry": prediction.entry,
        "version": prediction.version,
        "bootChain": boot_chain(&prediction),
    }))
}

/// The volume that the command line opens; `None` for an image without an encrypted root. A command line that opens a
/// volume must do it by the rules.
fn volume(prediction: &Prediction) -> Result<Option<(Uuid, String)>, InspectError> {
    let words = prediction.options.split_ascii_whitespace();
    let Some(word) = words.into_iter().find_map(|word| word.strip_prefix("rd.luks.name=")) else {
        return Ok(None);
    };
    let wrong = |found: &str| InspectError::CommandLine {
        expected: "rd.luks.name=UUID=NAME".to_owned(),
        found: found.to_owned(),
    };
    let (uuid, mapping) = word.split_once('=').ok_or_else(|| wrong(word))?;
    let uuid = Uuid::try_parse(uuid).map_err(|_| wrong(word))?;
    rules::approve(&prediction.options, uuid, mapping).map_err(|stop| {
        let failure = stop.failure();
        InspectError::CommandLine { expected: failure.expected.clone(), found: failure.actual.clone() }
    })?;
    Ok(Some((uuid, mapping.to_owned())))
}
