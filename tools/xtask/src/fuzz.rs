//! The fuzz lane: builds the targets of `fuzz/` with coverage counters and lets libFuzzer run each for a while.
//!
//! It needs no nightly compiler: LLVM's coverage pass is a code generation option that stable Rust has too (`cargo fuzz
//! --sanitizer none` passes the same ones). Only the workspace's own crates are compiled anew. Memory errors are not what
//! is looked for, since the parsers are safe Rust: it is panics, overflows, wrong answers, and inputs that take too long or too much memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Compiles our own crates with coverage counters and leaves the others as the ordinary build made them.
const WRAPPER: &str = "fuzz/rustc-with-coverage";
/// Seconds after which one input is a finding.
const TIMEOUT: u32 = 10;
/// MiB after which an input is a finding.
const MEMORY: u32 = 2048;
/// Where libFuzzer's random numbers begin in a repeatable run, how many inputs it tries, and after how many seconds it
/// ends on a slow machine.
const SEED: u32 = 1;
const RUNS: u32 = 20_000;
const PATIENCE: u32 = 8;

/// A target's name and the longest input that makes sense.
struct Target {
    name: String,
    max_len: String,
}

/// The built programs and where they work.
struct Fuzzer {
    program: PathBuf,
    corpus: PathBuf,
    findings: PathBuf,
    targets: Vec<Target>,
}

/// How far a target is driven.
#[derive(Clone, Copy)]
pub enum Effort {
    /// The same inputs each time, so that a run that fails is one whose change did it.
    Repeatable,
    /// Other inputs each time, for so many seconds, and on from what earlier runs learned.
    Seconds(u32),
}

/// Runs every target, or the named ones. Returns how many found nothing, and what the others found.
pub fn run(root: &Path, effort: Effort, names: &[String]) -> Result<(usize, Vec<String>)> {
    let fuzzer = build(root)?;
    if let Some(unknown) = names.iter().find(|name| fuzzer.targets.iter().all(|target| target.name != **name))
    {
        let known: Vec<&str> = fuzzer.targets.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no fuzz target `{unknown}`; there are {}", known.join(", "));
    }
    let chosen = |target: &&Target| names.is_empty() || names.contains(&target.name);
    let mut found = Vec::new();
    let mut clean = 0;
    for target in fuzzer.targets.iter().filter(chosen) {
        match fuzzer.run(target, effort)? {
            None => clean += 1,
            Some(reason) => found.push(format!("{}: {reason}", target.name)),
        }
    }
    Ok((clean, found))
}

/// The command of a developer: fails on a finding.
pub fn command(root: &Path, seconds: u32, names: &[String]) -> Result<()> {
    let (clean, found) = run(root, Effort::Seconds(seconds), names)?;
    crate::say(&format!("fuzz: {clean} targets without a finding, {} with", found.len()));
    if !found.is_empty() {
        bail!("findings in {}; the inputs lie in target/fuzz/findings", found.join(", "));
    }
    Ok(())
}

fn build(root: &Path) -> Result<Fuzzer> {
    crate::say("fuzz: building with coverage counters");
    let status = Command::new("cargo")
        .args(["build", "--workspace", "--bin", "fuzz", "--features", "fuzz/libfuzzer"])
        .env("RUSTC_WORKSPACE_WRAPPER", root.join(WRAPPER))
        .current_dir(root)
        .status()
        .context("running cargo build")?;
    if !status.success() {
        bail!("the fuzz targets do not build (the engine needs a C++ compiler: build-essential)");
    }
    let program = root.join("target/debug/fuzz");
    let folder = root.join("target/fuzz");
    let targets = write_seeds(&program, &folder.join("seeds"))?;
    let (corpus, findings) = (folder.join("corpus"), folder.join("findings"));
    std::fs::create_dir_all(&findings)?;
    Ok(Fuzzer { program, corpus, findings, targets })
}

