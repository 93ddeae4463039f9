//! SoftHSM2, an independent token in software. A test that uses it runs in a process of its own: the module reads
//! `SOFTHSM2_CONF` once in a process, so the test binary starts itself again, for that one test, with a token of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub const LABEL: &str = "casemate-test";
pub const PIN: &str = "271828";
/// Names the folder of the tokens, and tells the process of a test apart from the one that starts it.
const FOLDER: &str = "CASEMATE_TEST_TOKENS";
/// File with the text of `[hsm]`.
const SECTION: &str = "section.toml";

/// A token in a folder, and the environment that a process needs to see it.
struct Tokens(TempDir);

impl Tokens {
    /// A folder with one token: lines more in SoftHSM's configuration, and in `[hsm]` of the service's.
    fn new(softhsm: &str, hsm: &str) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let path = dir.path().display();
        let config = format!("directories.tokendir = {path}/tokens\nlog.level = ERROR\n{softhsm}\n");
        std::fs::create_dir(dir.path().join("tokens")).expect("a folder");
        std::fs::write(dir.path().join("softhsm2.conf"), config).expect("a file");
        std::fs::write(dir.path().join("pin"), PIN).expect("a file");
        let section =
            format!("[hsm]\nmodule = \"{MODULE}\"\ntoken = \"{LABEL}\"\npin_file = \"{path}/pin\"\n{hsm}\n");
        std::fs::write(dir.path().join(SECTION), section).expect("a file");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("pin"), private).expect("a mode");
        another_token(dir.path(), LABEL);
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Lets a program see the token.
    fn seen_by(&self, command: &mut Command) {
        command.env("SOFTHSM2_CONF", self.path().join("softhsm2.conf")).env(FOLDER, self.path());
    }
}

/// One more token in the folder of the tokens.
pub fn another_token(folder: &Path, label: &str) {
    let mut util = Command::new("softhsm2-util");
    util.args(["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "31415926"]);
    let output = util.env("SOFTHSM2_CONF", folder.join("softhsm2.conf")).output();
    let output = output.expect("softhsm2-util runs (Debian: softhsm2)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `[hsm]` for every vault in the process of such a test; in any other process nothing.
pub fn usual_section() -> String {
    let folder = std::env::var(FOLDER).ok();
    let section = folder.map(|folder| std::fs::read_to_string(Path::new(&folder).join(SECTION)));
    section.map(|text| format!("\n{}", text.expect("the section"))).unwrap_or_default()
}

/// Runs `body` in a process of its own with a token of its own, and every key of every vault in it.
pub fn with_token<F: AsyncFn(&Path)>(body: F) {
    with_token_as(("", "all_keys = true"), body);
}

/// The same with lines of one's own in SoftHSM's configuration and in `[hsm]`.
pub fn with_token_as<F: AsyncFn(&Path)>(lines: (&str, &str), body: F) {
    if let Ok(folder) = std::env::var(FOLDER) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(body(Path::new(&folder)));
    }
    let name = std::any::type_name::<F>();
    let name = name.strip_prefix("it::").expect("a test of this binary").trim_end_matches("::{{closure}}");
    let said = again(lines, &["--include-ignored", "--exact", name]);
    assert!(said.contains("1 passed"), "{name}: {said}");
}

/// Starts this test binary again with these arguments, and a new token; returns what it said if all went well.
pub fn again((softhsm, hsm): (&str, &str), arguments: &[&str]) -> String {
    let tokens = Tokens::new(softhsm, hsm);
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command.args(arguments).arg("--nocapture");
    tokens.seen_by(&mut command);
    let output = command.output().expect("the test binary runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // SoftHSM's destructors run beside threads that still hang in it, and the process may die of that when all is over.
    assert!(said.contains("test result: ok. "), "{arguments:?}: {said}");
    said
}
