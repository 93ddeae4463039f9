//! The images: made of noise, or a built one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealed_disk::image::{Facts, Manifest};
use sealed_disk::secret::VolumeKey;
use sealed_disk::xts::Xts;
use uuid::Uuid;

use super::{GIB, MIB, create, peer, run};

/// Where the root file system begins.
pub(super) const ROOT_START: u64 = 201 * MIB;

/// Puts an image into a folder; its path.
pub(super) type Make = Box<dyn Fn(&Path) -> Option<String>>;

/// An image to measure with.
pub(super) struct Image {
    pub(super) name: String,
    pub(super) size: u64,
    /// What is not a hole.
    pub(super) data: u64,
    pub(super) make: Make,
}

/// All images.
pub(super) fn images(folder: &Path) -> impl Iterator<Item = Image> + use<> {
    let made = [("dense", GIB, GIB), ("sparse", 4 * GIB, 6 * GIB / 10)].map(|(name, size, data)| Image {
        name: name.to_owned(),
        size,
        data,
        make: Box::new(move |folder: &Path| make_image(folder, size, data)),
    });
    let built =
        std::env::var_os("CASEMATE_BENCH_IMAGE").map(|built| built_image(&PathBuf::from(built), folder));
    made.into_iter().chain(built)
}

/// A copy of a built image, without holes where it has data.
fn built_image(built: &Path, folder: &Path) -> Image {
    use std::os::unix::fs::MetadataExt as _;
    let (source, target) = (built.to_owned(), folder.join("built"));
    let facts = std::fs::metadata(source.join("disk.raw")).expect("disk.raw of the built image");
    let make = move |_: &Path| {
        run(Command::new("cp").arg("--sparse=always").arg(source.join("disk.raw")).arg(&target));
        std::fs::copy(source.join("manifest.json"), target.with_extension("manifest"))
            .expect("manifest.json");
        Some(target.display().to_string())
    };
    Image { name: "built".to_owned(), size: facts.size(), data: facts.blocks() * 512, make: Box::new(make) }
}

/// GPT, ESP, and an ext4 whose first `data` bytes hold noise; with its manifest beside it.
fn make_image(folder: &Path, size: u64, data: u64) -> Option<String> {
    let (sgdisk, mkfs) = (peer("sgdisk", |path| path)?, peer("mkfs.ext4", |path| path)?);
    let path = folder.join(format!("image-{size}"));
    let image = create(&path);
    image.set_len(size).expect("room");
    let root_end = size - MIB;
    run(Command::new(sgdisk)
        .args(["-a2048", &format!("-n1:2048:{}", ROOT_START / 512 - 1), "-t1:ef00"])
        .args([&format!("-n2:{}:{}", ROOT_START / 512, root_end / 512 - 1), "-t2:8304"])
        .arg(&path));
    let filesystem = root_end - ROOT_START - 16 * MIB;
    run(Command::new(mkfs)
        .args(["-q", "-F", "-b", "4096", "-E", &format!("offset={ROOT_START}"), "-m", "0"])
        .arg(&path)
        .arg((filesystem / 4096).to_string()));
    fill(&image, MIB, 35 * MIB).expect("filled");
    fill(&image, ROOT_START, data.min(filesystem)).expect("filled");
    image.sync_data().expect("synced");
    let facts = Facts {
        name: "bench".into(),
        luks_uuid: Uuid::nil(),
        mapping: "root".into(),
        loader: "systemd-boot".into(),
    };
    let manifest = Manifest::build(&image, facts).expect("an image as it should be");
    std::fs::write(path.with_extension("manifest"), manifest.to_bytes()).expect("written");
    Some(path.display().to_string())
}

/// Puts noise into blocks of zeros.
fn fill(image: &File, start: u64, length: u64) -> io::Result<()> {
    let mut noise = vec![0; MIB as usize];
    let mut block = [0; 4096];
    Xts::new(VolumeKey::random().expose())
        .expect("random halves differ")
        .encrypt_in_place(&mut noise, 0, 4096);
    for offset in (start..start + length).step_by(4096) {
        image.read_exact_at(&mut block, offset)?;
        if block.iter().all(|&byte| byte == 0) {
            let at = (offset % MIB) as usize;
            let mut bytes = noise[at..at + 4096].to_vec();
            bytes[..8].copy_from_slice(&offset.to_le_bytes());
            image.write_all_at(&bytes, offset)?;
        }
    }
    Ok(())
}
