//! Prediction of a boot's PCRs (SHA-256 bank) from what it starts from: the firmware's Secure Boot variables and the
//! disk. The volume key is sealed to what comes out, before the guest runs for the first time and after each update
//! that it makes.
//!
//! What is not understood exactly is refused, with the reason; a guess would only move the failure into the guest's
//! initramfs, where nobody reads it. Event models: shim 15.8 and later; systemd-boot 250 and later with Boot Loader
//! Specification type #1 entries; Debian's GRUB 2.12; unified kernel images of systemd 257 and later; EDK2.
//!
//! PCRs 0 to 3 are the firmware's own and depend on the machine; nothing here predicts or needs them.

mod bls;
mod chain;
mod difference;
mod firmware;
mod grub;
mod initrd;
mod systemd_boot;
mod uki;
mod version;
mod volume_key;

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use thiserror::Error;

pub use difference::{difference, difference_of};
pub use initrd::Initrd;
pub use version::compare as compare_versions;
pub use volume_key::volume_key_pcr15;

use crate::authenticode::PeError;
use crate::esp::{Esp, EspError};
use crate::gpt::{self, Gpt, GptError};
use crate::pcr::{Digest, PcrBank};
use crate::vars::{LoaderVars, SecureBootState, VarStore};

/// What a boot starts from.
pub struct Inputs<'a, D: Read + Seek> {
    /// The whole disk: partition table and EFI system partition are read.
    pub disk: &'a mut D,
    /// The firmware's Secure Boot variables.
    pub secure_boot: SecureBootState,
    /// The loaders' variables.
    pub loader_vars: LoaderVars,
    /// shim's `SbatLevel`, if the firmware's variables have it.
    pub sbat_level: Option<Vec<u8>>,
}

impl<'a, D: Read + Seek> Inputs<'a, D> {
    /// Takes all variables from one store.
    pub fn from_vars(disk: &'a mut D, vars: &VarStore) -> Self {
        Self {
            disk,
            secure_boot: vars.secure_boot_state(),
            loader_vars: vars.loader_vars(),
            sbat_level: vars.sbat_level(),
        }
    }
}

/// The kind of boot loader that starts the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// systemd-boot with type #1 entries.
    SystemdBoot,
    /// GRUB with a `grub.cfg` of plain menu entries.
    Grub,
    /// A unified kernel image.
    Uki,
}

/// One extend that the boot will make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictedEvent {
    /// The PCR.
    pub pcr: u8,
    /// What is extended.
    pub digest: Digest,
    /// What it is the digest of, for a person.
    pub what: String,
}

/// A predicted boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The loader.
    pub loader: Loader,
    /// The entry's id: file name of a type #1 entry, title of a menu entry, path of a unified kernel image.
    pub entry: String,
    /// The entry's version, or the kernel's where the entry states none.
    pub version: String,
    /// The release in the kernel's own header, which names the directory of its modules.
    pub release: String,
    /// Where its initramfs lies.
    pub initrd: Initrd,
    /// The kernel command line of the entry (without `initrd=` and `BOOT_IMAGE=` that a loader puts in front).
    pub options: String,
    /// Values at the time when the initramfs unseals, PCR 15 (zero) included.
    pub pcrs: BTreeMap<u8, Digest>,
    /// The extends in order, for each PCR.
    pub events: Vec<PredictedEvent>,
    /// The PCRs to seal to.
    pub seal_pcrs: Vec<u8>,
}

impl Prediction {
    /// The values of the PCRs to seal to.
    pub fn seal_values(&self) -> BTreeMap<u8, Digest> {
        self.pcrs
            .iter()
            .filter(|(pcr, _)| self.seal_pcrs.contains(pcr))
            .map(|(pcr, value)| (*pcr, *value))
            .collect()
    }
}

/// Why a boot cannot be predicted. The disk would not boot confidentially, or in a way that is not known exactly.
#[derive(Debug, Error)]
pub enum PredictError {
    /// The partition table is unusable.
    #[error("predict the boot from the partition table")]
    Gpt(#[from] GptError),
    /// The EFI system partition is unusable.
    #[error("predict the boot from the efi system partition")]
    Esp(#[from] EspError),
    /// A file of the boot chain is missing.
    #[error("{0} is missing on the efi system partition")]
    Missing(String),
    /// A file of the boot chain is no EFI program.
    #[error("{path} is no efi program")]
    Image {
        /// Where it lies.
        path: String,
        /// What is wrong with it.
        source: PeError,
    },
    /// Secure Boot is on, and nothing authorises this image.
    #[error("{0} has no signature that the firmware or shim would accept")]
    NotAuthorised(String),
    /// A unified kernel image would appear in the boot menu beside the entries.
    #[error("{0} would be a boot entry of its own; its start is not predicted")]
    UnifiedImage(String),
    /// No entry can be booted.
    #[error("loader/entries has no entry that can be booted")]
    NoEntry,
    /// Something that would change the boot and is not modelled.
    #[error("the boot cannot be predicted: {0}")]
    Unsupported(String),
}

/// Predicts the next boot.
///
/// # Errors
/// [`PredictError`].
pub fn predict<D: Read + Seek>(inputs: Inputs<'_, D>) -> Result<Prediction, PredictError> {
    let Inputs { disk, secure_boot, loader_vars, sbat_level } = inputs;
    let table = Gpt::read(disk)?;
    let partition = table.only(gpt::TYPE_ESP)?.clone();
    let esp = Esp::open(disk, partition.start, partition.length)?;
    let chain = chain::find(&esp)?;
    let context = Context { table, esp, secure_boot, loader_vars, sbat_level };
    match chain.loader {
        Loader::SystemdBoot => systemd_boot::predict(&context, &chain),
        Loader::Grub => grub::predict(&context, &chain),
        Loader::Uki => uki::predict(&context, &chain),
    }
}

/// Everything a predictor reads from.
struct Context<'a, D: Read + Seek> {
    table: Gpt,
    esp: Esp<'a, D>,
    secure_boot: SecureBootState,
    loader_vars: LoaderVars,
    sbat_level: Option<Vec<u8>>,
}

/// Extends collected in order.
#[derive(Default)]
struct Events(Vec<PredictedEvent>);

impl Events {
    fn add(&mut self, pcr: u8, digest: Digest, what: impl Into<String>) {
        self.0.push(PredictedEvent { pcr, digest, what: what.into() });
    }

    /// PCR values after all events; `also` starts at zero where no event touches it.
    fn values(&self, also: &[u8]) -> BTreeMap<u8, Digest> {
        let mut bank = PcrBank::default();
        for pcr in also {
            bank.0.insert(*pcr, [0; 32]);
        }
        self.0.iter().for_each(|event| bank.extend(event.pcr, &event.digest));
        bank.0
    }
}

fn unsupported(why: impl Into<String>) -> PredictError {
    PredictError::Unsupported(why.into())
}
