//! Whether `cargo build` and `cargo test --workspace` ask for the same features of every dependency. Where they do not,
//! cargo compiles it, and all that depends on it, twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Fails with the packages that tests need with other features.
pub fn run(root: &Path) -> Result<()> {
    let (build, test) = (packages(root, &["--edges", "no-dev"])?, packages(root, &["--workspace"])?);
    let twice: Vec<&str> = build.difference(&test).map(String::as_str).collect();
    if twice.is_empty() {
        return Ok(());
    }
    bail!(
        "compiled twice, because tests switch on more of their features than the build:\n  {}\n\
         add these features to the dependencies of tools/devkit",
        twice.join("\n  ")
    )
}

/// Every package with its features.
fn packages(root: &Path, selection: &[&str]) -> Result<BTreeSet<String>> {
    let output = Command::new("cargo")
        .args(["tree", "--prefix", "none", "--format", "{p}: {f}"])
        .args(selection)
        .current_dir(root)
        .output()
        .context("running cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    // `(*)` marks a package whose dependencies were shown before.
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}
