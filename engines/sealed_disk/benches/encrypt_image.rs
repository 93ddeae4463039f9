//! How fast an image is encrypted, beside a plain copy of the same file, AES-XTS in memory, `qemu-img convert` to LUKS and
//! `cryptsetup reencrypt`. Prints tables; `docs/performance.md` holds the figures of a named machine.
//!
//! Each run is a process of its own, which reports wall time, CPU time (its children's included) and its peak memory. The
//! tasks take turns, so that a machine whose speed drifts is the same to all, and ratios are taken round by round. The
//! images are in the page cache; each task that writes a file ends with `fdatasync`.
//!
//! Files go to `CASEMATE_BENCH_DIR` (default: a folder in the system's temporary one, on a disk), and once more to
//! `/dev/shm`, where no disk hides the work; 6 GiB must be free. `CASEMATE_BENCH_IMAGE` names the folder of a built image
//! (`disk.raw`, `manifest.json`) to be measured too. `cargo bench -p sealed_disk -- dense` takes one image only.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]
#![allow(clippy::cast_possible_truncation, reason = "sizes of this program's own files")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use sealed_disk::boot_region::BootRegion;
use sealed_disk::image::{Facts, Manifest};
use sealed_disk::luks2::{Format, SectorSize};
use sealed_disk::provision::{Holes, Job, encrypt_image};
use sealed_disk::secret::{Passphrase, Secret, VolumeKey};
use sealed_disk::xts::Xts;
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const ROOT_START: u64 = 201 * MIB;
const ROUNDS: usize = 5;

/// What one run took.
#[derive(Clone, Copy)]
struct Figures {
    wall: f64,
    cpu: f64,
    peak_mib: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [task, rest @ ..] if task.starts_with("run-") => child(task, rest),
        [only] => compare(only),
        _ => compare(""),
    }
}

