//! `casemate-keys` as a person runs it: what it said, and how it ended.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What a run of the program said.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.err);
        serde_json::from_str(&self.out).expect("JSON")
    }

    pub fn refuses(&self, code: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{}", self.err);
        assert!(self.err.contains(code), "{code}: {}", self.err);
    }
}

/// Runs it to its end.
pub fn run(program: &mut Command) -> Said {
    let output = program.output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// `casemate-keys move` between two configurations.
pub fn moving(from: &Path, to: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_casemate-keys"));
    program.arg("move").arg("--from").arg(from).arg("--to").arg(to);
    program
}

/// Runs it, and ends it when it reaches `point`.
pub fn dies_at(program: &mut Command, point: &str) {
    let plan = tempfile::tempdir().expect("a folder");
    std::fs::write(plan.path().join("crash-at"), format!("0 keys: {point}")).expect("a file");
    let died = run(program.env("CASEMATE_FAULT_PLAN", plan.path()));
    assert_eq!(died.code, None, "{point}: {}", died.err);
}
