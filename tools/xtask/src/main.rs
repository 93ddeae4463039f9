//! Checks, test lanes and packaging: what a developer and CI run. No runtime code, none of our crates.

mod arch;
mod check;
mod clients;
mod features;
mod fuzz;
mod house;
mod lanes;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Casemate's checks and test lanes")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formatting, lints, dependency direction, house rules, licences and advisories.
    Check,
    /// Dependency direction only: every edge against the table in ARCHITECTURE.md.
    Arch,
    /// Rules that clippy cannot see: file length, module heads, SQL outside store/, sleeps in tests.
    House,
    /// Whether build and tests ask for the same features, so that everything is compiled once.
    Features,
    /// Fuzzes every target of `fuzz/`, or the named ones; fails on a finding.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Names of targets.
        targets: Vec<String>,
    },
    /// Runs a lane of tests, or all that this machine can run; ends with `N passed, N failed`.
    Test {
        /// unit, fuzz, stack, vm, clients, hardware; all of them if none is named.
        #[arg(value_enum)]
        lanes: Vec<lanes::Lane>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Check => check::run(&root()),
        Command::Arch => arch::run(&root()),
        Command::House => house::run(&root()),
        Command::Features => features::run(&root()),
        Command::Fuzz { seconds, targets } => fuzz::command(&root(), seconds, &targets),
        Command::Test { lanes } => lanes::run(&root(), &lanes),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder: the one that holds this crate's `tools`.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("tools/xtask lies two folders below the root").to_path_buf()
}

/// The one place that prints.
#[allow(clippy::print_stdout, reason = "a developer's tool speaks on its standard output")]
fn say(line: &str) {
    println!("{line}");
}
