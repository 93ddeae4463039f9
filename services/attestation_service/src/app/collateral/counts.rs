//! What is counted of collateral.

use std::sync::Arc;

use http_service::Metrics;
use http_service::metrics::Counter;

/// Where the certificate of a chip was found that its evidence did not bring.
pub(super) struct Lookups {
    pub memory: Counter,
    pub database: Counter,
    pub fetched: Counter,
    pub missing: Counter,
}

impl Lookups {
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        let help = "Certificates of chips that evidence did not bring, by where they were found.";
        let counter = |found| metrics.counter("casemate_collateral_lookups_total", help, &[("found", found)]);
        Self {
            memory: counter("memory"),
            database: counter("database"),
            fetched: counter("key_distribution_service"),
            missing: counter("nowhere"),
        }
    }
}

/// How requests to key distribution services ended.
pub(super) struct Fetches {
    pub answered: Counter,
    pub missing: Counter,
    pub throttled: Counter,
    pub failed: Counter,
    pub refused: Counter,
}

impl Fetches {
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        let help = "Requests to key distribution services, by how they ended.";
        let counter = |outcome| metrics.counter("casemate_kds_requests_total", help, &[("outcome", outcome)]);
        Self {
            answered: counter("answered"),
            missing: counter("not_found"),
            throttled: counter("throttled"),
            failed: counter("failed"),
            refused: counter("answer_refused"),
        }
    }
}
