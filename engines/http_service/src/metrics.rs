//! Metrics as a Prometheus server reads them: counters, gauges and histograms that are looked up once and then cost one
//! atomic operation each.
//!
//! Label values are `&'static str`, so that no byte from outside becomes a series. The one exception, the code of a denial,
//! goes through [`CountersByCode`], which bounds their number.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use metrics::{Counter, Gauge, Histogram};

use metrics::{Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Upper bounds of durations, in seconds.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Samples of histograms wait in memory until they are read; this often they are summed up without a reader.
const UPKEEP: Duration = Duration::from_secs(5);
/// Most codes that are told apart.
const MAX_CODES: usize = 256;
/// Longest code.
const MAX_CODE: usize = 64;
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// A service's metrics.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    /// None yet but `casemate_build_info`.
    pub fn new(service: &'static str, version: &'static str) -> Arc<Self> {
        let builder = PrometheusBuilder::new().set_buckets(&SECONDS).expect("there are buckets");
        let recorder = builder.build_recorder();
        let metrics = Self { handle: recorder.handle(), recorder };
        let labels = [("service", service), ("version", version)];
        metrics.gauge("casemate_build_info", "What runs; always 1.", &labels).set(1);
        Arc::new(metrics)
    }

    /// A counter; its name ends in `_total`.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Counter {
        self.recorder.describe_counter(name.into(), None, help.into());
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// A gauge.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Gauge {
        self.recorder.describe_gauge(name.into(), None, help.into());
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    /// A histogram of seconds; its name ends in `_seconds`.
    pub fn seconds(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Histogram {
        self.recorder.describe_histogram(name.into(), Some(Unit::Seconds), help.into());
        self.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// The text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sums samples up for as long as the service runs, so that they do not pile up where nobody reads them.
    pub async fn keep_up(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|&(name, value)| Label::from_static_parts(name, value)).collect();
    Key::from_parts(name, labels)
}

/// Counters that differ in a code which is made up at run time. After 256 different codes, and for what is no code, the
/// counter of `other` counts.
pub struct CountersByCode {
    metrics: Arc<Metrics>,
    name: &'static str,
    other: Counter,
    seen: RwLock<HashMap<Box<str>, Counter>>,
}

impl CountersByCode {
    /// None seen yet.
    pub fn new(metrics: &Arc<Metrics>, name: &'static str, help: &'static str) -> Self {
        let other = metrics.counter(name, help, &[("code", "other")]);
        Self { metrics: Arc::clone(metrics), name, other, seen: RwLock::default() }
    }

    /// One more with this code.
    pub fn count(&self, code: &str) {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner).get(code).cloned();
        match seen {
            Some(counter) => counter.increment(1),
            None => self.count_new(code),
        }
    }

    fn count_new(&self, code: &str) {
        let is_code = code.len() <= MAX_CODE && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if !is_code || code.is_empty() || (seen.len() >= MAX_CODES && !seen.contains_key(code)) {
            return self.other.increment(1);
        }
        let counter = seen.entry(code.into()).or_insert_with(|| {
            let key = Key::from_parts(self.name, vec![Label::new("code", code.to_owned())]);
            self.metrics.recorder.register_counter(&key, &METADATA)
        });
        counter.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_help_type_and_values() {
        let metrics = Metrics::new("test", "1");
        metrics.counter("casemate_things_total", "Things.", &[("kind", "a")]).increment(3);
        metrics.seconds("casemate_wait_seconds", "Waits.", &[]).record(0.002);
        let text = metrics.render();
        for line in [
            "# HELP casemate_things_total Things.",
            "# TYPE casemate_things_total counter",
            "casemate_things_total{kind=\"a\"} 3",
            "casemate_wait_seconds_bucket{le=\"0.001\"} 0",
            "casemate_wait_seconds_bucket{le=\"0.0025\"} 1",
            "casemate_wait_seconds_count 1",
            "casemate_build_info{service=\"test\",version=\"1\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }

    #[test]
    fn codes_are_bounded_in_number_and_form() {
        let metrics = Metrics::new("test", "1");
        let codes = CountersByCode::new(&metrics, "casemate_denials_total", "Denials.");
        codes.count("NonceReplayed");
        codes.count("NonceReplayed");
        for code in ["", "a b", "x\"} 1", &"x".repeat(65)] {
            codes.count(code);
        }
        for number in 0..1000 {
            codes.count(&format!("Code{number}"));
        }
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("casemate_denials_total{")).count();
        assert_eq!(series, MAX_CODES + 1);
        assert!(text.contains("casemate_denials_total{code=\"NonceReplayed\"} 2"));
        let other = 4 + 1000 - (MAX_CODES - 1);
        assert!(text.contains(&format!("casemate_denials_total{{code=\"other\"}} {other}")), "{text}");
    }
}
