//! The program that libFuzzer drives. `CASEMATE_FUZZ_TARGET` names the target; the arguments are libFuzzer's. With
//! `CASEMATE_FUZZ_SEEDS` it writes the seeds of all targets into that folder instead, and ends.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("CASEMATE_FUZZ_TARGET").expect("CASEMATE_FUZZ_TARGET names the target");
    fuzz::target(&name).expect("CASEMATE_FUZZ_TARGET is the name of a target")
});

/// Writes the seeds and ends, or makes the target's keys: that takes seconds, which are no input's.
fn prepare() {
    if let Some(folder) = std::env::var_os("CASEMATE_FUZZ_SEEDS") {
        fuzz::write_seeds(Path::new(&folder)).expect("the seeds can be written");
        std::process::exit(0);
    }
    (TARGET.seeds)().iter().for_each(|seed| (TARGET.run)(seed));
}

fuzz_target!(init: prepare(), |data: &[u8]| (TARGET.run)(data));
