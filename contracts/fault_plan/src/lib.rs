//! The fault plan: named points at which a process can be made to end without a word, as in a power cut. Crash tests
//! go through all points of all processes (`tools/devkit/tests/stack`).
//!
//! `CASEMATE_FAULT_PLAN` names a folder. There every point that is reached is noted as a line of `reached`, and the one
//! that `crash-at` names is crashed at; `crash-at` then becomes `crashed`, so that it happens once, however many processes
//! there are and however often they are started again. Without the variable nothing happens at any point.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The environment variable.
pub const VARIABLE: &str = "CASEMATE_FAULT_PLAN";
/// File of the points that were reached, one a line.
pub const REACHED: &str = "reached";
/// File that says where to crash: how often the point is passed before, a space, the point.
pub const CRASH_AT: &str = "crash-at";
/// What `crash-at` is called once the crash has happened.
pub const CRASHED: &str = "crashed";

/// Whether this process runs under a fault plan.
pub fn is_in_force() -> bool {
    folder().is_some()
}

/// Says that `process` is at `point`. Does not return if the plan says so.
pub fn reach(process: &str, point: &str) {
    if let Some(folder) = folder()
        && crashes(folder, &format!("{process}: {point}"))
    {
        std::process::abort();
    }
}

fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)).as_deref()
}

/// Notes the point; whether to crash at it. A plan that cannot be read plans nothing: the test then misses its crash.
fn crashes(folder: &Path, point: &str) -> bool {
    let noted = File::options().create(true).append(true).open(folder.join(REACHED));
    // One write, so that lines of several processes do not mix.
    let _ = noted.and_then(|mut file| file.write_all(format!("{point}\n").as_bytes()));
    let order = folder.join(CRASH_AT);
    let text = fs::read_to_string(&order).unwrap_or_default();
    let planned = text.split_once(' ').filter(|(_, planned)| *planned == point);
    match planned.map(|(passes, _)| passes.parse::<u32>()) {
        Some(Ok(0)) => fs::rename(&order, folder.join(CRASHED)).is_ok(),
        Some(Ok(passes)) => {
            let _ = fs::write(&order, format!("{} {point}", passes - 1));
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_crash_happens_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CRASH_AT), "0 keys: after storing a key").unwrap();
        assert!(!crashes(folder.path(), "keys: before storing a key"));
        assert!(crashes(folder.path(), "keys: after storing a key"));
        assert!(!crashes(folder.path(), "keys: after storing a key"));
        assert!(folder.path().join(CRASHED).exists());
    }

    #[test]
    fn a_point_can_be_passed_before() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CRASH_AT), "2 a: b").unwrap();
        let crashed: Vec<bool> = (0..4).map(|_| crashes(folder.path(), "a: b")).collect();
        assert_eq!(crashed, [false, false, true, false]);
    }

    #[test]
    fn every_point_is_noted_and_without_an_order_none_is_crashed_at() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!crashes(folder.path(), "a: b"));
        assert!(!crashes(folder.path(), "a: c"));
        assert_eq!(fs::read_to_string(folder.path().join(REACHED)).unwrap(), "a: b\na: c\n");
    }

    #[test]
    fn without_the_variable_nothing_happens() {
        assert!(!is_in_force());
        reach("a", "b");
    }
}
