//! A small image of the default kind: systemd-boot, one entry, an ext4 that leaves room for a LUKS2 header. Its programs
//! are PE files without code.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sealed_disk::image::{Facts, Manifest};
use uuid::Uuid;

use super::disk::Esp;

const MIB: u64 = 1 << 20;
pub const IMAGE_BYTES: u64 = 64 * MIB;
/// The VM's disk is larger than the image.
pub const DISK_BYTES: u64 = 96 * MIB;
pub const ESP_START: u64 = MIB;
const ESP_BYTES: u64 = 24 * MIB;
pub const ROOT_START: u64 = ESP_START + ESP_BYTES;
const FILESYSTEM_BYTES: u64 = 16 * MIB;
const ROOT_BYTES: u64 = FILESYSTEM_BYTES + 16 * MIB;
pub const LUKS_UUID: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

pub const OPTIONS: &str = "rd.luks.name=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee=root \
    rd.luks.options=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee=tpm2-device=auto,headless=true,tpm2-measure-pcr=yes \
    systemd.setenv=SYSTEMD_FORCE_MEASURE=1 systemd.import_credentials=no rd.shell=0 rd.emergency=poweroff \
    root=/dev/mapper/root ro console=ttyS0";

/// An image and its manifest's bytes.
pub struct Image {
    pub path: PathBuf,
    pub manifest: Vec<u8>,
}

/// The image of all tests; made once.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| make_in(&crate::support::lasting_folder("image"), OPTIONS))
}

/// An image in `folder` whose entry has these options.
pub fn make_in(folder: &Path, options: &str) -> Image {
    let path = folder.join("image.raw");
    let file = File::create_new(&path).unwrap();
    file.set_len(IMAGE_BYTES).unwrap();
    run(
        "sgdisk",
        &[
            "-a1",
            &format!("-n1:{}:{}", ESP_START / 512, (ESP_START + ESP_BYTES) / 512 - 1),
            "-t1:ef00",
            &format!("-n2:{}:{}", ROOT_START / 512, (ROOT_START + ROOT_BYTES) / 512 - 1),
            "-t2:8304",
            path.to_str().unwrap(),
        ],
    );
    root(&path, folder);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let esp = Esp::format(file.try_clone().unwrap(), ESP_START, ESP_BYTES);
    esp.write("EFI/BOOT/BOOTX64.EFI", &pe(".sdmagic", b"#### LoaderInfo: systemd-boot 257 ####", b""));
    esp.write("loader/loader.conf", b"timeout menu-disabled\neditor no\ndefault debian-*.conf\n");
    add_kernel(&esp, "6.12.115", options);
    drop(esp);
    let facts = Facts {
        name: "test".to_owned(),
        luks_uuid: Uuid::parse_str(LUKS_UUID).unwrap(),
        mapping: "root".to_owned(),
        loader: "systemd-boot".to_owned(),
    };
    let manifest = Manifest::build(&file, facts).unwrap().to_bytes();
    Image { path, manifest }
}

/// What Debian's hooks do when a kernel is installed.
pub fn add_kernel(esp: &Esp, version: &str, options: &str) {
    esp.write(&format!("debian/{version}/linux"), &kernel(version));
    esp.write(&format!("debian/{version}/initrd.img-{version}"), format!("initrd of {version}").as_bytes());
    let entry = format!(
        "title Debian\nversion {version}\nsort-key debian\noptions {options}\nlinux /debian/{version}/linux\n\
         initrd /debian/{version}/initrd.img-{version}\n"
    );
    esp.write(&format!("loader/entries/debian-{version}.conf"), entry.as_bytes());
}

/// A bzImage as far as anybody looks: a PE file with a set-up header that names its release.
pub fn kernel(version: &str) -> Vec<u8> {
    let mut setup = vec![0; 0x400];
    setup[0x202..0x206].copy_from_slice(b"HdrS");
    setup[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    setup[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    pe(".text", b"kernel", &setup)
}

fn root(image: &Path, folder: &Path) {
    let root = folder.join("root.ext4");
    File::create_new(&root).unwrap().set_len(FILESYSTEM_BYTES).unwrap();
    run("mkfs.ext4", &["-q", "-F", "-b", "4096", root.to_str().unwrap()]);
    let mut target = File::options().write(true).open(image).unwrap();
    target.seek(SeekFrom::Start(ROOT_START)).unwrap();
    target.write_all(&std::fs::read(root).unwrap()).unwrap();
}

fn run(program: &str, arguments: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (packages gdisk, e2fsprogs): {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A PE32+ file of one section behind 4 KiB of headers, with `front` from its start where the headers leave room.
pub fn pe(section: &str, content: &[u8], front: &[u8]) -> Vec<u8> {
    const PE: usize = 0x800;
    const HEADERS: usize = 0x1000;
    let mut file = vec![0; HEADERS];
    file[..front.len()].copy_from_slice(front);
    file[..2].copy_from_slice(b"MZ");
    file[0x3c..0x40].copy_from_slice(&u32::try_from(PE).unwrap().to_le_bytes());
    let mut put = |at: usize, bytes: &[u8]| file[PE + at..PE + at + bytes.len()].copy_from_slice(bytes);
    put(0, b"PE\0\0");
    put(4, &0x8664u16.to_le_bytes());
    put(6, &1u16.to_le_bytes());
    put(20, &240u16.to_le_bytes());
    put(24, &0x20bu16.to_le_bytes());
    put(24 + 60, &u32::try_from(HEADERS).unwrap().to_le_bytes());
    put(24 + 108, &16u32.to_le_bytes());
    let size = u32::try_from(content.len()).unwrap().to_le_bytes();
    let at = u32::try_from(HEADERS).unwrap().to_le_bytes();
    let table = 24 + 240;
    put(table, section.as_bytes());
    put(table + 8, &size);
    put(table + 12, &at);
    put(table + 16, &size);
    put(table + 20, &at);
    file.extend_from_slice(content);
    file
}
