//! Which generation of a guest state may have its key: never an older one, but after a reset
//! ([`super::reset`]).
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

use crate::token::evidence::GuestState;
use token_verifier::{Refusal, refusal};

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
        let remedy = "put the newest guest state back; if it is lost, only an officer of the vault lets an older one in again";
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(last: Option<u64>, generation: u64) -> Option<String> {
        let state = GuestState { vm_id: "VM".to_owned(), generation };
        check(last, &state).err().map(|denial| denial.code)
    }

    #[test]
    fn the_same_or_the_next_generation_passes() {
        let cases = [
            (None, 0, None),
            (None, 1, None),
            (None, 2, Some("GenerationAhead")),
            (None, u64::MAX, Some("GenerationAhead")),
            (Some(0), 0, None),
            (Some(0), 1, None),
            (Some(0), 2, Some("GenerationAhead")),
            (Some(7), 0, Some("RollbackRefused")),
            (Some(7), 6, Some("RollbackRefused")),
            (Some(7), 7, None),
            (Some(7), 8, None),
            (Some(7), 9, Some("GenerationAhead")),
            (Some(u64::MAX), u64::MAX, None),
            (Some(u64::MAX), u64::MAX - 1, Some("RollbackRefused")),
        ];
        for (last, generation, expected) in cases {
            assert_eq!(code(last, generation).as_deref(), expected, "{generation} after {last:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_presented_the_generation_moves_by_single_steps(presented in prop::collection::vec(0..8_u64, 0..64)) {
            let mut last: Option<u64> = None;
            for generation in presented {
                if code(last, generation).is_none() {
                    prop_assert!(generation <= last.map_or(1, |last| last + 1));
                    prop_assert!(last.is_none_or(|last| generation >= last));
                    last = Some(generation);
                }
            }
        }
    }
}
