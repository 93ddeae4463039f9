//! Test lanes: which cargo tests belong to which lane, and one closing line over all of them.
//!
//! Emulated guests boot for most of a run and leave half of a small machine idle: the lanes without guests are built and
//! run beside them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;

use crate::{clients, fuzz};

/// A lane (CONTRIBUTING.md says what each needs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lane {
    /// Every crate's own tests: no root, no network, no clock.
    Unit,
    /// Every fuzz target over the same few thousand inputs (`cargo xtask fuzz` looks for new ones).
    Fuzz,
    /// A whole platform with a machine that plays its guest: every process crashes at every step.
    Stack,
    /// Real guests under QEMU.
    Vm,
    /// Unmodified clients of Azure.
    Clients,
    /// The `vm` lane on an SEV-SNP host.
    Hardware,
}

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
    /// Tests that have said that they take long, and not yet more.
    slow: BTreeSet<String>,
    /// Begins every line that is passed on.
    mark: &'static str,
}

/// What runs where no lane is named.
const USUAL: [Lane; 6] = [Lane::Unit, Lane::Fuzz, Lane::Stack, Lane::Vm, Lane::Clients, Lane::Hardware];

/// Runs the lanes, the usual ones if none is named, and prints the closing line.
pub fn run(root: &Path, lanes: &[Lane]) -> Result<()> {
    let lanes = if lanes.is_empty() { &USUAL[..] } else { lanes };
    let (guests, others): (Vec<Lane>, Vec<Lane>) = lanes.iter().partition(|lane| lane.has_guests());
    let mut tally = if guests.is_empty() || others.is_empty() {
        run_lanes(root, lanes, "")?
    } else {
        // Two cargos would build one after the other, and two installers in one folder would quarrel: once, beforehand. And
        // everything: an emulated guest that boots beside a compiler runs into time limits of its own.
        clients::python(root)?;
        build(root)?;
        vm_program(root)?;
        thread::scope(|scope| {
            let beside = scope.spawn(|| run_lanes(root, &guests, "vm | "));
            let tally = run_lanes(root, &others, "")?;
            let guests = beside.join().map_err(|_| anyhow!("the vm lane's thread panicked"))??;
            anyhow::Ok(tally.plus(guests))
        })?
    };
    tally.failures.sort();
    for failure in &tally.failures {
        crate::say(&format!("failed: {failure}"));
    }
    crate::say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    if tally.failed > 0 {
        bail!("{} tests failed", tally.failed);
    }
    Ok(())
}

/// In order; `mark` begins every line of output.
fn run_lanes(root: &Path, lanes: &[Lane], mark: &'static str) -> Result<Tally> {
    let mut tally = Tally { mark, ..Tally::default() };
    lanes.iter().try_for_each(|lane| run_lane(root, *lane, &mut tally))?;
    Ok(tally)
}

impl Lane {
    fn has_guests(self) -> bool {
        matches!(self, Self::Vm | Self::Hardware)
    }
}

fn run_lane(root: &Path, lane: Lane, tally: &mut Tally) -> Result<()> {
    crate::say(&format!("{}lane {}", tally.mark, format!("{lane:?}").to_lowercase()));
    match lane {
        Lane::Unit => cargo_test(root, &[], None, tally),
        Lane::Fuzz => tally.fuzzed(fuzz::run(root, fuzz::Effort::Repeatable, &[])?),
        Lane::Stack => cargo_test(root, &STACK, None, tally),
        Lane::Vm => guests(root, tally),
        Lane::Clients => with_sdk(root, &SDK, tally),
        Lane::Hardware if Path::new("/dev/sev").exists() => guests(root, tally),
        Lane::Hardware => {
            let why = "no /dev/sev on this machine, so nothing was run on real silicon";
            crate::say(&format!("{}skipped: {why}", tally.mark));
            Ok(())
        }
    }
}

/// Tests that drive the platform with an unmodified client too.
fn with_sdk(root: &Path, arguments: &[&str], tally: &mut Tally) -> Result<()> {
    let python = clients::python(root)?;
    cargo_test(root, arguments, Some(("CASEMATE_SDK_PYTHON", python)), tally)
}

/// How long a lane may say nothing: more than its longest test.
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// The whole platform, without guests.
const STACK: [&str; 2] = ["--test", "stack"];
/// The package of the tests with guests; they run in its folder, as cargo would have it.
const VM_PACKAGE: &str = "tools/devkit";
/// The tests that are ignored where no SDK is installed.
const SDK: [&str; 5] = ["--test", "it", "clients::", "--", "--ignored"];

/// Always of the whole workspace: cargo chooses the features of a dependency for all that is selected, so another
/// selection would compile much of it again.
fn cargo_test(
    root: &Path,
    arguments: &[&str],
    variable: Option<(&str, PathBuf)>,
    tally: &mut Tally,
) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace", "--no-fail-fast"]).args(arguments).envs(variable).current_dir(root);
    run_counted(command, &format!("cargo test {}", arguments.join(" ")), tally)
}

