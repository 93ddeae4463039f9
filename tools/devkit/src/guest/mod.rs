//! A guest as the paravisor sees it: firmware and loaders that measure, an initramfs that unseals and measures the volume's
//! key. Speaks to the TPM and reads the disk by nothing but the devices that QEMU would get.

use std::collections::BTreeMap;

use paravisor::flow::start::Running;
use paravisor::tpm::server::TpmDevice as _;
use sealed_disk::luks2;
use sealed_disk::secret::{Passphrase, VolumeKey};
use sealed_disk::xts::Xts;
use vtpm::command::{self, CommandError, handle};
use vtpm::predict::{Inputs, Prediction, predict, volume_key_pcr15};
use vtpm::vars::VarStore;

use super::disk::Window;
use super::image::{LUKS_UUID, ROOT_START};

/// A machine that was switched on.
pub struct Guest<'a> {
    running: &'a Running,
}

/// Why the initramfs could not open the volume.
#[derive(Debug, PartialEq, Eq)]
pub enum NoVolume {
    /// The TPM's answer to the step.
    Tpm(&'static str, u32),
    NoToken,
    NoKeyslot,
}

impl<'a> Guest<'a> {
    /// Power on: firmware, loader and kernel measure what lies on the disk.
    pub fn boot(running: &'a Running, vars: &std::path::Path) -> Self {
        let guest = Self::power_on(running);
        for event in guest.prediction(vars).events {
            guest.extend(event.pcr, &event.digest);
        }
        guest
    }

    /// Power on and start, nothing measured yet.
    pub fn power_on(running: &'a Running) -> Self {
        assert!(running.tpm().lock().unwrap().power_on());
        let guest = Self { running };
        guest.tpm(&command::startup_clear(), command::success).unwrap();
        // The firmware takes the platform hierarchy.
        guest
            .tpm(&command::hierarchy_change_auth(handle::PLATFORM, &[], &[5; 32]), command::success)
            .unwrap();
        guest
    }

    /// What a boot from this disk measures.
    pub fn prediction(&self, vars: &std::path::Path) -> Prediction {
        let store = VarStore::parse(&std::fs::read(vars).unwrap()).unwrap();
        let mut disk = Window::whole(self.running.disk());
        predict(Inputs::from_vars(&mut disk, &store)).unwrap()
    }

    pub fn extend(&self, pcr: u8, digest: &[u8; 32]) {
        self.tpm(&command::pcr_extend(pcr, digest), command::success).unwrap();
    }

    pub fn tpm<T>(
        &self,
        bytes: &[u8],
        parse: fn(&[u8]) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        parse(&self.running.tpm().lock().unwrap().command(bytes))
    }

    /// What systemd-cryptsetup does: token, import, load, policy, unseal, keyslot, measure.
    pub fn open_volume(&self) -> Result<VolumeKey, NoVolume> {
        let mut header = vec![0; 4 << 20];
        self.running.disk().read_at(&mut header, ROOT_START).unwrap();
        let checked = luks2::check(&header).unwrap();
        let token = checked.tpm2_token().ok_or(NoVolume::NoToken)?;
        let secret = self.unseal(token)?;
        let passphrase = Passphrase::from_text(public_api::encoding::to_base64(&secret));
        let key = checked.unlock(&header, &passphrase).map_err(|_| NoVolume::NoKeyslot)?;
        self.measure(&key);
        Ok(key)
    }

    pub fn measure(&self, key: &VolumeKey) {
        let digest = volume_key_pcr15(key.expose(), "root", LUKS_UUID).0;
        // systemd ignores whether measuring worked.
        let _ = self.tpm(&command::pcr_extend(15, &digest), command::success);
    }

    /// The root file system's volume name under this key, read from the disk.
    pub fn superblock_magic(&self, key: &VolumeKey) -> [u8; 2] {
        let mut sector = vec![0; 4096];
        self.running.disk().read_at(&mut sector, ROOT_START + luks2::DATA_OFFSET).unwrap();
        Xts::new(key.expose()).unwrap().decrypt_in_place(&mut sector, 0, 4096);
        [sector[1024 + 56], sector[1024 + 57]]
    }

    fn unseal(&self, token: &serde_json::Value) -> Result<Vec<u8>, NoVolume> {
        let blob = token["tpm2-blob"].as_str().unwrap();
        let blob = public_api::encoding::from_base64_any(blob).unwrap();
        let (duplicate, rest) = tpm2b(&blob);
        let (public, seed) = tpm2b(rest);
        let pcrs: Vec<u8> = serde_json::from_value(token["tpm2-pcrs"].clone()).unwrap();
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
        let object = u32::try_from(object).unwrap().to_be_bytes();
        let unseal = [&object[..], &9u32.to_be_bytes(), session, &[0, 0, 0, 0, 0]].concat();
        let response = self.step("unseal", &frame(0x8002, 0x15e, &unseal))?;
        Ok(tpm2b(&response[14..]).0[2..].to_vec())
    }

    fn step(&self, what: &'static str, bytes: &[u8]) -> Result<Vec<u8>, NoVolume> {
        let response = self.running.tpm().lock().unwrap().command(bytes);
        match u32_at(&response, 6) {
            0 => Ok(response),
            code => Err(NoVolume::Tpm(what, u32::try_from(code).unwrap())),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// A TPM2B with its size, and what follows.
fn tpm2b(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(2 + usize::from(u16::from_be_bytes(bytes[..2].try_into().unwrap())))
}

fn frame(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(10 + body.len()).unwrap();
    [&tag.to_be_bytes()[..], &length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

fn with_password(code: u32, handle: u32, parameters: &[u8]) -> Vec<u8> {
    let session = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0];
    frame(0x8002, code, &[&handle.to_be_bytes()[..], &session, parameters].concat())
}

/// PCR values that the TPM shows.
pub fn pcrs(guest: &Guest<'_>, wanted: &[u8]) -> BTreeMap<u8, [u8; 32]> {
    guest.tpm(&command::pcr_read(wanted), command::pcr_values).unwrap().0
}
