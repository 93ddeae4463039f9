//! Names the events in which a boot was not the predicted one.

use std::collections::BTreeMap;

use super::{PredictedEvent, Prediction};
use crate::event_log::EventLog;
use crate::pcr::Digest;

/// The events of the sealed-to PCRs in which a log differs from the prediction; empty when they agree.
pub fn difference(expected: &Prediction, log: &EventLog) -> Vec<String> {
    let events: Vec<(u8, Digest)> = log.events.iter().map(|event| (event.pcr, event.digest)).collect();
    difference_of(expected, &events)
}

/// The same against extends that were seen on their way to the TPM. Extends that come after the unsealing must be left
/// out by the caller.
pub fn difference_of(expected: &Prediction, extends: &[(u8, Digest)]) -> Vec<String> {
    let mut seen: BTreeMap<u8, Vec<&Digest>> = BTreeMap::new();
    for (pcr, digest) in extends {
        seen.entry(*pcr).or_default().push(digest);
    }
    let mut differences = Vec::new();
    for pcr in &expected.seal_pcrs {
        let wanted: Vec<&PredictedEvent> = expected.events.iter().filter(|event| event.pcr == *pcr).collect();
        let found = seen.get(pcr).map(Vec::as_slice).unwrap_or_default();
        compare(*pcr, &wanted, found, &mut differences);
    }
    differences
}

fn compare(pcr: u8, wanted: &[&PredictedEvent], found: &[&Digest], differences: &mut Vec<String>) {
    for (place, event) in wanted.iter().enumerate() {
        let number = place + 1;
        match found.get(place) {
            Some(digest) if **digest == event.digest => {}
            Some(digest) => differences.push(format!(
                "PCR {pcr} event {number}: expected {} ({}), measured {}",
                event.what,
                hex::encode(event.digest),
                hex::encode(digest)
            )),
            None => differences.push(format!("PCR {pcr} event {number}: {} was not measured", event.what)),
        }
    }
    for digest in found.iter().skip(wanted.len()) {
        differences.push(format!("PCR {pcr}: unexpected event {}", hex::encode(digest)));
    }
}
