//! Each target over its seeds and over some damaged ones, without the engine: what `cargo xtask fuzz` begins with.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Seeds with bytes replaced, cut off or added.
fn damaged(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    (prop::sample::select(seeds), edits, cut, prop::collection::vec(any::<u8>(), 0..3)).prop_map(
        |(mut bytes, edits, cut, more)| {
            edits.iter().for_each(|(at, byte)| {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            });
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes.extend(more);
            bytes
        },
    )
}

fn over_its_seeds(name: &str) {
    let target = fuzz::target(name).expect("a target");
    let seeds = (target.seeds)();
    assert!(seeds.len() > 1 && seeds.iter().all(|seed| seed.len() <= target.max_len), "{name}");
    (target.run)(&[]);
    seeds.iter().for_each(|seed| (target.run)(seed));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() });
    runner
        .run(&damaged(seeds), |bytes| {
            (target.run)(&bytes);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { over_its_seeds(stringify!($name)); })*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(fuzz::TARGETS.map(|target| target.name), tested);
        }
    };
}

targets! {
    snp_report snp_certificates sev_differential vtpm_event_log vtpm_quote hcl_report policy release_policy jws
    key_import key_bodies
}
