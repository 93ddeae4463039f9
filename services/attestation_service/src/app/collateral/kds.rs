//! The client of AMD's key distribution service: addresses in order, a bound on time, size and number of requests, no
//! redirect, and no request to a server that asked for quiet.
//!
//! ```text
//! ask ─► resting? ─yes─► told until when
//!          │no
//!          ▼
//!        GET ─200─► checked ─► the answer; the server's failures are forgotten
//!          ├─404──────────────► this address rests for ten minutes
//!          ├─429, 503─────────► the server rests for as long as Retry-After says, and not less than the back-off
//!          ├─other, no answer─► the server rests: 1 s, 2 s, ... 5 min, half of it by chance
//!          └─200 of garbage───► this address rests likewise
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http_service::Metrics;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use tokio::sync::Semaphore;

use super::counts::Fetches;

/// How long an address that does not exist is remembered, in seconds.
pub const NOT_FOUND_FOR: i64 = 600;
/// The longest wait that a server is granted, in seconds.
const LONGEST_REST: i64 = 86_400;
/// The longest back-off, in seconds.
const LONGEST_BACK_OFF: i64 = 300;
/// Requests at a time.
const CONCURRENT: usize = 4;
/// Most addresses and servers whose rest is remembered; after that the rests of addresses are forgotten.
const MAX_RESTING: usize = 10_000;

/// Fetches from one or more servers of the same interface.
pub struct Kds {
    bases: Vec<String>,
    timeout: Duration,
    client: OnceLock<reqwest::Client>,
    /// By address, and by server (scheme, host and port).
    resting: Mutex<HashMap<String, Rest>>,
    slots: Semaphore,
    counts: Fetches,
}

#[derive(Clone, Debug)]
struct Rest {
    until: i64,
    failures: u32,
    reason: String,
    missing: bool,
}

/// Why there is no answer, and when it is worth asking again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoAnswer {
    /// What happened.
    pub reason: String,
    /// Unix seconds.
    pub retry_at: i64,
    /// Whether every server says that there is no such thing.
    pub missing: bool,
}

/// How one request ended without success.
enum Failed {
    Missing,
    Quiet { status: StatusCode, retry_after: Option<i64> },
    Server(String),
    Garbage(String),
}

impl Kds {
    /// A client of these servers; no request is made yet.
    pub fn new(bases: Vec<String>, timeout: Duration, metrics: &Arc<Metrics>) -> Self {
        Self {
            bases: bases.into_iter().map(|base| base.trim_end_matches('/').to_owned()).collect(),
            timeout,
            client: OnceLock::new(),
            resting: Mutex::default(),
            slots: Semaphore::new(CONCURRENT),
            counts: Fetches::new(metrics),
        }
    }

    /// The addresses of a path, in the order in which they are asked.
    pub fn urls(&self, path: &str) -> Vec<String> {
        self.bases.iter().map(|base| format!("{base}{path}")).collect()
    }

    /// Whether an address is one of these servers.
    pub fn serves(&self, url: &str) -> bool {
        let path = self.bases.iter().find_map(|base| url.strip_prefix(base));
        path.is_some_and(|path| path.starts_with('/'))
    }

    /// The servers, and until when each of them is left alone (Unix seconds) and why.
    pub fn servers(&self, now: i64) -> Vec<(String, Option<(i64, String)>)> {
        let resting = self.lock();
        let rest = |base: &String| {
            let rest = resting.get(&server(base)).filter(|rest| rest.until > now);
            rest.map(|rest| (rest.until, rest.reason.clone()))
        };
        self.bases.iter().map(|base| (base.clone(), rest(base))).collect()
    }

    /// The first answer that `check` accepts, at most `max` bytes long.
    pub async fn fetch<T>(
        &self,
        urls: &[String],
        max: usize,
        now: i64,
        check: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, NoAnswer> {
        let mut why: Option<NoAnswer> = None;
        for url in urls {
            let error = match self.fetch_one(url, max, now, &check).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            why = Some(match why {
                // A server that could not be asked may know what another one does not.
                Some(earlier) if !earlier.missing || error.missing => earlier,
                _ => error,
            });
        }
        Err(why.unwrap_or_else(|| NoAnswer {
            reason: "no key distribution service is configured".to_owned(),
            retry_at: now + LONGEST_BACK_OFF,
            missing: false,
        }))
    }

    /// Whether none of these addresses would be asked now.
    pub fn rests(&self, urls: &[String], now: i64) -> bool {
        urls.iter().all(|url| self.resting(url, now).is_some())
    }

    /// An answer that turned out to be garbage later.
    pub fn distrust(&self, url: &str, reason: String, now: i64) -> NoAnswer {
        self.rest(url, now, Failed::Garbage(reason))
    }

    async fn fetch_one<T>(
        &self,
        url: &str,
        max: usize,
        now: i64,
        check: &impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, NoAnswer> {
        if let Some(rest) = self.resting(url, now) {
            return Err(rest);
        }
        let slot = self.slots.acquire().await;
        // Others may have been told to be quiet while this request waited for its turn.
        if let Some(rest) = self.resting(url, now) {
            return Err(rest);
        }
        let answer = self.get(url, max, now).await;
        drop(slot);
        let answer = answer.and_then(|body| check(&body).map_err(Failed::Garbage));
        self.counts.ended(answer.as_ref().err());
        match answer {
            Ok(answer) => {
                let mut resting = self.lock();
                resting.remove(url);
                resting.remove(&server(url));
                Ok(answer)
            }
            Err(failed) => Err(self.rest(url, now, failed)),
        }
    }

    async fn get(&self, url: &str, max: usize, now: i64) -> Result<Vec<u8>, Failed> {
        let unreachable = |error: reqwest::Error| Failed::Server(crate::chain(&error.without_url()));
        let mut response = self.client().get(url).send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Failed::Missing),
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let retry_after = header.and_then(|text| retry_after(text, now));
                return Err(Failed::Quiet { status, retry_after });
            }
            status => return Err(Failed::Server(format!("it answered {status}"))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > max {
                return Err(Failed::Garbage(format!("the answer is longer than {max} bytes")));
            }
        }
        Ok(body)
    }

