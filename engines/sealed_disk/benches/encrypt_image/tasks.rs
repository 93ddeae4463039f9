//! The tasks: each runs in a process of its own and tells what it took.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use sealed_disk::boot_region::BootRegion;
use sealed_disk::image::Manifest;
use sealed_disk::luks2::{Format, SectorSize};
use sealed_disk::provision::{Holes, Job, encrypt_image};
use sealed_disk::secret::{Passphrase, Secret, VolumeKey};
use sealed_disk::xts::Xts;
use uuid::Uuid;

use super::images::ROOT_START;
use super::{MIB, attempt, create, find, remove, run};

/// Runs one task and prints wall seconds, CPU seconds and peak MiB.
pub(super) fn child(task: &str, arguments: &[String]) {
    let wall = match (task, arguments) {
        ("run-ours", [holes, image]) => ours(holes, Path::new(image)),
        ("run-copy", [image]) => copy(Path::new(image), false),
        ("run-copy-sparse", [image]) => copy(Path::new(image), true),
        ("run-xts", [bytes]) => xts(bytes.parse().expect("a number of bytes")),
        ("run-qemu-img", [image]) => qemu_img(Path::new(image)),
        ("run-cryptsetup", [image]) => cryptsetup(Path::new(image)),
        other => panic!("no such task: {other:?}"),
    };
    let usage =
        [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| getrusage(who).expect("own usage"));
    let cpu: i64 =
        usage.iter().map(|usage| (usage.user_time() + usage.system_time()).num_microseconds()).sum();
    let peak = peak_kib().max(usage[1].max_rss() as f64);
    println!("{wall} {} {}", cpu as f64 / 1e6, peak / 1024.0);
}

fn peak_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn ours(holes: &str, image: &Path) -> f64 {
    let holes = if holes == "all" { Holes::WriteAll } else { Holes::SkipFree };
    let manifest =
        Manifest::parse(&std::fs::read(image.with_extension("manifest")).expect("manifest")).expect("valid");
    let (volume_key, region_key) = (VolumeKey::random(), Secret::random());
    let keyslots = vec![Passphrase::of_secret(&Secret::<32>::random())];
    let (uuid, sector_size) = (Uuid::nil(), SectorSize::B4096);
    let header = Format { uuid, volume_key: &volume_key, keyslots, tokens: vec![], sector_size }
        .write()
        .expect("header");
    let layout = manifest.disk_layout(manifest.size).expect("layout");
    let (disk, region) = (create(&image.with_extension("disk")), create(&image.with_extension("region")));
    let source = File::open(image).expect("image");
    let wall = timed(|| {
        let mut boot = BootRegion::create(region, uuid, layout.spans(), &region_key).expect("region");
        let job = Job {
            image: &source,
            manifest: &manifest,
            disk: &disk,
            layout,
            boot: &mut boot,
            volume_key: &volume_key,
            luks_header: &header,
            holes,
        };
        encrypt_image(job, &|_| ()).expect("encrypted");
        boot.flush().expect("flushed");
    });
    remove(&[&image.with_extension("disk"), &image.with_extension("region")]);
    wall
}

fn copy(image: &Path, keep_holes: bool) -> f64 {
    let (source, target) = (File::open(image).expect("image"), image.with_extension("copy"));
    let out = create(&target);
    let size = source.metadata().expect("size").len();
    let mut buffer = vec![0; MIB as usize];
    let wall = timed(|| {
        out.set_len(size).expect("room");
        for offset in (0..size).step_by(MIB as usize) {
            let part = &mut buffer[..(size - offset).min(MIB) as usize];
            source.read_exact_at(part, offset).expect("read");
            if !keep_holes || part.iter().any(|&byte| byte != 0) {
                out.write_all_at(part, offset).expect("written");
            }
        }
        out.sync_data().expect("synced");
    });
    remove(&[&target]);
    wall
}

fn xts(bytes: u64) -> f64 {
    let xts = Xts::new(VolumeKey::random().expose()).expect("random halves differ");
    let mut buffer = vec![0; MIB as usize];
    timed(|| {
        for chunk in 0..bytes / MIB {
            xts.encrypt_in_place(&mut buffer, chunk * 2048, 4096);
        }
    })
}

/// `qemu-img` first measures how fast it derives keys, and gives up where others use the processor.
const QEMU_IMG_TRIES: usize = 10;

fn qemu_img(image: &Path) -> f64 {
    let target = image.with_extension("luks");
    let mut command = Command::new(find("qemu-img").expect("looked for before"));
    command.args(["convert", "-f", "raw", "-O", "luks", "--object", "secret,id=s,data=passphrase"]);
    command.args(["-o", "key-secret=s,iter-time=10"]).args([image, &target]);
    let mut outcome = String::new();
    let mut wall = f64::NAN;
    for _ in 0..QEMU_IMG_TRIES {
        wall = timed(|| {
            outcome = attempt(&mut command);
            File::open(&target).and_then(|file| file.sync_data()).expect("synced");
        });
        if !outcome.contains("accurate CPU usage") {
            break;
        }
    }
    assert!(outcome.is_empty(), "{command:?}: {outcome}");
    remove(&[&target]);
    wall
}

/// Works in place, on a copy of the root file system that is not counted.
fn cryptsetup(image: &Path) -> f64 {
    let (target, key) = (image.with_extension("inplace"), image.with_extension("key"));
    std::fs::write(&key, "passphrase").expect("key file");
    let (source, out) = (File::open(image).expect("image"), create(&target));
    let size = source.metadata().expect("size").len() - ROOT_START;
    out.set_len(size / MIB * MIB + 32 * MIB).expect("room");
    let mut buffer = vec![0; MIB as usize];
    for offset in (0..size).step_by(MIB as usize) {
        let part = &mut buffer[..(size - offset).min(MIB) as usize];
        source.read_exact_at(part, ROOT_START + offset).expect("read");
        if part.iter().any(|&byte| byte != 0) {
            out.write_all_at(part, offset).expect("written");
        }
    }
    out.sync_data().expect("synced");
    let mut command = Command::new(find("cryptsetup").expect("looked for before"));
    command.args(["reencrypt", "--encrypt", "--type=luks2", "--reduce-device-size=32M", "--resilience=none"]);
    command.args(["--batch-mode", "--sector-size=4096", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"]);
    command.arg(format!("--key-file={}", key.display())).arg(&target);
    let wall = timed(|| {
        run(&mut command);
        File::open(&target).and_then(|file| file.sync_data()).expect("synced");
    });
    remove(&[&target, &key]);
    wall
}
