//! Provisioning: the whole way from an image to an encrypted disk, read back with the system's own programs.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Mutex;

use sealed_disk::boot_region::BootRegion;
use sealed_disk::image::{DiskLayout, ESP_TYPE, Facts, ImageError, Layout, Manifest, ROOT_TYPE};
use sealed_disk::luks2::{self, DATA_OFFSET, Format, SectorSize};
use sealed_disk::provision::{Holes, Job, Progress, ProvisionError, Summary, encrypt_image};
use sealed_disk::secret::{Passphrase, Secret, VolumeKey};
use sealed_disk::xts::Xts;
use tempfile::TempDir;
use uuid::Uuid;

use crate::tools;

const VM: Uuid = Uuid::from_u128(0xA);
const UUID: Uuid = Uuid::from_u128(0xaaaa_bbbb);
const MIB: u64 = 1 << 20;
const ESP_BYTES: u64 = 8 * MIB;
const ROOT_START: u64 = 9 * MIB;

struct Fixture {
    folder: TempDir,
    /// Size of the root file system.
    filesystem: u64,
}

impl Fixture {
    /// An image of an ESP full of noise and an ext4 with some files; `None` if the programs are missing.
    fn new(filesystem: u64, reserve: u64, mkfs_options: &[&str]) -> Option<Self> {
        let (mkfs, sgdisk) = (tools::find("mkfs.ext4")?, tools::find("sgdisk")?);
        let fixture = Self { folder: TempDir::new().unwrap(), filesystem };
        let tree = fixture.path("tree");
        std::fs::create_dir(&tree).unwrap();
        for number in 0..40usize {
            std::fs::write(tree.join(format!("file{number}")), noise(number as u64, number * 30_000))
                .unwrap();
        }
        let root = fixture.path("root");
        File::create(&root).unwrap().set_len(filesystem).unwrap();
        let mut arguments = vec!["-q", "-F", "-b", "4096", "-d", tree.to_str().unwrap()];
        arguments.extend(mkfs_options);
        arguments.push(root.to_str().unwrap());
        tools::must(&mkfs, &arguments);
        let image = File::create(fixture.path("image")).unwrap();
        let root_bytes = filesystem + reserve;
        image.set_len(ROOT_START + root_bytes + MIB).unwrap();
        let root_end = (ROOT_START + root_bytes) / 512 - 1;
        let partitions = [
            "-a2048".to_owned(),
            format!("-n1:2048:{}", ROOT_START / 512 - 1),
            "-t1:ef00".into(),
            "-c1:esp".into(),
            format!("-n2:{}:{root_end}", ROOT_START / 512),
            "-t2:8304".into(),
            "-c2:root".into(),
            fixture.path("image").display().to_string(),
        ];
        tools::must(&sgdisk, &partitions);
        image.write_all_at(&noise(99, (ESP_BYTES / 2) as usize), MIB).unwrap();
        copy_sparse(&File::open(root).unwrap(), &image, ROOT_START);
        Some(fixture)
    }

    fn usual() -> Option<Self> {
        Self::new(96 * MIB, 16 * MIB, &[])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self) -> File {
        File::options().read(true).write(true).open(self.path("image")).unwrap()
    }

    fn manifest(&self) -> Manifest {
        Manifest::build(&self.image(), facts()).unwrap()
    }
}

fn facts() -> Facts {
    Facts { name: "test".into(), luks_uuid: UUID, mapping: "root".into(), loader: "systemd-boot".into() }
}

/// Bytes without pattern, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn copy_sparse(from: &File, to: &File, offset: u64) {
    let mut from = from;
    let (mut block, mut place) = (vec![0; 1 << 16], offset);
    loop {
        let length = from.read(&mut block).unwrap();
        if length == 0 {
            return;
        }
        if block[..length].iter().any(|&byte| byte != 0) {
            to.write_all_at(&block[..length], place).unwrap();
        }
        place += length as u64;
    }
}

struct Made {
    key: VolumeKey,
    header: Vec<u8>,
    passphrase: Passphrase,
    layout: DiskLayout,
    region: BootRegion<File>,
    disk: File,
    summary: Summary,
}

