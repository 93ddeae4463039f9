//! What benchmarks see of a VM from outside: when files of its host folder say something, and how much memory its
//! processes took at most.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::installation::wait_for;

/// How often a file is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Milliseconds since 1970, as the control plane's milestones count.
pub fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    u64::try_from(now.as_millis()).expect("the clock is within its range")
}

/// Waits until a file holds a text (any byte, for an empty one) and returns the time.
pub fn when_file_says(file: &Path, text: &str, limit: Duration) -> Result<u64> {
    let says = || {
        let bytes = std::fs::read(file).unwrap_or_default();
        let found = match text {
            "" => !bytes.is_empty(),
            text => String::from_utf8_lossy(&bytes).contains(text),
        };
        Ok(found.then(now_millis))
    };
    wait_for(LOOK, limit, says).with_context(|| format!("waiting for {text:?} in {}", file.display()))
}

/// Process ids whose arguments contain a text, of programs with this name.
pub fn processes(program: &str, argument: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(id) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let words = arguments(id);
        let runs = words.first().is_some_and(|word| word.ends_with(program));
        if runs && words.iter().any(|word| word.contains(argument)) {
            found.push(id);
        }
    }
    Ok(found)
}

/// The arguments of a process, its program first.
pub fn arguments(id: u32) -> Vec<String> {
    let line = std::fs::read(PathBuf::from(format!("/proc/{id}/cmdline"))).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The most memory that a process had resident, in MiB.
pub fn peak_mib(id: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: f64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// The middle value (the lower one of two).
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
