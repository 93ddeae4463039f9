//! A guest as the paravisor sees it: firmware and loaders that measure, an initramfs that unseals and measures the volume's
//! key. Speaks to the TPM and reads the disk by nothing but the devices that QEMU would get, in process or over sockets.
//!
//! It panics where a device breaks its own protocol; what a VM may meet is in its results.

pub mod disk;
pub mod image;
pub mod initramfs;
pub mod signing;

use std::collections::BTreeMap;
use std::sync::Arc;

use sealed_disk::luks2;
use sealed_disk::secret::{Passphrase, VolumeKey};
use sealed_disk::xts::Xts;
use vtpm::command::{self, CommandError, handle};
use vtpm::predict::{Inputs, Prediction, predict, volume_key_pcr15};
use vtpm::vars::VarStore;

use self::disk::{Disk, Window};
use self::image::{FILESYSTEM_BYTES, LUKS_UUID, ROOT_START};

/// The volume's sectors.
const BLOCK: u64 = 4096;
/// Begins the block with the count of boots.
const COUNTER: &[u8] = b"count of boots: ";

/// What a guest reaches of its surroundings.
pub trait Devices {
    /// Switches the TPM on; false if it cannot be used.
    fn power_on(&self) -> bool;
    /// Runs a TPM command. A TPM that is gone answers nothing.
    fn tpm(&self, command: &[u8]) -> Vec<u8>;
    /// The OS disk.
    fn disk(&self) -> Arc<dyn Disk>;
}

/// A machine that was switched on.
pub struct Guest<D> {
    devices: D,
}

/// Why the initramfs could not open the volume.
#[derive(Debug, PartialEq, Eq)]
pub enum NoVolume {
    /// The TPM's answer to the step.
    Tpm(&'static str, u32),
    /// The header has no token.
    NoToken,
    /// What was unsealed opens no keyslot.
    NoKeyslot,
    /// A device is gone.
    NoDevice,
}

impl<D: Devices> Guest<D> {
    /// Power on: firmware, loader and kernel measure what lies on the disk.
    pub fn boot(devices: impl Into<D>, vars: &std::path::Path) -> Self {
        let guest = Self::power_on(devices);
        for event in guest.prediction(vars).events {
            guest.extend(event.pcr, &event.digest);
        }
        guest
    }

    /// Power on and start, nothing measured yet.
    pub fn power_on(devices: impl Into<D>) -> Self {
        let devices = devices.into();
        assert!(devices.power_on(), "the TPM has no power");
        let guest = Self { devices };
        guest.tpm(&command::startup_clear(), command::success).expect("a TPM that starts");
        // The firmware takes the platform hierarchy.
        guest
            .tpm(&command::hierarchy_change_auth(handle::PLATFORM, &[], &[5; 32]), command::success)
            .expect("a platform hierarchy without an owner");
        guest
    }

    /// What a boot from this disk measures.
    pub fn prediction(&self, vars: &std::path::Path) -> Prediction {
        let store = VarStore::parse(&std::fs::read(vars).expect("variables")).expect("a store of variables");
        let mut disk = Window::whole(self.devices.disk());
        predict(Inputs::from_vars(&mut disk, &store)).expect("a disk that boots")
    }

    /// Extends a PCR.
    pub fn extend(&self, pcr: u8, digest: &[u8; 32]) {
        self.tpm(&command::pcr_extend(pcr, digest), command::success).expect("extended");
    }

    /// Runs a TPM command and reads its answer.
    pub fn tpm<T>(
        &self,
        bytes: &[u8],
        parse: fn(&[u8]) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        parse(&self.devices.tpm(bytes))
    }

    /// What systemd-cryptsetup does: token, import, load, policy, unseal, keyslot, measure.
    pub fn open_volume(&self) -> Result<VolumeKey, NoVolume> {
        let mut header = vec![0; 4 << 20];
        self.devices.disk().read_at(&mut header, ROOT_START).map_err(|_| NoVolume::NoDevice)?;
        let checked = luks2::check(&header).expect("a LUKS2 header");
        let token = checked.tpm2_token().ok_or(NoVolume::NoToken)?;
        let secret = self.unseal(token)?;
        let passphrase = Passphrase::from_text(public_api::encoding::to_base64(&secret));
        let key = checked.unlock(&header, &passphrase).map_err(|_| NoVolume::NoKeyslot)?;
        self.measure(&key);
        Ok(key)
    }

    /// Measures the opened volume.
    pub fn measure(&self, key: &VolumeKey) {
        let digest = volume_key_pcr15(key.expose(), "root", LUKS_UUID).0;
        // systemd ignores whether measuring worked.
        let _ = self.tpm(&command::pcr_extend(15, &digest), command::success);
    }

