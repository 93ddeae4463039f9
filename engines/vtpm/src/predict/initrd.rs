//! The initramfs of the entry that would boot: where it lies, and its bytes as the kernel gets them. Prediction itself
//! never looks into it; whoever judges an image does.

use std::io::{Read, Seek};

use super::{PredictError, chain, unsupported};
use crate::esp::{Esp, EspError};
use crate::gpt::{self, Gpt};

/// Most bytes of all files together.
const MAX_BYTES: usize = 256 << 20;

/// Where an initramfs lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initrd {
    /// Files on the EFI system partition, which the loader puts one behind the other; none for an entry without one.
    Files(Vec<String>),
    /// The section `.initrd` of this unified kernel image.
    Section(String),
}

impl Initrd {
    /// The bytes that the kernel gets, without what systemd-stub appends.
    ///
    /// # Errors
    /// [`PredictError`]; also when they are more than 256 MiB.
    pub fn read<D: Read + Seek>(&self, disk: &mut D) -> Result<Vec<u8>, PredictError> {
        let partition = Gpt::read(disk)?.only(gpt::TYPE_ESP)?.clone();
        let esp = Esp::open(disk, partition.start, partition.length)?;
        match self {
            Self::Files(paths) => files(&esp, paths),
            Self::Section(path) => section(&chain::Image::read(&esp, path)?),
        }
    }
}

/// Each file but the last is padded with zeros to a multiple of four bytes.
fn files<D: Read + Seek>(esp: &Esp<'_, D>, paths: &[String]) -> Result<Vec<u8>, PredictError> {
    let mut out = Vec::new();
    for path in paths {
        out.resize(out.len().next_multiple_of(4), 0);
        let content = esp.read(path)?.ok_or_else(|| PredictError::Missing(path.clone()))?;
        if out.len() + content.len() > MAX_BYTES {
            return Err(EspError::TooLarge(path.clone()).into());
        }
        out.extend_from_slice(&content);
    }
    Ok(out)
}

fn section(image: &chain::Image) -> Result<Vec<u8>, PredictError> {
    let missing = || unsupported(format!("{} has no section .initrd", image.path));
    Ok(image.pe()?.section(".initrd").ok_or_else(missing)?.to_vec())
}
