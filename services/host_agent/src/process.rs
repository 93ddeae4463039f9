//! Processes that outlive the agent: started in a session of their own, found again by process id, start time and the
//! machine's boot id, ended by id only.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// How often a process without arguments is looked at before it counts as one that has none.
const EXEC_LOOKS: u32 = 1000;

/// Names one process for good: an id that was given to another one does not match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRef {
    pid: i32,
    /// Clock ticks after the machine's boot (field 22 of `/proc/<pid>/stat`).
    start: u64,
    boot: String,
}

impl ProcessRef {
    /// The running process `pid`, or `None` when it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let start = start_time(pid)?;
        Some(Self { pid, start, boot: boot_id() })
    }

    /// Whether it still runs. A zombie does not.
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start) && boot_id() == self.boot
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.send(Signal::SIGTERM);
    }

    /// Ends it.
    pub fn kill(&self) {
        self.send(Signal::SIGKILL);
    }

    fn send(&self, what: Signal) {
        if self.alive()
            && let Err(error) = signal::kill(Pid::from_raw(self.pid), what)
        {
            tracing::debug!(pid = self.pid, %error, "the process could not be signalled");
        }
    }
}

/// Starts `program` in a session of its own, with its output in the given files.
///
/// `setsid` keeps the process id, so the child is the program itself. The wait for its end only clears it from the
/// process table while this agent lives.
pub fn start(program: &Path, arguments: &[String], stdout: File, stderr: File) -> io::Result<ProcessRef> {
    if !runnable(program) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut child = Command::new("setsid")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .current_dir("/")
        .spawn()?;
    let reference = child.id().and_then(ProcessRef::of);
    tokio::spawn(async move {
        if let Err(error) = child.wait().await {
            tracing::debug!(%error, "a child could not be waited for");
        }
    });
    reference.ok_or_else(|| io::Error::other("the program ended at once"))
}

/// Whether `program` can be found, by path or in `PATH`.
pub fn runnable(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A running process of this user that has `argument` as one of its arguments.
pub fn find(argument: &str) -> Option<ProcessRef> {
    let processes = std::fs::read_dir("/proc").ok()?;
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    ids.filter(|id| *id != own)
        .filter(|id| command_line(*id).split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
        .find_map(ProcessRef::of)
}

/// The arguments of a process, each ended by a zero byte. In the middle of an `execve` a program has none yet: that is
/// waited for, or a process that a dead agent had just started would be overlooked, and started twice.
fn command_line(id: u32) -> Vec<u8> {
    for _ in 0..EXEC_LOOKS {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        // Kernel threads and zombies have no arguments for good, and no program that can be read.
        if !line.is_empty() || std::fs::read_link(format!("/proc/{id}/exe")).is_err() {
            return line;
        }
        std::thread::yield_now();
    }
    Vec::new()
}

/// Start time of a process that is neither gone nor a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: fields count from behind its last parenthesis (proc(5)).
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn null() -> File {
        File::options().write(true).open("/dev/null").expect("/dev/null")
    }

    async fn wait_for(mut condition: impl FnMut() -> bool) -> bool {
        let limit = Instant::now() + Duration::from_secs(10);
        while !condition() {
            if Instant::now() > limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    #[tokio::test]
    async fn a_started_process_is_seen_until_it_ends() {
        let process = start(Path::new("sleep"), &["60".to_owned()], null(), null()).expect("sleep");
        assert!(process.alive());
        process.terminate();
        assert!(wait_for(|| !process.alive()).await, "it still runs");
    }

    #[test]
    fn another_process_with_the_same_id_is_not_taken_for_it() {
        let own = ProcessRef::of(std::process::id()).expect("this process");
        assert!(own.alive());
        assert!(!ProcessRef { start: own.start + 1, ..own.clone() }.alive());
        assert!(!ProcessRef { boot: "another boot".to_owned(), ..own }.alive());
    }

    #[tokio::test]
    async fn a_process_in_no_record_is_found_by_its_argument() {
        let argument = format!("60.{}", std::process::id());
        let process =
            start(Path::new("sleep"), std::slice::from_ref(&argument), null(), null()).expect("sleep");
        assert!(wait_for(|| find(&argument).as_ref() == Some(&process)).await, "it is not found");
        process.kill();
        assert!(wait_for(|| find(&argument).is_none()).await, "it is still found");
    }

    #[tokio::test]
    async fn a_missing_program_is_not_found() {
        let error = start(Path::new("no-such-program"), &[], null(), null()).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
