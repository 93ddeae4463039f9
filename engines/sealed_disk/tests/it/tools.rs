//! Programs of the system that must understand what is written here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where the program is; says so if it is not there.
#[allow(clippy::print_stdout, reason = "a test that skips must say so")]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|program| program.exists());
    if found.is_none() {
        println!("skipped: {name} not found");
    }
    found
}

/// Runs to the end.
pub fn run<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs to the end, must succeed; gives standard output.
pub fn must<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> String {
    let output = run(program, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {error}", program.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