fn try_provision(
    fixture: &Fixture,
    manifest: &Manifest,
    extra: u64,
    holes: Holes,
) -> Result<Made, ProvisionError> {
    let (key, passphrase) = (VolumeKey::random(), Passphrase::of_secret(&Secret::<32>::random()));
    let header = Format {
        uuid: UUID,
        volume_key: &key,
        keyslots: vec![passphrase.clone()],
        tokens: vec![],
        sector_size: SectorSize::B4096,
    }
    .write()
    .unwrap();
    let layout = manifest.disk_layout(manifest.size + extra)?;
    let create = |name| {
        File::options().read(true).write(true).create(true).truncate(true).open(fixture.path(name)).unwrap()
    };
    let mut region = BootRegion::create(create("region"), VM, layout.spans(), &Secret::random())?;
    let disk = create("disk");
    let seen = Mutex::new(Vec::new());
    let (image, boot) = (fixture.image(), &mut region);
    let job = Job {
        image: &image,
        manifest,
        disk: &disk,
        layout,
        boot,
        volume_key: &key,
        luks_header: &header,
        holes,
    };
    let summary = encrypt_image(job, &|progress| seen.lock().unwrap().push(progress))?;
    check_progress(&seen.into_inner().unwrap());
    Ok(Made { key, header, passphrase, layout, region, disk, summary })
}

fn check_progress(seen: &[Progress]) {
    let last = seen.iter().map(|progress| progress.done).max().unwrap();
    assert_eq!(last, seen[0].total);
    assert!(seen.iter().all(|progress| progress.total == last && progress.done <= last));
}

impl Made {
    fn new(fixture: &Fixture, extra: u64, holes: Holes) -> Self {
        try_provision(fixture, &fixture.manifest(), extra, holes).unwrap()
    }

    /// The data segment, decrypted.
    fn plain(&self) -> Vec<u8> {
        let mut data = vec![0; (self.layout.data_end - self.layout.data_start) as usize];
        self.disk.read_exact_at(&mut data, self.layout.data_start).unwrap();
        Xts::new(self.key.expose()).unwrap().decrypt_in_place(&mut data, 0, 4096);
        data
    }

    /// The disk as the guest sees it (still encrypted), as one file.
    fn whole(&mut self, fixture: &Fixture) -> PathBuf {
        let path = fixture.path("whole");
        std::fs::copy(fixture.path("disk"), &path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for (start, end) in [(0, self.layout.data_start), (self.layout.data_end, self.layout.disk_bytes)] {
            let mut bytes = vec![0; (end - start) as usize];
            self.region.read_at(start, &mut bytes).unwrap();
            file.write_all_at(&bytes, start).unwrap();
        }
        path
    }
}

#[test]
fn the_layout_of_an_image_is_found() {
    let Some(fixture) = Fixture::usual() else { return };
    let layout = Layout::discover(&fixture.image()).unwrap();
    assert_eq!((layout.esp, layout.root, layout.filesystem_bytes), (1, 2, 96 * MIB));
    assert_eq!((layout.esp().start, layout.esp().bytes, layout.esp().type_guid), (MIB, ESP_BYTES, ESP_TYPE));
    assert_eq!((layout.root().start, layout.root().bytes), (ROOT_START, 112 * MIB));
    assert_eq!((layout.root().type_guid, layout.root().name.as_str()), (ROOT_TYPE, "root"));
}

#[test]
fn a_manifest_is_what_was_written() {
    let Some(fixture) = Fixture::usual() else { return };
    let manifest = fixture.manifest();
    let bytes = manifest.to_bytes();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    assert_eq!(manifest.chunks.len() as u64, manifest.size.div_ceil(MIB));
    let image = std::fs::read(fixture.path("image")).unwrap();
    for (chunk, digest) in image.chunks(1 << 20).zip(&manifest.chunks) {
        assert_eq!(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, chunk).as_ref(), digest.0);
    }
    let text = String::from_utf8(bytes).unwrap();
    for (from, to, expected) in [
        ("\"version\":1", "\"version\":2", "only version 1"),
        ("\"chunkSize\":1048576", "\"chunkSize\":4096", "only version 1"),
        ("\"root\":2", "\"root\":3", "root partition"),
        ("\"esp\":1", "\"esp\":7", "EFI system partition"),
        ("\"chunks\":[", "\"chunks\":[\"00\",", "SHA-256"),
        ("\"filesystemBytes\":100663296", "\"filesystemBytes\":309715200", "cannot be"),
        ("\"name\":\"test\"", "\"name\":\"test\",\"own\":1", "unknown field `own`"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let error = Manifest::parse(changed.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{from}: {error}");
    }
}

#[test]
fn the_encrypted_disk_holds_the_image() {
    let Some(fixture) = Fixture::usual() else { return };
    let mut made = Made::new(&fixture, 0, Holes::SkipFree);
    let image = std::fs::read(fixture.path("image")).unwrap();
    // Boot region: everything outside the data segment as in the image, but for the header.
    let mut head = vec![0; ROOT_START as usize];
    made.region.read_at(0, &mut head).unwrap();
    assert!(head == image[..ROOT_START as usize]);
    let mut tail = vec![0; MIB as usize];
    made.region.read_at(made.layout.data_end, &mut tail).unwrap();
    assert!(tail == image[image.len() - MIB as usize..]);
    let mut header = vec![0; DATA_OFFSET as usize];
    made.region.read_at(ROOT_START, &mut header).unwrap();
    assert!(
        header[..made.header.len()] == made.header
            && header[made.header.len()..].iter().all(|&byte| byte == 0)
    );
    let checked = luks2::check(&header).unwrap();
    assert_eq!(checked.unlock(&header, &made.passphrase).unwrap().expose(), made.key.expose());
    // Data segment: every block that is not free is there; what is not there was zeros and free.
    let (plain, root) = (made.plain(), &image[ROOT_START as usize..][..fixture.filesystem as usize]);
    let free = free_blocks(&fixture);
    let mut skipped = 0;
    for (number, (got, wanted)) in plain.chunks(4096).zip(root.chunks(4096)).enumerate() {
        if got != wanted {
            assert!(wanted.iter().all(|&byte| byte == 0), "block {number} has content");
            assert!(free.contains(&(number as u64)), "block {number} is in use");
            skipped += 4096;
        }
    }
    assert_eq!(made.summary, Summary { written: fixture.filesystem - skipped, skipped });
    assert!(skipped > 40 * MIB, "most of the file system is free");
}

/// What `dumpe2fs` calls free.
fn free_blocks(fixture: &Fixture) -> std::collections::BTreeSet<u64> {
    let dumpe2fs = tools::find("dumpe2fs").expect("it comes with mkfs.ext4");
    let text = tools::must(&dumpe2fs, &[fixture.path("root")]);
    let lists = text.lines().filter_map(|line| line.strip_prefix("  Free blocks: "));
    let ranges = lists.flat_map(|list| list.split(", ").filter(|range| !range.is_empty()));
    ranges
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<u64>().unwrap()..=last.parse::<u64>().unwrap()
        })
        .collect()
}

