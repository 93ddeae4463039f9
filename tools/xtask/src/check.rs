//! The check lane: everything that needs no test run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs all checks; the first failure stops.
pub fn run(root: &Path) -> Result<()> {
    cargo(root, &["fmt", "--all", "--check"])?;
    crate::arch::run(root)?;
    crate::house::run(root)?;
    crate::features::run(root)?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    deny(root)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    crate::say(&format!("check: cargo {}", arguments[..2.min(arguments.len())].join(" ")));
    let status = Command::new("cargo").args(arguments).current_dir(root).status().context("running cargo")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// Licences, advisories, duplicate TLS stacks; needs the program `cargo-deny`.
fn deny(root: &Path) -> Result<()> {
    let present = Command::new("cargo").args(["deny", "--version"]).output();
    if !present.is_ok_and(|output| output.status.success()) {
        crate::say("check: skipped cargo deny (not installed: `cargo install --locked cargo-deny`)");
        return Ok(());
    }
    cargo(root, &["deny", "--all-features", "check", "bans", "licenses", "sources"])
}
