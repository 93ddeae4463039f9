//! `stand-in-qemu`: takes QEMU's arguments and plays the machine (`casemate up --qemu`). For tests only; never shipped.

use std::process::ExitCode;

fn main() -> ExitCode {
    devkit::machine::main()
}
