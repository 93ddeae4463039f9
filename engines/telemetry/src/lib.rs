//! Logs on standard error, and spans to an OpenTelemetry collector where one is configured.
//!
//! ```text
//! span ends ─► queue of 2048 ─full─► dropped, counted by the SDK
//!                 │
//!                 ▼ a thread of its own, every second
//!              POST {otlp_endpoint}/v1/traces  (OTLP/HTTP, protobuf)
//! ```
//!
//! No request waits for a collector: one that is slow, or gone, costs spans and nothing else. What leaves the process are
//! the spans of [`SPAN_TARGETS`] alone, whose attributes are methods, route templates and statuses; log lines, paths,
//! bodies and tokens do not.
//!
//! Sources: OpenTelemetry protocol specification 1.x, section OTLP/HTTP; W3C Trace Context.

mod client;

use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use serde::Deserialize;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};
use url::Url;

use client::Client;

/// Whose spans are exported.
const SPAN_TARGETS: [&str; 1] = ["http_service::request"];
/// Spans that wait for the collector; further ones are dropped.
const QUEUE: usize = 2048;
/// Between two exports.
const DELAY: Duration = Duration::from_secs(1);
/// For one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The end of the process waits no longer than this for the last spans.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Base address of a collector that speaks OTLP/HTTP, for example `http://127.0.0.1:4318`. Nothing is exported without.
    #[serde(default)]
    pub otlp_endpoint: Option<String>,
    /// `service.name` of the spans; the program's own name if it is not given.
    #[serde(default)]
    pub service_name: Option<String>,
    /// The part of all traces that is exported, 0 to 1. A client's `traceparent` does not decide about it.
    #[serde(default = "all")]
    pub sample_ratio: f64,
}

fn all() -> f64 {
    1.0
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, service_name: None, sample_ratio: all() }
    }
}

impl TelemetryConfig {
    /// The key and the problem of a value that makes no sense.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Some(("telemetry.sample_ratio", "expected a number from 0 to 1"));
        }
        let endpoint = self.otlp_endpoint.as_deref().map(endpoint);
        if endpoint.is_some_and(|endpoint| endpoint.is_none()) {
            return Some((
                "telemetry.otlp_endpoint",
                "expected an http or https URL without user, query and fragment",
            ));
        }
        None
    }
}

/// The address that traces are sent to.
fn endpoint(base: &str) -> Option<String> {
    let url = Url::parse(base).ok()?;
    let plain = ["http", "https"].contains(&url.scheme()) && url.has_host();
    let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    (plain && bare && url.password().is_none()).then(|| format!("{}/v1/traces", base.trim_end_matches('/')))
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A value of the configuration.
    #[error("configuration key `{key}`: {problem}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The exporter.
    #[error("making the exporter of spans")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Somebody else takes the logs already.
    #[error("setting the receiver of logs")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// What has to be ended with the process.
#[must_use = "the last spans are sent when it is shut down"]
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Sets up the process's logs, by `RUST_LOG`, and the export of spans. Called once. An https collector needs that the process
/// has installed a rustls provider.
pub fn start(
    config: &TelemetryConfig,
    program: &'static str,
    version: &'static str,
) -> Result<Telemetry, TelemetryError> {
    let (subscriber, telemetry) = subscriber(config, program, version)?;
    subscriber.try_init()?;
    Ok(telemetry)
}

/// The receiver of logs and spans.
fn subscriber(
    config: &TelemetryConfig,
    program: &'static str,
    version: &'static str,
) -> Result<(impl tracing::Subscriber + Send + Sync + use<>, Telemetry), TelemetryError> {
    let provider = provider(config, program, version)?;
    let export = provider.as_ref().map(|provider| {
        let targets = SPAN_TARGETS.map(|target| (target, LevelFilter::INFO));
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(program))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_targets(targets))
    });
    Ok((Registry::default().with(export).with(logs()), Telemetry(provider)))
}

/// Log lines on standard error, without the spans that are there to be exported.
fn logs<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let level = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let no_spans = filter_fn(|metadata| !SPAN_TARGETS.contains(&metadata.target()));
    tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(level.and(no_spans))
}

fn provider(
    config: &TelemetryConfig,
    program: &'static str,
    version: &'static str,
) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    if let Some((key, problem)) = config.problem() {
        return Err(TelemetryError::Config { key, problem });
    }
    let Some(endpoint) = config.otlp_endpoint.as_deref().and_then(endpoint) else { return Ok(None) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new(EXPORT_TIMEOUT))
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let batches =
        BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(DELAY).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let name = config.service_name.clone().unwrap_or_else(|| program.to_owned());
    let resource = Resource::builder_empty()
        .with_service_name(name)
        .with_attribute(KeyValue::new("service.version", version))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        // Not by the parent: a stranger's `traceparent` must not decide what is exported.
        .with_sampler(Sampler::TraceIdRatioBased(config.sample_ratio))
        .with_resource(resource)
        .build();
    Ok(Some(provider))
}

impl Telemetry {
    /// Whether spans are exported.
    pub fn exports(&self) -> bool {
        self.0.is_some()
    }

    /// Sends the spans that wait, within two seconds.
    pub fn shut_down(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_WITHIN)
        {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

/// A place in a trace: trace, span, and whether the span is exported.
pub type Place = ([u8; 16], [u8; 8], bool);

/// Puts a span below a client's and tells the span's own place; nothing if the span is not exported to anybody.
pub fn adopt(span: &Span, parent: Option<Place>) -> Option<Place> {
    if let Some((trace, parent, sampled)) = parent {
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, parent) = (TraceId::from_bytes(trace), SpanId::from_bytes(parent));
        let remote = SpanContext::new(trace, parent, flags, true, TraceState::default());
        // It fails where nothing is exported, and then there is nothing to put anywhere.
        let _ = span.set_parent(Context::new().with_remote_span_context(remote));
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let place = (context.trace_id().to_bytes(), context.span_id().to_bytes(), context.is_sampled());
    context.is_valid().then_some(place)
}

#[cfg(test)]
mod tests;
