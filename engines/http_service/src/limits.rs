//! `[limits]`: what one caller, and all callers together, may take from a service. A number of 0 switches a limit off.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

/// The limits of one service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that one caller may make in a second, for longer than a moment.
    pub requests_per_second: u32,
    /// Requests that one caller may make at once.
    pub burst: u32,
    /// The same for routes that cost much and need no identity, for example attesting.
    pub costly_requests_per_second: u32,
    /// The same.
    pub costly_burst: u32,
    /// Whether callers on this machine are limited as well. A machine that runs everything has one address for all.
    pub limit_loopback: bool,
    /// Addresses of reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Callers that are told apart; further ones share what is left.
    pub max_callers: usize,
    /// Requests under way, of all callers.
    pub max_concurrent: usize,
    /// Longest request body in bytes, where a route does not say otherwise.
    pub max_body_bytes: usize,
    /// Seconds in which a request's headers must have arrived.
    pub header_timeout_seconds: u64,
    /// Seconds in which a request's body must have arrived.
    pub body_timeout_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second: 100,
            burst: 500,
            costly_requests_per_second: 50,
            costly_burst: 200,
            limit_loopback: false,
            trusted_proxies: Vec::new(),
            max_callers: 65_536,
            max_concurrent: 1024,
            max_body_bytes: 1024 * 1024,
            header_timeout_seconds: 30,
            body_timeout_seconds: 60,
        }
    }
}

impl Limits {
    /// No limit on rates and numbers; bodies and times stay bounded.
    pub fn unlimited() -> Self {
        Self { requests_per_second: 0, costly_requests_per_second: 0, max_concurrent: 0, ..Self::default() }
    }

    /// The key and the problem of a value that makes no sense.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let needs_burst = |rate: u32, burst: u32| rate > 0 && burst == 0;
        if needs_burst(self.requests_per_second, self.burst) {
            return Some(("limits.burst", "0 would refuse every request; set the rate to 0 for no limit"));
        }
        if needs_burst(self.costly_requests_per_second, self.costly_burst) {
            let problem = "0 would refuse every request; set the rate to 0 for no limit";
            return Some(("limits.costly_burst", problem));
        }
        if self.max_body_bytes == 0 {
            return Some(("limits.max_body_bytes", "0 would refuse every body"));
        }
        if self.max_callers == 0 {
            return Some(("limits.max_callers", "at least one caller must be told apart"));
        }
        None
    }

    /// How long a body may take; none for no bound.
    pub fn body_timeout(&self) -> Option<Duration> {
        seconds(self.body_timeout_seconds)
    }

    /// How long headers may take; none for no bound.
    pub fn header_timeout(&self) -> Option<Duration> {
        seconds(self.header_timeout_seconds)
    }
}

fn seconds(number: u64) -> Option<Duration> {
    (number > 0).then(|| Duration::from_secs(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_no_limits_make_sense() {
        assert_eq!(Limits::default().problem(), None);
        assert_eq!(Limits::unlimited().problem(), None);
    }

    #[test]
    fn senseless_values_are_named() {
        let named = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.problem().map(|(key, _)| key)
        };
        assert_eq!(named(|limits| limits.burst = 0), Some("limits.burst"));
        assert_eq!(named(|limits| limits.costly_burst = 0), Some("limits.costly_burst"));
        assert_eq!(named(|limits| limits.max_body_bytes = 0), Some("limits.max_body_bytes"));
        assert_eq!(named(|limits| limits.max_callers = 0), Some("limits.max_callers"));
    }
}
