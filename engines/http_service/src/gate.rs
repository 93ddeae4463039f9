//! The gate that every request passes before its handler and on its way back: see the [crate's head](crate).

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use public_api::Denial;
use public_api::denial::ErrorBody;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, Span};

use crate::body;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::rate::{Callers, Rate, Wait};
use crate::trace::{Adopt, SPAN_TARGET, TraceParent};

mod counts;

pub use counts::DenialCode;
use counts::{HttpCounts, RouteCounts};

/// What a request costs the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Little.
    Usual,
    /// Much, for example because evidence is verified.
    Costly,
    /// A probe of the operator's: answered even when every slot is taken.
    Probe,
}

/// When a request is charged, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Before the handler, to the address.
    Address,
    /// By the handler, to whoever it has found the caller to be.
    Identity,
}

/// How a service wants its gate.
#[derive(Clone)]
pub struct GateConfig {
    /// See [`Limits`].
    pub limits: Limits,
    /// The header of answers that shows the request's place in its trace.
    pub request_id: Option<HeaderName>,
    /// How spans are exported, if they are.
    pub adopt: Option<Adopt>,
}

/// Codes of the gate's own refusals, where a service's clients know others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    /// 429: the caller makes too many requests.
    pub too_many: &'static str,
    /// 413: the body is too long.
    pub too_long: &'static str,
    /// 503: every slot is taken.
    pub busy: &'static str,
}

impl Default for Codes {
    fn default() -> Self {
        Self { too_many: "TooManyRequests", too_long: "RequestBodyTooLarge", busy: "ServerBusy" }
    }
}

/// The gate of one service.
pub struct Gate {
    limits: Limits,
    codes: Codes,
    request_id: Option<HeaderName>,
    adopt: Option<Adopt>,
    usual: Option<Callers>,
    costly: Option<Callers>,
    slots: Option<Semaphore>,
    metrics: Arc<Metrics>,
    counts: HttpCounts,
}

impl Gate {
    /// A gate that counts in `metrics`.
    pub fn new(config: GateConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::with_codes(config, Codes::default(), metrics)
    }

    /// The same, whose refusals have these codes.
    pub fn with_codes(config: GateConfig, codes: Codes, metrics: Arc<Metrics>) -> Arc<Self> {
        let GateConfig { limits, request_id, adopt } = config;
        let callers = |rate: Option<Rate>| rate.map(|rate| Callers::new(rate, limits.max_callers));
        let slots = limits.max_concurrent.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            usual: callers(Rate::per_second(limits.requests_per_second, limits.burst)),
            costly: callers(Rate::per_second(limits.costly_requests_per_second, limits.costly_burst)),
            slots: (slots > 0).then(|| Semaphore::new(slots)),
            counts: HttpCounts::new(&metrics),
            metrics,
            limits,
            codes,
            request_id,
            adopt,
        })
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it counts in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn charge(&self, cost: Cost, peer: Peer, subject: Option<&str>) -> Result<(), Box<Response>> {
        if peer == Peer::Loopback && !self.limits.limit_loopback {
            return Ok(());
        }
        let callers = if cost == Cost::Costly { &self.costly } else { &self.usual };
        let Some(callers) = callers else { return Ok(()) };
        let charged = match subject {
            Some(subject) => callers.check(("subject", subject)),
            None => callers.check(("peer", peer)),
        };
        charged.map_err(|wait| {
            self.counts.rate_limited(cost);
            Box::new(too_many(self.codes.too_many, cost, callers.rate(), subject.is_some(), wait))
        })
    }

    fn peer(&self, request: &Request) -> Peer {
        Peer::of(request.extensions(), request.headers(), &self.limits.trusted_proxies)
    }
}

/// A request that its handler has still to charge to somebody.
#[derive(Clone)]
pub struct Admission {
    gate: Arc<Gate>,
    cost: Cost,
    peer: Peer,
}

impl Admission {
    /// Charges the request to the caller whom the handler has verified, or to its address where it has verified none. A
    /// request that was charged before is not charged again. The error is the answer.
    pub fn settle(parts: &mut Parts, subject: Option<&str>) -> Result<(), Box<Response>> {
        match parts.extensions.remove::<Self>() {
            Some(Self { gate, cost, peer }) => gate.charge(cost, peer, subject),
            None => Ok(()),
        }
    }
}

/// A route with its gate.
pub(crate) struct GatedRoute {
    gate: Arc<Gate>,
    /// Method and template: the name of spans.
    name: String,
    method: &'static str,
    template: &'static str,
    cost: Cost,
    charge: Charge,
    max_body: usize,
    counts: RouteCounts,
}

