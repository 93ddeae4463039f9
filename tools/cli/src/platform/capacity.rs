//! What this machine can give to VMs.

use anyhow::{Context, Result};

/// What may be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Virtual cores: four for each of the machine's, because guests wait more than they work.
    pub vcpus: u32,
    /// Memory: what is free for use now, less a reserve for the machine itself.
    pub memory_mib: u64,
}

/// Kept for the machine's own use.
const RESERVE_MIB: u64 = 1024;

/// Reads `/proc/meminfo` and counts processors.
pub fn of_this_machine() -> Result<Capacity> {
    let cores = u32::try_from(std::thread::available_parallelism()?.get())?;
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let available = available_mib(&text).context("/proc/meminfo has no MemAvailable")?;
    Ok(Capacity { vcpus: cores * 4, memory_mib: available.saturating_sub(RESERVE_MIB) })
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available_mib("MemTotal:  2048 kB\nMemAvailable:   1048576 kB\n"), Some(1024));
        assert_eq!(available_mib("MemTotal:  2048 kB\n"), None);
    }
}