/// Real guests. The program is run by itself: a cargo would wait for the one that builds the other lanes' tests.
fn guests(root: &Path, tally: &mut Tally) -> Result<()> {
    let mut command = Command::new(vm_program(root)?);
    command.env("CASEMATE_SDK_PYTHON", clients::python(root)?).current_dir(root.join(VM_PACKAGE));
    run_counted(command, "the vm lane", tally)
}

/// Builds the tests of the lanes without guests.
fn build(root: &Path) -> Result<()> {
    let arguments = ["test", "--workspace", "--no-run"];
    let status = Command::new("cargo").args(arguments).current_dir(root).status().context("running cargo")?;
    ensure!(status.success(), "the tests do not build");
    Ok(())
}

/// Builds the test program of the vm lane and says where it lies.
fn vm_program(root: &Path) -> Result<PathBuf> {
    let output = Command::new("cargo")
        .args(["test", "--workspace", "--test", "vm", "--no-run", "--message-format", "json"])
        .stderr(Stdio::inherit())
        .current_dir(root)
        .output()
        .context("running cargo test")?;
    ensure!(output.status.success(), "the vm lane's tests do not build");
    let artifact = |line: &str| -> Option<PathBuf> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let wanted = message["target"]["name"] == "vm" && message["target"]["kind"][0] == "test";
        wanted.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    String::from_utf8(output.stdout)?
        .lines()
        .find_map(artifact)
        .context("cargo names no program of the vm lane")
}

/// Runs tests, passes on what they print and counts it.
fn run_counted(mut command: Command, name: &str, tally: &mut Tally) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("running {name}"))?;
    let before = tally.failed;
    let output = lines(child.stdout.take().context("the tests' output")?);
    let ended = tally.follow(&output);
    let succeeded = ended && child.wait()?.success();
    if !ended {
        give_up(&mut child, name)?;
        tally.failed += 1;
        tally.failures.push(format!("{name} did not end; still running: {:?}", tally.slow));
    } else if !succeeded && tally.failed == before {
        tally.failed += 1;
        tally.failures.push(format!("{name} did not build or run"));
    }
    Ok(())
}

/// The lines of a program's output, as they come.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // Nobody listens any more after the patience ended.
        let _ = lines.into_iter().try_for_each(|line| sender.send(line));
    });
    receiver
}

/// Ends a lane that says nothing. What its tests started stays: it is what one would look at.
fn give_up(child: &mut Child, name: &str) -> Result<()> {
    let minutes = SILENCE.as_secs() / 60;
    crate::say(&format!("nothing came from {name} for {minutes} minutes: given up"));
    child.kill().with_context(|| format!("ending {name}"))
}

impl Tally {
    fn plus(mut self, other: Self) -> Self {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self
    }

    /// A target without a finding is a test that passed.
    fn fuzzed(&mut self, (clean, found): (usize, Vec<String>)) -> Result<()> {
        self.passed += u64::try_from(clean)?;
        self.failed += u64::try_from(found.len())?;
        self.failures.extend(found.into_iter().map(|name| format!("fuzz target {name}")));
        Ok(())
    }

    /// Passes the lines on and counts what they tell; whether they came to an end.
    fn follow(&mut self, output: &Receiver<String>) -> bool {
        loop {
            match output.recv_timeout(SILENCE) {
                Ok(line) => {
                    self.count(&line);
                    crate::say(&format!("{}{line}", self.mark));
                }
                Err(end) => return end == RecvTimeoutError::Disconnected,
            }
        }
    }

    /// Counts `test result: ok. 3 passed; 1 failed; ...` and remembers `test name ... FAILED`.
    fn count(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.passed += number_before(rest, " passed");
            self.failed += number_before(rest, " failed");
        }
        let Some(rest) = line.strip_prefix("test ") else { return };
        if let Some(name) = rest.strip_suffix(" has been running for over 60 seconds") {
            self.slow.insert(name.to_owned());
        } else if let Some((name, result)) = rest.split_once(" ... ") {
            self.slow.remove(name);
            self.failures.extend((result == "FAILED").then(|| name.to_owned()));
        }
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let Some(end) = text.find(word) else { return 0 };
    let digits = text[..end].rsplit(' ').next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut tally = Tally::default();
        tally.count(
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        );
        tally.count("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.count("test parse::tests::bad ... FAILED");
        assert_eq!((tally.passed, tally.failed), (15, 2));
        assert_eq!(tally.failures, ["parse::tests::bad"]);
    }

    #[test]
    fn a_test_that_does_not_end_is_known() {
        let mut tally = Tally::default();
        for name in ["ends", "fails", "hangs"] {
            tally.count(&format!("test {name} has been running for over 60 seconds"));
        }
        tally.count("test ends ... ok");
        tally.count("test fails ... FAILED");
        assert!(tally.slow.iter().eq(["hangs"]));
        assert_eq!(tally.failures, ["fails"]);
    }
}
