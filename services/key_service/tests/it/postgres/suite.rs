//! The tests of a vault once more, in another process of this binary whose vaults lie on PostgreSQL.

use std::process::Command;

use crate::support::vault::STORE;

/// Files whose tests ask a vault for something that its database decides about.
const FILES: [&str; 10] = [
    "attacks::",
    "at_rest::",
    "backup::",
    "generations::",
    "keys::",
    "log::",
    "operations::",
    "release::",
    "rotation::",
    "what_64_clients_were_answered_has_an_order",
];

/// Tests that look into the file, write to it past the service, or need a token or files of named vaults.
const OF_THE_FILE: [&str; 6] =
    ["at_rest::", "signing_keys::", "postgres::", "hsm::", "vaults::", "master_key::"];

#[test]
fn what_holds_on_a_file_holds_on_postgres() {
    let program = std::env::current_exe().expect("a test has a program");
    let mut command = Command::new(program);
    command.args(FILES).env(STORE, "postgres");
    for skipped in OF_THE_FILE {
        command.args(["--skip", skipped]);
    }
    let done = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{text}\n{}", String::from_utf8_lossy(&done.stderr));
    let passed = text.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next());
    let passed: u32 = passed.and_then(|number| number.parse().ok()).expect("a number of tests");
    assert!(passed >= 50, "{passed} tests are too few: was a file renamed?\n{text}");
}