    /// The root file system's volume name under this key, read from the disk.
    pub fn superblock_magic(&self, key: &VolumeKey) -> [u8; 2] {
        let sector = self.read_block(key, 0).expect("a disk that reads");
        [sector[1024 + 56], sector[1024 + 57]]
    }

    /// Counts the boots of this volume in its last block, as a guest that keeps data does.
    pub fn count_boot(&self, key: &VolumeKey) -> std::io::Result<u64> {
        let at = FILESYSTEM_BYTES - BLOCK;
        let mut block = self.read_block(key, at)?;
        // The block is free in the image's file system, so it was not written before.
        let count = match block.strip_prefix(COUNTER).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => u64::from_le_bytes(*bytes) + 1,
            None => 1,
        };
        block[..COUNTER.len()].copy_from_slice(COUNTER);
        block[COUNTER.len()..][..8].copy_from_slice(&count.to_le_bytes());
        cipher(key).encrypt_in_place(&mut block, at / 512, block_size());
        self.devices.disk().write_at(&block, ROOT_START + luks2::DATA_OFFSET + at)?;
        Ok(count)
    }

    fn read_block(&self, key: &VolumeKey, at: u64) -> std::io::Result<Vec<u8>> {
        let mut block = vec![0; block_size()];
        self.devices.disk().read_at(&mut block, ROOT_START + luks2::DATA_OFFSET + at)?;
        cipher(key).decrypt_in_place(&mut block, at / 512, block_size());
        Ok(block)
    }

    fn unseal(&self, token: &serde_json::Value) -> Result<Vec<u8>, NoVolume> {
        let blob = token["tpm2-blob"].as_str().expect("a blob");
        let blob = public_api::encoding::from_base64_any(blob).expect("Base64");
        let (duplicate, rest) = tpm2b(&blob);
        let (public, seed) = tpm2b(rest);
        let pcrs: Vec<u8> = serde_json::from_value(token["tpm2-pcrs"].clone()).expect("PCRs");
        let srk = vtpm::hcl::HANDLE_SRK;
        let import = [&[0, 0], public, duplicate, seed, &[0, 0x10]].concat();
        let response = self.step("import", &with_password(0x156, srk, &import))?;
        let private = &response[14..14 + u32_at(&response, 10)];
        let load = [private, public].concat();
        let object = u32_at(&self.step("load", &with_password(0x157, srk, &load))?, 10);
        let nonce = [&[0, 16][..], &[9; 16]].concat();
        let start = [&0x4000_0007u32.to_be_bytes()[..], &0x4000_0007u32.to_be_bytes(), &nonce];
        let start = [&start.concat()[..], &[0, 0, 1, 0, 0x10, 0, 0x0b]].concat();
        let session = &self.step("session", &frame(0x8001, 0x176, &start))?[10..14];
        let policy = [session, &[0, 0], &command::pcr_selection(&pcrs)].concat();
        self.step("policy", &frame(0x8001, 0x17f, &policy))?;
        let object = u32::try_from(object).expect("a handle").to_be_bytes();
        let unseal = [&object[..], &9u32.to_be_bytes(), session, &[0, 0, 0, 0, 0]].concat();
        let response = self.step("unseal", &frame(0x8002, 0x15e, &unseal))?;
        Ok(tpm2b(&response[14..]).0[2..].to_vec())
    }

    fn step(&self, what: &'static str, bytes: &[u8]) -> Result<Vec<u8>, NoVolume> {
        let response = self.devices.tpm(bytes);
        if response.is_empty() {
            return Err(NoVolume::NoDevice);
        }
        match u32_at(&response, 6) {
            0 => Ok(response),
            code => Err(NoVolume::Tpm(what, u32::try_from(code).expect("a code"))),
        }
    }
}

fn cipher(key: &VolumeKey) -> Xts {
    Xts::new(key.expose()).expect("a volume key of two halves")
}

fn block_size() -> usize {
    usize::try_from(BLOCK).expect("a small number")
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// A TPM2B with its size, and what follows.
fn tpm2b(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(2 + usize::from(u16::from_be_bytes(bytes[..2].try_into().expect("two bytes"))))
}

fn frame(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(10 + body.len()).expect("a short command");
    [&tag.to_be_bytes()[..], &length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

fn with_password(code: u32, handle: u32, parameters: &[u8]) -> Vec<u8> {
    let session = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0];
    frame(0x8002, code, &[&handle.to_be_bytes()[..], &session, parameters].concat())
}

/// PCR values that the TPM shows.
pub fn pcrs<D: Devices>(guest: &Guest<D>, wanted: &[u8]) -> BTreeMap<u8, [u8; 32]> {
    guest.tpm(&command::pcr_read(wanted), command::pcr_values).expect("PCRs").0
}
