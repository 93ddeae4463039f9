//! House rules that clippy cannot see, over the files that git tracks.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Longest source file, tests not counted (`docs/style`).
const MAX_LINES: usize = 800;

/// How SQL is spoken; split, so that this file does not find itself.
const SQL: [&str; 2] = [concat!("sqlx", "::query"), concat!("sqlx", "::raw_sql")];

/// Checks every tracked Rust file; prints what it saw.
pub fn run(root: &Path) -> Result<()> {
    let files = tracked_rust_files(root)?;
    let mut offences = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(root.join(file)).with_context(|| format!("reading {file}"))?;
        offences.extend(offences_in(file, &text));
    }
    if !offences.is_empty() {
        bail!("house rules:\n  {}", offences.join("\n  "));
    }
    crate::say(&format!("house: {} files keep the rules", files.len()));
    Ok(())
}

fn tracked_rust_files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git").arg("ls-files").arg("*.rs").current_dir(root).output()?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn offences_in(file: &str, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    let is_test = file.contains("/tests/") || file.contains("/benches/");
    if !text.starts_with("//!") {
        offences.push(format!("{file}: a file opens with `//!`: what it is, what it is not"));
    }
    let code = without_tests(text);
    let lines = code.lines().count();
    if !is_test && lines > MAX_LINES {
        offences.push(format!("{file}: {lines} lines without its tests; the limit is {MAX_LINES}"));
    }
    let in_store = file.contains("/store/") || file.ends_with("/store.rs");
    if !is_test && !in_store && SQL.iter().any(|call| code.contains(call)) {
        offences.push(format!("{file}: SQL lives in store/ only"));
    }
    let tests = if is_test { text } else { &text[code.len()..] };
    let sleeps = ["thread::sleep(", "time::sleep("];
    if sleeps.iter().any(|sleep| tests.contains(sleep)) && !tests.contains("fn wait_for") {
        offences.push(format!("{file}: a test waits for a condition (wait_for), not for time"));
    }
    offences
}

/// The file up to its inline test module.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_file_passes() {
        assert!(offences_in("a/src/lib.rs", "//! Head.\nfn f() {}\n").is_empty());
    }

    #[test]
    fn each_rule_has_its_words() {
        let long = format!("//! Head.\n{}", "\n".repeat(MAX_LINES + 1));
        assert!(offences_in("a/src/lib.rs", &long)[0].contains("the limit is 800"));
        assert!(offences_in("a/src/x.rs", "fn f() {}")[0].contains("opens with"));
        assert!(offences_in("a/src/x.rs", "//! H\nsqlx::query(\"\")")[0].contains("SQL lives in store"));
        assert!(offences_in("a/src/store/x.rs", "//! H\nsqlx::query(\"\")").is_empty());
        let nap = ["//! H\nstd::thread::", "sleep(d);"].concat();
        assert!(offences_in("a/tests/x.rs", &nap)[0].contains("not for time"));
    }
}
