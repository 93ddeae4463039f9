//! The VM's TPM: commands there, answers back, and what is asked of it more than once.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use vtpm::command::{self, CommandError, MAX_MESSAGE, NV_CHUNK, handle, nv};
use vtpm::hcl::{HANDLE_AK, NV_INDEX_AK_CERTIFICATE};
use vtpm::{PcrBank, command::KeyPublic};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Where the kernel's resource manager listens.
pub const DEVICE: &str = "/dev/tpmrm0";

/// What carries out TPM commands.
pub trait Tpm {
    /// Sends a command and waits for its answer. The answer may hold a secret.
    ///
    /// # Errors
    /// Those of the transport; what the TPM refuses is an answer.
    fn send(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure>;
}

/// A TPM device of the kernel.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
}

impl Device {
    /// Opens it. What is made through it and not made persistent goes when it is closed.
    ///
    /// # Errors
    /// A device that cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| {
            let hint = "run this as root or as a member of the group `tss`, in a VM that has a TPM";
            Failure::you(format!("opening the TPM {}", path.display()), hint).because(error)
        })?;
        Ok(Self { file, path: path.to_owned() })
    }
}

impl Tpm for Device {
    fn send(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let failed =
            |error| Failure::us(format!("talking to the TPM {}", self.path.display())).because(error);
        self.file.write_all(command).map_err(failed)?;
        let mut answer = Zeroizing::new(vec![0; MAX_MESSAGE]);
        let length = self.file.read(&mut answer).map_err(failed)?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// Sends a command and reads its answer.
pub fn ask<T>(
    tpm: &mut dyn Tpm,
    doing: &str,
    command: &[u8],
    read: impl FnOnce(&[u8]) -> Result<T, CommandError>,
) -> Result<T, Failure> {
    read(&tpm.send(command)?).map_err(|error| Failure::tpm(doing, error))
}

/// The size of an NV index; `None` when there is none.
fn nv_size(tpm: &mut dyn Tpm, index: u32) -> Result<Option<u16>, Failure> {
    match command::nv_public(&tpm.send(&command::nv_read_public(index))?) {
        Ok(public) => Ok(Some(public.size)),
        Err(CommandError::Tpm(code)) if code.is_missing_handle() => Ok(None),
        Err(error) => Err(Failure::tpm("reading an NV index's public area", error)),
    }
}

/// All of an NV index that everybody may read; `None` when there is none.
pub fn nv_read(tpm: &mut dyn Tpm, index: u32) -> Result<Option<Vec<u8>>, Failure> {
    let Some(size) = nv_size(tpm, index)? else { return Ok(None) };
    let mut data = Vec::new();
    let mut offset = 0;
    while offset < size {
        let length = NV_CHUNK.min(size - offset);
        let read = command::nv_read(index, b"", index, length, offset);
        data.extend(ask(tpm, "reading an NV index", &read, command::nv_data)?);
        offset += length;
    }
    Ok(Some(data))
}

/// Writes an NV index of the guest's own, and makes it before when there is none of that size.
pub fn nv_write(tpm: &mut dyn Tpm, index: u32, data: &[u8]) -> Result<(), Failure> {
    let size = u16::try_from(data.len()).map_err(|_| Failure::us("too much data for an NV index"))?;
    let found = nv_size(tpm, index)?;
    if found.is_some_and(|found| found != size) {
        let undefine = command::nv_undefine_space(handle::OWNER, b"", index);
        ask(tpm, "removing an NV index of another size", &undefine, command::success)?;
    }
    if found != Some(size) {
        let define = command::nv_define_space(handle::OWNER, b"", index, nv::GUEST_DATA, size);
        ask(tpm, "making an NV index", &define, command::success)?;
    }
    for write in command::nv_write_all(handle::OWNER, b"", index, data) {
        ask(tpm, "writing an NV index", &write, command::success)?;
    }
    Ok(())
}

/// The attestation key's public area.
pub fn attestation_key(tpm: &mut dyn Tpm) -> Result<KeyPublic, Failure> {
    ask(tpm, "reading the attestation key", &command::read_public(HANDLE_AK), command::read_public_key)
}

/// The attestation key's certificate (DER), without what the index holds behind it; empty when there is none.
pub fn attestation_key_certificate(tpm: &mut dyn Tpm) -> Result<Vec<u8>, Failure> {
    let mut der = nv_read(tpm, NV_INDEX_AK_CERTIFICATE)?.unwrap_or_default();
    if let [0x30, 0x82, high, low, ..] = der.as_slice() {
        der.truncate(4 + usize::from(u16::from_be_bytes([*high, *low])));
    }
    Ok(der)
}

/// PCR values of the SHA-256 bank. A TPM tells eight at a time.
pub fn pcrs(tpm: &mut dyn Tpm, selected: &[u8]) -> Result<PcrBank, Failure> {
    let mut bank = PcrBank::default();
    for some in selected.chunks(8) {
        let read = command::pcr_read(some);
        bank.0.extend(ask(tpm, "reading PCRs", &read, command::pcr_values)?.0);
    }
    Ok(bank)
}