    /// Made at the first request: a service that never fetches needs no TLS.
    fn client(&self) -> &reqwest::Client {
        self.client.get_or_init(|| {
            let client =
                reqwest::Client::builder().timeout(self.timeout).redirect(reqwest::redirect::Policy::none());
            client.build().expect("the process installed a TLS provider, and nothing else can fail")
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Rest>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resting(&self, url: &str, now: i64) -> Option<NoAnswer> {
        let resting = self.lock();
        let rest = [url, &server(url)].into_iter().find_map(|key| resting.get(key));
        let rest = rest.filter(|rest| rest.until > now)?;
        Some(NoAnswer { reason: rest.reason.clone(), retry_at: rest.until, missing: rest.missing })
    }

    /// Writes down how long an address, or its whole server, is left alone.
    fn rest(&self, url: &str, now: i64, failed: Failed) -> NoAnswer {
        let of_server = matches!(failed, Failed::Quiet { .. } | Failed::Server(_));
        let key = if of_server { server(url) } else { url.to_owned() };
        let mut resting = self.lock();
        let failures = resting.get(&key).map_or(0, |rest| rest.failures);
        let backed_off = now + back_off(failures);
        let (until, reason) = match &failed {
            Failed::Missing => (now + NOT_FOUND_FOR, format!("{url} does not exist (404)")),
            Failed::Quiet { status, retry_after } => {
                let asked = retry_after.unwrap_or(0).min(now + LONGEST_REST);
                (asked.max(backed_off), format!("{} answered {status}", server(url)))
            }
            Failed::Server(problem) => (backed_off, format!("{}: {problem}", server(url))),
            Failed::Garbage(problem) => (backed_off, format!("the answer of {url} is refused: {problem}")),
        };
        if resting.len() >= MAX_RESTING {
            resting.clear();
        }
        let missing = matches!(failed, Failed::Missing);
        let rest = Rest { until, failures: failures.saturating_add(1), reason, missing };
        let told = NoAnswer { reason: rest.reason.clone(), retry_at: until, missing };
        resting.insert(key, rest);
        told
    }
}

impl Fetches {
    fn ended(&self, failed: Option<&Failed>) {
        let counter = match failed {
            None => &self.answered,
            Some(Failed::Missing) => &self.missing,
            Some(Failed::Quiet { .. }) => &self.throttled,
            Some(Failed::Server(_)) => &self.failed,
            Some(Failed::Garbage(_)) => &self.refused,
        };
        counter.increment(1);
    }
}

/// Scheme, host and port.
fn server(url: &str) -> String {
    url::Url::parse(url).map_or_else(|_| url.to_owned(), |url| url.origin().ascii_serialization())
}

/// Seconds until the next request after so many failures: doubled each time, half of it by chance, so that services
/// which failed together do not come back together.
fn back_off(failures: u32) -> i64 {
    let longest = (1_i64 << failures.min(16)).min(LONGEST_BACK_OFF) * 1000;
    let mut random = [0; 2];
    aws_lc_rs::rand::fill(&mut random).expect("the system's random generator works after start-up");
    let by_chance = longest / 2 * i64::from(u16::from_le_bytes(random)) / i64::from(u16::MAX);
    (longest / 2 + by_chance + 999) / 1000
}

/// `Retry-After` as Unix seconds: a number of seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(text: &str, now: i64) -> Option<i64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(now + i64::from(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(date.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", 1000), Some(1120));
        assert_eq!(retry_after(" Sun, 06 Nov 1994 08:49:37 GMT ", 1000), Some(784_111_777));
        assert_eq!(retry_after("-5", 1000), None);
        assert_eq!(retry_after("soon", 1000), None);
    }

    #[test]
    fn an_absurd_retry_after_is_bounded() {
        let kds = Kds::new(Vec::new(), Duration::from_secs(1), &Metrics::new("test", "1"));
        let status = StatusCode::TOO_MANY_REQUESTS;
        let told = kds.rest("http://a/b", 0, Failed::Quiet { status, retry_after: Some(i64::MAX) });
        assert_eq!(told.retry_at, LONGEST_REST);
        assert!(kds.resting("http://a/another", LONGEST_REST - 1).is_some(), "the whole server rests");
        assert!(kds.resting("http://a/another", LONGEST_REST).is_none());
        assert!(kds.resting("http://b/another", 1).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let kds = Kds::new(Vec::new(), Duration::from_secs(1), &Metrics::new("test", "1"));
        for number in 0..=MAX_RESTING {
            kds.rest(&format!("http://a/{number}"), 0, Failed::Missing);
        }
        assert_eq!(kds.lock().len(), 1);
    }

    proptest! {
        #[test]
        fn back_off_doubles_within_its_bounds(failures: u32) {
            let longest = (1_i64 << failures.min(9)).min(LONGEST_BACK_OFF);
            let waits = back_off(failures);
            prop_assert!(waits >= longest / 2 && waits <= longest && waits >= 1, "{waits}");
        }

        #[test]
        fn no_retry_after_panics(text: String, now in 0..4_000_000_000_i64) {
            let _ = retry_after(&text, now);
        }
    }
}
