//! A test runner for scenarios: checks that build on each other, in order, with one setting-up and one taking-down.
//!
//! It speaks as the standard test harness does (`test NAME ... ok`, `test result: ...`), so that the same tools count it.
//! After a check that others build on has failed, those are reported as failed too: nothing passes unseen.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// One check over a scenario's state.
pub struct Check<S> {
    /// What is shown, in snake case.
    pub name: &'static str,
    /// Whether later checks make no sense once this one failed.
    pub essential: bool,
    /// The check.
    pub run: fn(&mut S) -> Result<()>,
}

/// A check that later ones do not build on.
pub const fn check<S>(name: &'static str, run: fn(&mut S) -> Result<()>) -> Check<S> {
    Check { name, essential: false, run }
}

/// A check that all later ones build on.
pub const fn essential<S>(name: &'static str, run: fn(&mut S) -> Result<()>) -> Check<S> {
    Check { name, essential: true, run }
}

/// Runs the checks whose name contains the first argument that is no option (all, without one).
pub fn run<S>(mut state: S, checks: &[Check<S>]) -> ExitCode {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let started = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    let mut broken: Option<&str> = None;
    say(&format!("\nrunning {} tests", checks.len()));
    for check in checks {
        if !check.essential && filter.as_ref().is_some_and(|filter| !check.name.contains(filter.as_str())) {
            continue;
        }
        let outcome = match broken {
            Some(name) => Err(anyhow::anyhow!("not reached: {name} failed before")),
            None => (check.run)(&mut state),
        };
        match outcome {
            Ok(()) => {
                passed += 1;
                say(&format!("test {} ... ok", check.name));
            }
            Err(error) => {
                failed += 1;
                // Without the backtrace that `{:?}` adds: it would push the reason out of a log that is cut.
                say(&format!("---- {} ----\n{error:#}", check.name));
                say(&format!("test {} ... FAILED", check.name));
                if check.essential && broken.is_none() {
                    broken = Some(check.name);
                }
            }
        }
    }
    drop(state);
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = started.elapsed().as_secs_f64();
    say(&format!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {seconds:.2}s\n"
    ));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