impl GatedRoute {
    pub(crate) fn new(
        gate: &Arc<Gate>,
        (method, template): (&'static str, &'static str),
        (cost, charge): (Cost, Charge),
        max_body: usize,
    ) -> Arc<Self> {
        let (gate, counts) = (Arc::clone(gate), RouteCounts::new(&gate.metrics, method, template));
        let name = format!("{method} {template}");
        Arc::new(Self { gate, name, method, template, cost, charge, max_body, counts })
    }

    fn span(&self) -> Span {
        tracing::info_span!(
            target: SPAN_TARGET,
            "request",
            otel.name = self.name,
            otel.kind = "server",
            http.request.method = self.method,
            http.route = self.template,
            http.response.status_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        )
    }

    /// The request's place in its trace: that of the exported span, else one of our own.
    fn place(&self, span: &Span, request: &Request) -> TraceParent {
        let parent = TraceParent::of(request.headers());
        let exported = self.gate.adopt.filter(|_| !span.is_disabled());
        exported
            .and_then(|adopt| adopt(span, parent.map(Into::into)))
            .map_or_else(|| TraceParent::new(parent.as_ref()), TraceParent::from)
    }

    /// Lets the request in, or answers it.
    fn admit(self: &Arc<Self>, request: &mut Request) -> Result<(), Box<Response>> {
        let peer = self.gate.peer(request);
        request.extensions_mut().insert(peer);
        match self.charge {
            Charge::Address => self.gate.charge(self.cost, peer, None),
            Charge::Identity => {
                let (gate, cost) = (Arc::clone(&self.gate), self.cost);
                request.extensions_mut().insert(Admission { gate, cost, peer });
                Ok(())
            }
        }
    }

    async fn answer(self: &Arc<Self>, mut request: Request, next: Next) -> Response {
        let _slot = match &self.gate.slots {
            Some(slots) if self.cost != Cost::Probe => match slots.try_acquire() {
                Ok(slot) => Some(slot),
                Err(_) => return self.gate.counts.busy(busy(self.gate.codes.busy)),
            },
            _ => None,
        };
        if let Err(refusal) = self.admit(&mut request) {
            return *refusal;
        }
        if request.body().size_hint().lower() > self.max_body as u64 {
            return too_long(self.gate.codes.too_long, self.max_body);
        }
        let within = self.gate.limits.body_timeout();
        next.run(request.map(|body| body::timed(body, within))).await
    }
}

/// The middleware of one route.
pub(crate) async fn pass(State(route): State<Arc<GatedRoute>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let span = route.span();
    let place = route.place(&span, &request);
    let path = tracing::enabled!(tracing::Level::INFO).then(|| request.uri().path().to_owned());
    let under_way = route.gate.counts.under_way();
    let mut response = route.answer(request, next).instrument(span.clone()).await;
    drop(under_way);
    let status = response.status();
    // An unsigned number would be exported as a text.
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    route.counts.count(status, started.elapsed());
    if let Some(DenialCode(code)) = response.extensions().get() {
        route.gate.counts.denied(code);
    }
    let id = place.header();
    if let Some(path) = path {
        let (method, request_id) = (route.method, id.to_str().unwrap_or_default());
        tracing::info!(method, path, status = status.as_u16(), request_id);
    }
    if let Some(name) = &route.gate.request_id {
        response.headers_mut().insert(name, id);
    }
    response
}

fn too_many(code: &str, cost: Cost, rate: Rate, is_known: bool, wait: Wait) -> Response {
    let seconds = wait.seconds();
    let who = if is_known { "one caller" } else { "one address" };
    let key = if cost == Cost::Costly { "costly_requests_per_second" } else { "requests_per_second" };
    let denial = Denial::new(
        "TooManyRequests",
        "request rate",
        format!("at most {rate}, from {who}"),
        "more",
        format!("[limits] {key} of the service's configuration"),
        format!("try again in {seconds} s (Retry-After)"),
    );
    let body = ErrorBody::denied(code, denial);
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())], Json(body)).into_response()
}

fn too_long(code: &str, max: usize) -> Response {
    let body = ErrorBody::new(code, format!("the body is longer than {max} bytes"));
    (StatusCode::PAYLOAD_TOO_LARGE, Json(body)).into_response()
}

fn busy(code: &str) -> Response {
    let message = "as many requests are under way as this service takes; try again in a second";
    let body = ErrorBody::new(code, message);
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], Json(body)).into_response()
}

#[cfg(test)]
mod tests;
