//! The TCG event log.

use vtpm::event_log::parse;

use crate::Target;
use crate::support::data;

pub(crate) const TARGET: Target = Target {
    name: "vtpm_event_log",
    run,
    seeds,
    words: &[b"Spec ID Event03\0", b"\x0b\x00\x20\x00", b"\x04\x00\x14\x00", b"\x0c\x00\x30\x00"],
    max_len: 16384,
};

fn run(log: &[u8]) {
    let Ok(parsed) = parse(log) else { return };
    let events: usize = parsed.events.iter().map(|event| event.data.len() + 32).sum();
    assert!(events <= log.len(), "a log holds no more than its bytes");
    let bank = parsed.replay();
    assert!(bank.0.keys().all(|pcr| *pcr < 24), "a TPM has 24 PCRs");
    for pcr in 0..24 {
        assert_eq!(bank.value(pcr).is_some(), parsed.of_pcr(pcr).next().is_some());
    }
    assert!(log.len() < 2 || parse(&log[..log.len() - 1]).as_ref() != Ok(&parsed), "a cut is seen");
}

/// A log of a whole boot, and its first events alone.
fn seeds() -> Vec<Vec<u8>> {
    let log = data("engines/vtpm/tests/data/event-log-debian13.bin");
    let spec_id = 32 + usize::from(log[28]);
    vec![log[..spec_id].to_vec(), log]
}