#[test]
fn the_host_gets_ciphertext_only() {
    let Some(fixture) = Fixture::usual() else { return };
    let mut made = Made::new(&fixture, 0, Holes::SkipFree);
    made.region.flush().unwrap();
    let disk = std::fs::read(fixture.path("disk")).unwrap();
    let (start, end) = (made.layout.data_start as usize, made.layout.data_end as usize);
    assert!(
        disk[..start].iter().chain(&disk[end..]).all(|&byte| byte == 0),
        "nothing outside the data segment"
    );
    let image = std::fs::read(fixture.path("image")).unwrap();
    let known: std::collections::HashSet<&[u8]> =
        image.chunks(64).filter(|piece| piece.iter().any(|&byte| byte != 0)).collect();
    for file in [disk, std::fs::read(fixture.path("region")).unwrap()] {
        assert!(!file.chunks(64).any(|piece| known.contains(piece)), "a piece of the image is in clear");
    }
    assert!(made.disk.metadata().unwrap().blocks() * 512 < 60 * MIB, "holes stay holes");
}

#[test]
fn every_block_is_written_when_asked_for() {
    let Some(fixture) = Fixture::usual() else { return };
    let made = Made::new(&fixture, 0, Holes::WriteAll);
    let image = std::fs::read(fixture.path("image")).unwrap();
    assert!(made.plain() == image[ROOT_START as usize..][..fixture.filesystem as usize]);
    assert_eq!(made.summary, Summary { written: fixture.filesystem, skipped: 0 });
    assert!(made.disk.metadata().unwrap().blocks() * 512 >= fixture.filesystem);
}

#[test]
fn every_block_of_a_larger_disk_is_written_when_asked_for() {
    let Some(fixture) = Fixture::new(40 * MIB, 16 * MIB, &[]) else { return };
    let made = Made::new(&fixture, 30 * MIB, Holes::WriteAll);
    let plain = made.plain();
    assert_eq!(made.summary, Summary { written: plain.len() as u64, skipped: 0 });
    assert!(plain[40 << 20..].iter().all(|&byte| byte == 0), "zeros, encrypted");
}

