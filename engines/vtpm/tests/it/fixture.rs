//! A bootable disk in memory: GPT, FAT, signed loaders, entries; and the firmware variables that accept it.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use vtpm::gpt::{TYPE_ESP, crc32};
use vtpm::guid::{CERT_X509, Guid, SHIM};
use vtpm::predict::{Inputs, PredictError, Prediction, predict};
use vtpm::vars::{LoaderVars, SecureBootState};

use super::image::{kernel, pe};
use super::signing::{Authority, PLATFORM, STRANGER, VENDOR};

pub const KERNEL: &str = "debian/6.12.2/linux";
pub const INITRD: &str = "debian/6.12.2/initrd.img";
pub const ENTRY: &str = "loader/entries/debian-6.12.2.conf";
pub const LOADER: &str = "EFI/BOOT/grubx64.efi";
const OWNER: Guid = Guid::new(0x77fa_9abd, 0x0359, 0x4d32, 0xbd60, 0x28f4_e78f_784b);
const ESP_START: usize = 1 << 20;
const ESP_SIZE: usize = 4 << 20;

/// What a boot starts from, to be changed by a test before it is predicted.
#[derive(Clone)]
pub struct Machine {
    pub files: BTreeMap<String, Vec<u8>>,
    pub secure_boot: SecureBootState,
    pub loader_vars: LoaderVars,
    pub sbat_level: Option<Vec<u8>>,
}

/// EFI_SIGNATURE_LIST of certificates.
pub fn signature_list(owner: &Guid, certificate: &[u8]) -> Vec<u8> {
    let entry = u32::try_from(16 + certificate.len()).unwrap();
    let sizes = [entry + 28, 0, entry].map(u32::to_le_bytes).concat();
    [CERT_X509.as_bytes(), &sizes[..], owner.as_bytes(), certificate].concat()
}

/// shim: revocation levels and the vendor's certificate.
pub fn shim() -> Vec<u8> {
    let levels =
        [&[0; 4][..], &8u32.to_le_bytes(), &40u32.to_le_bytes(), b"sbat,1,2025021800\nshim,4\ngrub,5\n\0"]
            .concat();
    let levels = [&levels[..], b"sbat,1,2025051000\nshim,4\n\0"].concat();
    let revocations = signature_list(&SHIM, &STRANGER.certificate);
    let (length, revoked) = (VENDOR.certificate.len(), revocations.len());
    let sizes = [length, revoked, 16, 16 + length].map(|size| u32::try_from(size).unwrap().to_le_bytes());
    let vendor = [&sizes.concat()[..], &VENDOR.certificate, &revocations].concat();
    PLATFORM.sign(&pe(&[(".text", b"shim"), (".sbatlevel", &levels), (".vendor_cert", &vendor)]))
}

/// systemd-boot signed by somebody.
pub fn systemd_boot(signer: &Authority) -> Vec<u8> {
    signer.sign(&pe(&[(".text", b"loader"), (".sdmagic", b"#### LoaderInfo: systemd-boot 257.13 ####")]))
}

/// A type #1 entry.
pub fn entry(version: &str, options: &str) -> Vec<u8> {
    format!(
        "# comment\ntitle      Debian\nversion    {version}\nsort-key   debian\noptions    {options}\n\
         linux      /debian/{version}/linux\ninitrd     /debian/{version}/initrd.img\n"
    )
    .into_bytes()
}

impl Machine {
    /// shim, systemd-boot, one entry, Secure Boot on.
    pub fn new() -> Self {
        let files: [(&str, Vec<u8>); 6] = [
            ("EFI/BOOT/BOOTX64.EFI", shim()),
            (LOADER, systemd_boot(&VENDOR)),
            (KERNEL, VENDOR.sign(&kernel("6.12.2", b"kernel"))),
            (INITRD, b"initrd".to_vec()),
            (ENTRY, entry("6.12.2", "rd.luks.name=u=root ro quiet")),
            ("loader/loader.conf", b"timeout menu-disabled\ndefault debian-*.conf\n".to_vec()),
        ];
        let db = [signature_list(&OWNER, &VENDOR_UNRELATED), signature_list(&OWNER, &PLATFORM.certificate)]
            .concat();
        Self {
            files: files.into_iter().map(|(path, content)| (path.to_owned(), content)).collect(),
            secure_boot: SecureBootState {
                secure_boot: true,
                pk: b"pk".to_vec(),
                kek: b"kek".to_vec(),
                db,
                dbx: b"dbx".to_vec(),
                ..SecureBootState::default()
            },
            loader_vars: LoaderVars::default(),
            sbat_level: None,
        }
    }

    pub fn with(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_owned(), content.into());
        self
    }

    /// A file in the root directory.
    pub fn with_root(self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.with(&format!("/{name}"), content)
    }

    pub fn without(mut self, path: &str) -> Self {
        self.files.remove(path).unwrap();
        self
    }

    pub fn predict(&self) -> Result<Prediction, PredictError> {
        self.predict_on(&mut self.disk())
    }

    pub fn predict_on(&self, disk: &mut Cursor<Vec<u8>>) -> Result<Prediction, PredictError> {
        predict(Inputs {
            disk,
            secure_boot: self.secure_boot.clone(),
            loader_vars: self.loader_vars.clone(),
            sbat_level: self.sbat_level.clone(),
        })
    }

    pub fn disk(&self) -> Cursor<Vec<u8>> {
        let mut disk = vec![0; ESP_START + ESP_SIZE + (1 << 20)];
        disk[ESP_START..ESP_START + ESP_SIZE].copy_from_slice(&file_system(&self.files));
        write_table(&mut disk, &[(TYPE_ESP, ESP_START, ESP_SIZE)]);
        Cursor::new(disk)
    }
}

/// Another authority's bytes in front of the right one in `db`; no certificate at all.
static VENDOR_UNRELATED: [u8; 40] = [0x30; 40];

fn file_system(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut storage = Cursor::new(vec![0; ESP_SIZE]);
    fatfs::format_volume(&mut storage, fatfs::FormatVolumeOptions::new()).unwrap();
    let volume = fatfs::FileSystem::new(&mut storage, fatfs::FsOptions::new()).unwrap();
    for (path, content) in files {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let mut folder = volume.root_dir();
        for part in directory.split('/').filter(|part| !part.is_empty()) {
            folder = folder.create_dir(part).unwrap();
        }
        folder.create_file(name).unwrap().write_all(content).unwrap();
    }
    drop(volume);
    storage.into_inner()
}

/// Writes protective MBR and primary table.
pub fn write_table(disk: &mut [u8], partitions: &[(Guid, usize, usize)]) {
    disk[0x1C2] = 0xEE;
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    for (number, (kind, start, length)) in partitions.iter().enumerate() {
        let entry = &mut disk[1024 + number * 128..][..128];
        entry[..16].copy_from_slice(kind.as_bytes());
        entry[16] = u8::try_from(number + 1).unwrap();
        let (first, last) = ((start / 512) as u64, ((start + length) / 512 - 1) as u64);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    let entries = crc32(&disk[1024..1024 + 128 * 128]);
    let header = &mut disk[512..604];
    header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5C\0\0\0");
    header[16..20].fill(0);
    header[24] = 1;
    header[72] = 2;
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&entries.to_le_bytes());
    let crc = crc32(header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
}