/// All images, or those whose name holds the text.
fn compare(only: &str) {
    let disk = std::env::var_os("CASEMATE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let memory = PathBuf::from("/dev/shm");
    for (place, parent) in [("on disk", disk), ("in memory", memory)] {
        if !parent.is_dir() {
            println!("skipped: there is no {}", parent.display());
            continue;
        }
        let folder = tempfile::Builder::new().prefix("encrypt-image-").tempdir_in(parent);
        let folder = folder.expect("a folder for the files");
        for image in images(folder.path()).filter(|image| format!("{} {place}", image.name).contains(only)) {
            if let Some(path) = (image.make)(folder.path()) {
                compare_one(place, &image, &path);
                remove(&[Path::new(&path), &Path::new(&path).with_extension("manifest")]);
            }
        }
    }
}

/// Puts an image into a folder; its path.
type Make = Box<dyn Fn(&Path) -> Option<String>>;

/// An image to measure with.
struct Image {
    name: String,
    size: u64,
    /// What is not a hole.
    data: u64,
    make: Make,
}

fn images(folder: &Path) -> impl Iterator<Item = Image> + use<> {
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

/// One line of a table.
struct Task<'a> {
    name: &'static str,
    /// Bytes that the speed is told by.
    bytes: u64,
    arguments: Vec<&'a str>,
    runs: Vec<Figures>,
}

fn compare_one(place: &str, image: &Image, path: &str) {
    let (size, data, xts) = (image.size, image.data, image.data.to_string());
    let mut tasks = Vec::new();
    let mut add = |name, bytes, arguments: &[_]| {
        tasks.push(Task { name, bytes, arguments: arguments.to_vec(), runs: vec![] })
    };
    add(OURS, data, &["run-ours", "skip", path]);
    add("ours, every block written", size, &["run-ours", "all", path]);
    add("plain copy, every block", size, &["run-copy", path]);
    add(COPY, data, &["run-copy-sparse", path]);
    add(XTS, data, &["run-xts", &xts]);
    peer("qemu-img", |_| add(QEMU, size, &["run-qemu-img", path]));
    peer("cryptsetup", |_| add("cryptsetup reencrypt, in place", size, &["run-cryptsetup", path]));
    for _ in 0..ROUNDS {
        for task in &mut tasks {
            task.runs.push(spawn(&task.arguments));
        }
    }
    let (whole, part) = (size as f64 / MIB as f64, data as f64 / MIB as f64);
    println!(
        "\n{} {place}: {whole:.0} MiB, of which {part:.0} MiB data; medians of {ROUNDS} rounds (best)",
        image.name
    );
    println!("{:<34} {:>15} {:>8} {:>8} {:>9}", "", "seconds", "GB/s", "CPU s", "peak MiB");
    tasks.iter().for_each(Task::print);
    let slower = |round: usize| wall(&tasks, COPY, round).max(wall(&tasks, XTS, round));
    ratio("ours beside the slower of copy and XTS", |round| slower(round) / wall(&tasks, OURS, round));
    if tasks.iter().any(|task| task.name == QEMU) {
        ratio("ours beside qemu-img", |round| wall(&tasks, QEMU, round) / wall(&tasks, OURS, round));
    }
}

const OURS: &str = "ours";
const COPY: &str = "plain copy, holes kept";
const XTS: &str = "AES-256-XTS in memory, one thread";
const QEMU: &str = "qemu-img convert to LUKS";

fn wall(tasks: &[Task<'_>], name: &str, round: usize) -> f64 {
    tasks.iter().find(|task| task.name == name).map_or(f64::NAN, |task| task.runs[round].wall)
}

/// Median, lowest and highest of the rounds.
fn ratio(name: &str, of: impl Fn(usize) -> f64) {
    let mut all: Vec<f64> = (0..ROUNDS).map(of).collect();
    all.sort_by(f64::total_cmp);
    println!("{name}: {:.2} ({:.2} to {:.2})", all[ROUNDS / 2], all[0], all[ROUNDS - 1]);
}

impl Task<'_> {
    fn print(&self) {
        let mut runs = self.runs.clone();
        runs.sort_by(|one, other| one.wall.total_cmp(&other.wall));
        let (best, median) = (runs[0], runs[ROUNDS / 2]);
        let peak = runs.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
        let seconds = format!("{:.2} ({:.2})", median.wall, best.wall);
        let speed = self.bytes as f64 / 1e9 / median.wall;
        println!("{:<34} {seconds:>15} {speed:>8.2} {:>8.2} {peak:>9.1}", self.name, median.cpu);
    }
}

fn peer<T>(program: &str, then: impl FnOnce(PathBuf) -> T) -> Option<T> {
    let found = find(program);
    if found.is_none() {
        println!("skipped: {program} not found");
    }
    found.map(then)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|program| program.exists())
}

fn spawn(arguments: &[&str]) -> Figures {
    let own = std::env::current_exe().expect("this program's path");
    let output =
        Command::new(own).args(arguments).stderr(Stdio::inherit()).output().expect("this program starts");
    assert!(output.status.success(), "{arguments:?} failed");
    let text = String::from_utf8(output.stdout).expect("three numbers");
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    Figures { wall: numbers[0], cpu: numbers[1], peak_mib: numbers[2] }
}

// In the child.

fn child(task: &str, arguments: &[String]) {
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

fn qemu_img(image: &Path) -> f64 {
    let target = image.with_extension("luks");
    let mut command = Command::new(find("qemu-img").expect("looked for before"));
    command.args(["convert", "-f", "raw", "-O", "luks", "--object", "secret,id=s,data=passphrase"]);
    command.args(["-o", "key-secret=s,iter-time=10"]).args([image, &target]);
    let wall = timed(|| {
        run(&mut command);
        File::open(&target).and_then(|file| file.sync_data()).expect("synced");
    });
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

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn create(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(true).open(path).expect("a new file")
}

fn remove(paths: &[&Path]) {
    paths.iter().try_for_each(std::fs::remove_file).expect("own files can be removed");
}

// The images.

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
