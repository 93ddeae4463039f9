//! What the service counts of its own work; requests are counted by the gate.

use std::sync::Arc;

use http_service::Metrics;
use http_service::metrics::Counter;
use public_api::attestation_policy::AttestationType;

use super::attest::AttestError;

/// How attesting ended, in the order of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attested {
    /// A token was issued.
    Issued,
    /// The evidence, the nonce or the policy said no.
    Refused,
    /// What the evidence lacks could not be had.
    Unavailable,
    /// A fault of ours.
    Failed,
}

impl Attested {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Issued, "issued"),
        (Self::Refused, "refused"),
        (Self::Unavailable, "unavailable"),
        (Self::Failed, "failed"),
    ];

    /// Of a request that could be read.
    pub fn of<T>(result: &Result<T, AttestError>) -> Self {
        match result {
            Ok(_) => Self::Issued,
            Err(AttestError::Denied(_) | AttestError::Draft(_)) => Self::Refused,
            Err(AttestError::Unavailable { .. }) => Self::Unavailable,
            Err(
                AttestError::Store(_)
                | AttestError::Signer(_)
                | AttestError::Seal(_)
                | AttestError::AkAuthority(_),
            ) => Self::Failed,
        }
    }
}

/// The counters of attesting.
pub struct Counts {
    attested: [[Counter; Attested::ALL.len()]; AttestationType::ALL.len()],
}

impl Counts {
    /// All at zero.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        let help = "Requests to attest that could be read, by how they ended.";
        let counter = |kind: AttestationType, result| {
            let labels = [("type", kind.name()), ("result", result)];
            metrics.counter("casemate_attestations_total", help, &labels)
        };
        let of_kind = |kind| Attested::ALL.map(|(_, result)| counter(kind, result));
        Self { attested: AttestationType::ALL.map(of_kind) }
    }

    /// One more.
    pub fn attested(&self, kind: AttestationType, ended: Attested) {
        let kind = AttestationType::ALL.into_iter().position(|other| other == kind);
        let ended = Attested::ALL.into_iter().position(|(other, _)| other == ended);
        let counters = kind.and_then(|kind| self.attested.get(kind));
        if let Some(counter) = counters.zip(ended).and_then(|(counters, ended)| counters.get(ended)) {
            counter.increment(1);
        }
    }
}
