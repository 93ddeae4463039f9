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

mod images;
mod tasks;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use images::{Image, images};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
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
        [task, rest @ ..] if task.starts_with("run-") => tasks::child(task, rest),
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

fn run(command: &mut Command) {
    let problem = attempt(command);
    assert!(problem.is_empty(), "{command:?}: {problem}");
}

/// Nothing after success, else what the program said.
fn attempt(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    if output.status.success() {
        return String::new();
    }
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}

fn create(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(true).open(path).expect("a new file")
}

fn remove(paths: &[&Path]) {
    paths.iter().try_for_each(std::fs::remove_file).expect("own files can be removed");
}
