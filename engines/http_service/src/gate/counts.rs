//! What the gate counts. Handles are looked up when a route is made, or at a status's first answer.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;

use super::Cost;
use crate::metrics::{Counter, CountersByCode, Gauge, Histogram, Metrics};

/// An answer's extension: the code of the denial in it, for the count of denials.
#[derive(Clone, Debug)]
pub struct DenialCode(pub String);

/// Statuses that are told apart; all others are one.
const STATUSES: [(u16, &str); 18] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (0, "other"),
];

/// Counts of all routes.
pub(super) struct HttpCounts {
    in_flight: Gauge,
    limited_usual: Counter,
    limited_costly: Counter,
    busy: Counter,
    denials: CountersByCode,
}

impl HttpCounts {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        let limited = |class| {
            let help = "Requests refused because their caller makes too many, or too many are under way.";
            metrics.counter("casemate_http_rate_limited_total", help, &[("limit", class)])
        };
        let in_flight = "Requests under way.";
        Self {
            in_flight: metrics.gauge("casemate_http_requests_in_flight", in_flight, &[]),
            limited_usual: limited("usual"),
            limited_costly: limited("costly"),
            busy: limited("concurrent"),
            denials: CountersByCode::new(
                metrics,
                "casemate_denials_total",
                "Refusals that were explained, by code.",
            ),
        }
    }

    pub(super) fn rate_limited(&self, cost: Cost) {
        let counter = if cost == Cost::Costly { &self.limited_costly } else { &self.limited_usual };
        counter.increment(1);
    }

    pub(super) fn busy(&self, answer: Response) -> Response {
        self.busy.increment(1);
        answer
    }

    pub(super) fn denied(&self, code: &str) {
        self.denials.count(code);
    }

    /// Counts a request as under way until the value is dropped, also when the client goes away.
    pub(super) fn under_way(&self) -> UnderWay {
        self.in_flight.increment(1);
        UnderWay(self.in_flight.clone())
    }
}

pub(super) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Counts of one route.
pub(super) struct RouteCounts {
    metrics: Arc<Metrics>,
    method: &'static str,
    route: &'static str,
    duration: Histogram,
    by_status: [OnceLock<Counter>; STATUSES.len()],
}

impl RouteCounts {
    pub(super) fn new(metrics: &Arc<Metrics>, method: &'static str, route: &'static str) -> Self {
        let labels = [("method", method), ("route", route)];
        let help = "From the request's headers to the answer's.";
        let duration = metrics.seconds("casemate_http_request_duration_seconds", help, &labels);
        let by_status = std::array::from_fn(|_| OnceLock::new());
        Self { metrics: Arc::clone(metrics), method, route, duration, by_status }
    }

    pub(super) fn count(&self, status: StatusCode, took: Duration) {
        self.duration.record(took);
        let known = STATUSES.iter().position(|(number, _)| *number == status.as_u16());
        let index = known.unwrap_or(STATUSES.len() - 1);
        let (Some(counter), Some((_, label))) = (self.by_status.get(index), STATUSES.get(index)) else {
            return;
        };
        counter.get_or_init(|| self.register(label)).increment(1);
    }

    fn register(&self, status: &'static str) -> Counter {
        let labels = [("method", self.method), ("route", self.route), ("status", status)];
        self.metrics.counter("casemate_http_requests_total", "Answered requests.", &labels)
    }
}