#[test]
fn a_larger_disk_has_a_larger_root_partition() {
    let Some(fixture) = Fixture::usual() else { return };
    let mut made = Made::new(&fixture, 300 * MIB + 512, Holes::SkipFree);
    let whole = made.whole(&fixture);
    let sgdisk = tools::find("sgdisk").unwrap();
    let verdict = tools::must(&sgdisk, &["-v", whole.to_str().unwrap()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let info = tools::must(&sgdisk, &["-i2", whole.to_str().unwrap()]);
    let last = (made.layout.data_end / 512 - 1).to_string();
    assert!(info.contains(&format!("Last sector: {last} ")), "{info}");
    assert_eq!(made.layout.data_end, (ROOT_START + 112 * MIB + MIB + 300 * MIB) / MIB * MIB - MIB);
    assert_eq!(std::fs::metadata(&whole).unwrap().len(), made.layout.disk_bytes);
    assert_eq!(
        Layout::discover(&File::open(&whole).unwrap()).err().map(|error| error.to_string()).as_deref(),
        Some("the image's root file system cannot be used: it is not ext4"),
        "it is encrypted now"
    );
}

#[test]
fn cryptsetup_and_e2fsck_accept_the_result() {
    let Some(fixture) = Fixture::usual() else { return };
    let (Some(e2fsck), Some(cryptsetup)) = (tools::find("e2fsck"), tools::find("cryptsetup")) else { return };
    let mut made = Made::new(&fixture, 100 * MIB, Holes::SkipFree);
    let whole = std::fs::read(made.whole(&fixture)).unwrap();
    let (partition, key) = (fixture.path("partition"), fixture.path("key"));
    std::fs::write(&partition, &whole[ROOT_START as usize..made.layout.data_end as usize]).unwrap();
    std::fs::write(&key, made.passphrase.expose()).unwrap();
    let arguments = [
        "open".to_owned(),
        "--test-passphrase".into(),
        format!("--key-file={}", key.display()),
        partition.display().to_string(),
    ];
    tools::must(&cryptsetup, &arguments);
    let plain = fixture.path("plain");
    std::fs::write(&plain, made.plain()).unwrap();
    tools::must(&e2fsck, &["-fn", plain.to_str().unwrap()]);
    let Some(debugfs) = tools::find("debugfs") else { return };
    let out = fixture.path("out");
    tools::must(&debugfs, &["-R", &format!("dump /file39 {}", out.display()), plain.to_str().unwrap()]);
    assert!(std::fs::read(out).unwrap() == noise(39, 39 * 30_000));
}

/// Other forms of ext4: what is free is right, or nothing counts as free.
#[test]
fn other_forms_of_ext4_lose_nothing() {
    // Groups of 16 MiB, so that a small file system has groups that were never used.
    let small = ["-g", "4096"];
    for (options, understood) in [
        (&["-O", "^64bit"][..], true),
        (&["-O", "^flex_bg"], true),
        (&["-O", "meta_bg,^resize_inode"], false),
        (&["-O", "^metadata_csum,uninit_bg"], true),
        (&["-O", "^has_journal,^metadata_csum,^uninit_bg,^sparse_super,^resize_inode"], true),
        (&["-O", "sparse_super2"], true),
        (&["-E", "lazy_itable_init=1,lazy_journal_init=1"], true),
        (&["-N", "2000"], true),
        (&["-O", "bigalloc"], false),
    ] {
        let groups = if options[1] == "bigalloc" { &[] } else { &small[..] };
        let options = [groups, options].concat();
        let Some(fixture) = Fixture::new(100 * MIB, 16 * MIB, &options) else { return };
        let made = Made::new(&fixture, 0, Holes::SkipFree);
        let root = std::fs::read(fixture.path("root")).unwrap();
        let free = free_blocks(&fixture);
        for (number, (got, wanted)) in made.plain().chunks(4096).zip(root.chunks(4096)).enumerate() {
            assert!(
                got == wanted || free.contains(&(number as u64)),
                "{options:?}: block {number} is in use"
            );
        }
        assert_eq!(made.summary.skipped > 0, understood, "{options:?}");
    }
}

#[test]
fn attack_an_image_changed_after_its_manifest_is_refused() {
    let Some(fixture) = Fixture::new(40 * MIB, 16 * MIB, &[]) else { return };
    let manifest = fixture.manifest();
    let size = manifest.size;
    for place in [600, MIB + 5, ROOT_START + 1100, ROOT_START + 20 * MIB, size - 513] {
        let image = fixture.image();
        let mut byte = [0];
        image.read_exact_at(&mut byte, place).unwrap();
        image.write_all_at(&[byte[0] ^ 1], place).unwrap();
        let result = try_provision(&fixture, &manifest, 0, Holes::WriteAll).err();
        image.write_all_at(&byte, place).unwrap();
        let zeros = byte == [0] && result.is_none();
        // A hole is not read: the manifest already says that it is zeros, and zeros are what is encrypted.
        let refused =
            matches!(result, Some(ProvisionError::ImageChanged { offset }) if offset == place / MIB * MIB);
        assert!(refused || zeros, "{place}: {:?}", result.map(|error| error.to_string()));
    }
    let made = try_provision(&fixture, &manifest, 0, Holes::WriteAll).unwrap();
    assert_eq!(made.summary.skipped, 0);
}

#[test]
fn a_truncated_image_is_named() {
    let Some(fixture) = Fixture::new(40 * MIB, 16 * MIB, &[]) else { return };
    let manifest = fixture.manifest();
    fixture.image().set_len(ROOT_START + 100).unwrap();
    let error = try_provision(&fixture, &manifest, 0, Holes::SkipFree).err().unwrap();
    assert!(matches!(error, ProvisionError::ImageTruncated { .. }), "{error}");
}

#[test]
fn a_disk_that_cannot_be_written_is_named() {
    let Some(fixture) = Fixture::new(40 * MIB, 16 * MIB, &[]) else { return };
    let manifest = fixture.manifest();
    let layout = manifest.disk_layout(manifest.size).unwrap();
    let open = |name| {
        File::options().read(true).write(true).create(true).truncate(true).open(fixture.path(name)).unwrap()
    };
    let mut boot = BootRegion::create(open("region"), VM, layout.spans(), &Secret::random()).unwrap();
    let disk = File::open(fixture.path("image")).unwrap();
    let (image, volume_key) = (fixture.image(), &VolumeKey::random());
    let job = Job {
        image: &image,
        manifest: &manifest,
        disk: &disk,
        layout,
        boot: &mut boot,
        volume_key,
        luks_header: &[],
        holes: Holes::SkipFree,
    };
    let error = encrypt_image(job, &|_| ()).err().unwrap();
    assert!(matches!(error, ProvisionError::WriteDisk { .. }), "{error}");
}

#[test]
fn a_disk_smaller_than_its_image_is_refused() {
    let Some(fixture) = Fixture::new(40 * MIB, 16 * MIB, &[]) else { return };
    let manifest = fixture.manifest();
    let error = manifest.disk_layout(manifest.size - 1).unwrap_err();
    assert!(matches!(error, ImageError::DiskTooSmall { .. }), "{error}");
}

#[test]
fn images_that_cannot_be_encrypted_in_place_are_named() {
    let build = |fixture: &Fixture| Manifest::build(&fixture.image(), facts()).unwrap_err().to_string();
    let Some(full) = Fixture::new(40 * MIB, 0, &[]) else { return };
    assert!(build(&full).contains("16 MiB at the end must be free"), "{}", build(&full));
    let fixture = Fixture::new(40 * MIB, 16 * MIB, &[]).unwrap();
    let sgdisk = tools::find("sgdisk").unwrap();
    let image = fixture.path("image");
    for (change, expected) in [
        (&["-t2:ef00"][..], "exactly one EFI system partition, it has 2"),
        (&["-t2:8200"], "exactly one root partition, it has 0"),
        (&["-t1:8300", "-t2:8300"], "exactly one EFI system partition, it has 0"),
    ] {
        let before = std::fs::read(&image).unwrap();
        let mut arguments = change.to_vec();
        arguments.push(image.to_str().unwrap());
        tools::must(&sgdisk, &arguments);
        let error = build(&fixture);
        assert!(error.contains(expected), "{error}");
        std::fs::write(&image, before).unwrap();
    }
    for (place, bytes, expected) in [
        (512, &b"not a table"[..], "no header of revision 1.0"),
        (512 + 56, b"x", "its header's checksum"),
        (1024 + 16, b"x", "its entries' checksum"),
        (ROOT_START + 1024 + 0x38, b"xx", "it is not ext4"),
        (ROOT_START + 1024 + 0x18, &[0], "not of 4096 bytes"),
    ] {
        let file = fixture.image();
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, place).unwrap();
        file.write_all_at(bytes, place).unwrap();
        let error = build(&fixture);
        assert!(error.contains(expected), "{error}");
        file.write_all_at(&before, place).unwrap();
    }
    fixture.image().set_len(1000).unwrap();
    assert!(build(&fixture).contains("too short"), "{}", build(&fixture));
    File::create(&image).unwrap().write_all(&noise(1, 100_000)).unwrap();
    assert!(build(&fixture).contains("no header of revision 1.0"), "{}", build(&fixture));
}
