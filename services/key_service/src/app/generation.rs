//! Which generation of a guest state may have its key: never an older one.
//!
//! A boot takes the key for the state it found (generation g), writes the state as g + 1 and takes the key again for
//! that before the guest runs; a clean stop does the same. So of a state whose last release was g, only g (the boot
//! begins, or begins again) and g + 1 (the state was written, perhaps just before a crash) can be presented honestly:
//!
//! ```text
//!             release(g)        write g+1        release(g+1)
//!   state g ------------> opened ---------> state g+1 ------------> guest runs
//!      ^                    |                   |
//!      '---- crash ---------'                   '--- crash: the next boot presents g+1 = last+1
//! ```

use crate::refusal::{Refusal, refusal};
use crate::token::evidence::GuestState;

/// Decides on a presented state, given the generation that was released last.
pub fn check(last: Option<u64>, presented: &GuestState) -> Result<(), Refusal> {
    let newest = last.map_or(1, |last| last.saturating_add(1));
    let oldest = last.unwrap_or(0);
    let refused = |code: &str, rule: &str, remedy: &str| {
        let expected = format!("{oldest} or {newest}");
        let claim = "x-ms-runtime.guest-state.generation";
        Err(refusal(code, claim, expected, presented.generation.to_string(), rule, remedy))
    };
    if presented.generation < oldest {
        let rule = "a guest state older than the last released one is a rollback";
        let remedy = "put the newest guest state back; an older one never gets its key again";
        return refused("RollbackRefused", rule, remedy);
    }
    if presented.generation > newest {
        let rule = "generations grow by one, each with a release of its own";
        let remedy = "present the guest state that this key service released last";
        return refused("GenerationAhead", rule, remedy);
    }
    Ok(())
}

/// The refusal of a token without a guest state, for a key that has released guest states.
pub fn stateless() -> Refusal {
    let rule = "a key that has released guest states releases only to tokens that state their generation";
    let remedy = "use a key of its own for workloads";
    let expected = "the guest state's VM and generation";
    refusal("GuestStateMissing", "x-ms-runtime.guest-state", expected, "missing", rule, remedy)
}
