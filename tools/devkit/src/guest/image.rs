//! A small image of the default kind: systemd-boot, one entry, an ext4 that leaves room for a LUKS2 header. Its programs
//! are PE files without code. Its functions panic where they fail: nobody can go on without it.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use sealed_disk::image::{Facts, Manifest};
use uuid::Uuid;

use super::disk::Esp;

const MIB: u64 = 1 << 20;
/// Size of the image.
pub const IMAGE_BYTES: u64 = 64 * MIB;
/// Where the boot partition begins.
pub const ESP_START: u64 = MIB;
/// Size of the boot partition.
pub const ESP_BYTES: u64 = 24 * MIB;
/// Where the root partition begins.
pub const ROOT_START: u64 = ESP_START + ESP_BYTES;
/// Size of the root file system.
pub const FILESYSTEM_BYTES: u64 = 16 * MIB;
/// Size of the root partition.
pub const ROOT_BYTES: u64 = FILESYSTEM_BYTES + 16 * MIB;
/// Of the LUKS2 volume that it becomes.
pub const LUKS_UUID: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

/// The kernel command line of the default image.
pub const OPTIONS: &str = "rd.luks.name=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee=root \
    rd.luks.options=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee=tpm2-device=auto,headless=true,tpm2-measure-pcr=yes \
    systemd.setenv=SYSTEMD_FORCE_MEASURE=1 systemd.import_credentials=no rd.shell=0 rd.emergency=poweroff \
    root=/dev/mapper/root ro console=ttyS0";

/// An image and its manifest's bytes.
pub struct Image {
    /// The raw image.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Vec<u8>,
}

/// An image in `folder` whose entry has these options. Its programs are not signed.
pub fn make_in(folder: &Path, options: &str) -> Image {
    make_signed_in(folder, options, &|program| program)
}

/// As [`make_in`], with programs that `sign` signs.
pub fn make_signed_in(folder: &Path, options: &str, sign: &dyn Fn(Vec<u8>) -> Vec<u8>) -> Image {
    let path = folder.join("image.raw");
    let file = File::create_new(&path).expect("a new file");
    file.set_len(IMAGE_BYTES).expect("a sparse file");
    run(
        "sgdisk",
        &[
            "-a1",
            &format!("-n1:{}:{}", ESP_START / 512, (ESP_START + ESP_BYTES) / 512 - 1),
            "-t1:ef00",
            &format!("-n2:{}:{}", ROOT_START / 512, (ROOT_START + ROOT_BYTES) / 512 - 1),
            "-t2:8304",
            &path.display().to_string(),
        ],
    );
    root(&path, folder);
    let file = File::options().read(true).write(true).open(&path).expect("the image");
    let esp = Esp::format(file.try_clone().expect("a descriptor"), ESP_START, ESP_BYTES);
    let loader = pe(".sdmagic", b"#### LoaderInfo: systemd-boot 257 ####", b"");
    esp.write("EFI/BOOT/BOOTX64.EFI", &sign(loader));
    esp.write("loader/loader.conf", b"timeout menu-disabled\neditor no\ndefault debian-*.conf\n");
    let version = "6.12.115";
    add_entry(&esp, version, options, &sign(kernel(version)));
    drop(esp);
    let facts = Facts {
        name: "test".to_owned(),
        luks_uuid: Uuid::parse_str(LUKS_UUID).expect("a UUID"),
        mapping: "root".to_owned(),
        loader: "systemd-boot".to_owned(),
    };
    let manifest = Manifest::build(&file, facts).expect("an image").to_bytes();
    Image { path, manifest }
}

/// What Debian's hooks do when a kernel is installed.
pub fn add_kernel(esp: &Esp, version: &str, options: &str) {
    add_entry(esp, version, options, &kernel(version));
}

fn add_entry(esp: &Esp, version: &str, options: &str, kernel: &[u8]) {
    esp.write(&format!("debian/{version}/linux"), kernel);
    esp.write(&format!("debian/{version}/initrd.img-{version}"), &super::initramfs::whole(version));
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
    File::create_new(&root).and_then(|file| file.set_len(FILESYSTEM_BYTES)).expect("a sparse file");
    run("mkfs.ext4", &["-q", "-F", "-b", "4096", &root.display().to_string()]);
    let mut target = File::options().write(true).open(image).expect("the image");
    target.seek(SeekFrom::Start(ROOT_START)).expect("its root partition");
    target.write_all(&std::fs::read(root).expect("the file system")).expect("written");
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (`scripts/setup.sh` installs it): {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A PE32+ file of one section behind 4 KiB of headers, with `front` from its start where the headers leave room.
pub fn pe(section: &str, content: &[u8], front: &[u8]) -> Vec<u8> {
    const PE: usize = 0x800;
    const HEADERS: usize = 0x1000;
    let mut file = vec![0; HEADERS];
    file[..front.len()].copy_from_slice(front);
    file[..2].copy_from_slice(b"MZ");
    file[0x3c..0x40].copy_from_slice(&size_u32(PE).to_le_bytes());
    let mut put = |at: usize, bytes: &[u8]| file[PE + at..PE + at + bytes.len()].copy_from_slice(bytes);
    put(0, b"PE\0\0");
    put(4, &0x8664u16.to_le_bytes());
    put(6, &1u16.to_le_bytes());
    put(20, &240u16.to_le_bytes());
    put(24, &0x20bu16.to_le_bytes());
    put(24 + 60, &size_u32(HEADERS).to_le_bytes());
    put(24 + 108, &16u32.to_le_bytes());
    let size = size_u32(content.len()).to_le_bytes();
    let at = size_u32(HEADERS).to_le_bytes();
    let table = 24 + 240;
    put(table, section.as_bytes());
    put(table + 8, &size);
    put(table + 12, &at);
    put(table + 16, &size);
    put(table + 20, &at);
    file.extend_from_slice(content);
    file
}

fn size_u32(size: usize) -> u32 {
    u32::try_from(size).expect("a small file")
}