fn write_seeds(program: &Path, folder: &Path) -> Result<Vec<Target>> {
    let status = Command::new(program).env("CASEMATE_FUZZ_SEEDS", folder).status();
    if !status.context("writing the seeds")?.success() {
        bail!("the fuzzer could not write its seeds");
    }
    let text = std::fs::read_to_string(folder.join("targets"))?;
    let target = |line: &str| {
        let (name, max_len) = line.split_once(' ').context("a line names a target")?;
        Ok(Target { name: name.to_owned(), max_len: max_len.to_owned() })
    };
    text.lines().map(target).collect()
}

impl Fuzzer {
    /// What the target found, if anything.
    fn run(&self, target: &Target, effort: Effort) -> Result<Option<String>> {
        let seeds = self.corpus.with_file_name("seeds");
        let log = self.findings.join(format!("{}.log", target.name));
        let mut command = Command::new(&self.program);
        command.args(self.limits(effort, target)?).arg(seeds.join(&target.name)).args([
            format!("-max_len={}", target.max_len),
            format!("-timeout={TIMEOUT}"),
            format!("-rss_limit_mb={MEMORY}"),
            format!("-artifact_prefix={}/{}-", self.findings.display(), target.name),
            "-print_final_stats=1".to_owned(),
        ]);
        let words = seeds.join(format!("{}.dict", target.name));
        if std::fs::metadata(&words)?.len() > 0 {
            command.arg(format!("-dict={}", words.display()));
        }
        let output = std::fs::File::create(&log)?;
        let status = command
            .env("CASEMATE_FUZZ_TARGET", &target.name)
            .stderr(output.try_clone()?)
            .stdout(output)
            .status()
            .context("running the fuzzer")?;
        let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        report(&target.name, &text, status.success());
        Ok((!status.success()).then(|| reason(&text)))
    }

    /// libFuzzer's arguments for the effort, the corpus that is learned into among them.
    fn limits(&self, effort: Effort, target: &Target) -> Result<Vec<String>> {
        let Effort::Seconds(seconds) = effort else {
            return Ok(vec![
                format!("-seed={SEED}"),
                format!("-runs={RUNS}"),
                format!("-max_total_time={PATIENCE}"),
            ]);
        };
        let corpus = self.corpus.join(&target.name);
        std::fs::create_dir_all(&corpus)?;
        Ok(vec![format!("-max_total_time={seconds}"), corpus.display().to_string()])
    }
}

fn report(name: &str, log: &str, clean: bool) {
    let runs = stat(log, "stat::number_of_executed_units:").unwrap_or_else(|| "no".to_owned());
    let speed = stat(log, "stat::average_exec_per_sec:").unwrap_or_else(|| "0".to_owned());
    if clean {
        crate::say(&format!("fuzz: {name}: {runs} inputs, {speed} a second, no finding"));
        return;
    }
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
    crate::say(&format!("fuzz: {name}: FINDING\n{}", tail.join("\n")));
}

/// Why libFuzzer ended: the panic with the line behind it, or its own words.
fn reason(log: &str) -> String {
    let mut lines = log.lines().skip_while(|line| !line.contains("panicked at"));
    let panic: Vec<&str> = lines.by_ref().take(2).collect();
    if !panic.is_empty() {
        return panic.join(" ");
    }
    let own = log.lines().find(|line| line.contains("ERROR: libFuzzer"));
    own.unwrap_or("the fuzzer ended without a word").to_owned()
}

fn stat(log: &str, name: &str) -> Option<String> {
    log.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_by_its_panic_or_by_the_engine() {
        let log = "#9 NEW\nthread 'x' (1) panicked at sev.rs:55:37:\n`sev` reads it: no\nstack backtrace:";
        assert_eq!(reason(log), "thread 'x' (1) panicked at sev.rs:55:37: `sev` reads it: no");
        let log = "#9 NEW\n==7== ERROR: libFuzzer: timeout after 10 seconds\nSUMMARY";
        assert_eq!(reason(log), "==7== ERROR: libFuzzer: timeout after 10 seconds");
    }

    #[test]
    fn statistics_are_read() {
        let log = "INFO: x\nstat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     99\n";
        assert_eq!(stat(log, "stat::number_of_executed_units:").as_deref(), Some("1234"));
        assert_eq!(stat(log, "stat::average_exec_per_sec:").as_deref(), Some("99"));
        assert_eq!(stat(log, "stat::peak_rss_mb:"), None);
    }
}
