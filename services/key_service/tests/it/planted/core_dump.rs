//! A key service that crashes leaves no picture of its memory.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::binary::start_with;
use crate::support::vault::Folder;

/// Ends `child` by this signal; returns whether the kernel wrote its memory.
fn crash(child: &mut Child, signal: Signal) -> bool {
    let status = loop {
        // More than once: Rust's handler looks whether the first SIGSEGV is a stack overflow, and lets the next one through.
        kill_process(Pid::from_child(child), signal).expect("it was started here and not waited for");
        if let Some(status) = child.try_wait().expect("it was started here") {
            break status;
        }
        std::thread::yield_now();
    };
    assert_eq!(status.signal(), Some(signal.as_raw()), "it ended by the signal");
    status.core_dumped()
}

/// A limit under which the kernel would write a core file. `false` if this user may not set it.
fn permit(child: &Child) -> bool {
    let wanted = Rlimit { current: None, maximum: None };
    prlimit(Some(Pid::from_child(child)), Resource::Core, wanted).is_ok()
}

#[tokio::test]
async fn a_crash_leaves_no_core_file() {
    for signal in [Signal::ABORT, Signal::SEGV] {
        let folder = Folder::new();
        let place = folder.dir.path().join("here");
        std::fs::create_dir(&place).expect("the folder is writable");
        let started = start_with(&folder, |command| {
            command.current_dir(&place);
        });
        let mut service = started.await;
        let limits =
            std::fs::read_to_string(format!("/proc/{}/limits", service.child.id())).expect("it runs");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
        // Even where somebody lifts the limit, the process is not dumpable.
        permit(&service.child);
        assert!(!crash(&mut service.child, signal));
        assert_eq!(std::fs::read_dir(&place).expect("a folder").count(), 0);
    }
}

/// The same crash of a program without this protection, where the kernel is set up to write core files at all.
#[test]
fn an_ordinary_program_leaves_one_where_the_kernel_writes_them() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("Linux");
    let place = tempfile::tempdir().expect("a folder");
    let mut child = Command::new("cat");
    child.current_dir(place.path()).stdin(std::process::Stdio::piped());
    let mut child = child.spawn().expect("cat is there");
    let permitted = permit(&child);
    let dumped = crash(&mut child, Signal::ABORT);
    let written = std::fs::read_dir(place.path()).expect("a folder").count() > 0;
    if permitted && pattern.trim() == "core" {
        assert!(dumped && written, "the other test could not fail here");
    }
}
