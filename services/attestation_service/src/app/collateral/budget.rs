//! How often strangers may make this service ask a key distribution service: evidence of a chip that nobody has seen costs
//! a request there, and AMD's service answers everybody behind one address with 429 when it is asked too much.

use std::sync::Arc;

use http_service::Metrics;
use http_service::metrics::Counter;
use http_service::peer::Peer;
use http_service::rate::{Callers, Rate, Wait};

use super::kds::NoAnswer;
use crate::config::UnknownChips;

/// Addresses that are told apart.
const MAX_ADDRESSES: usize = 16_384;

/// What is left to ask for.
pub(super) struct Budget {
    each: Option<Callers>,
    all: Option<Callers>,
    refused: Counter,
}

impl Budget {
    pub fn new(config: UnknownChips, metrics: &Arc<Metrics>) -> Self {
        let callers = |number, max| Rate::per_minute(number, number).map(|rate| Callers::new(rate, max));
        let help = "Certificates that were not asked for, because too many were.";
        Self {
            each: callers(config.per_minute_and_address, MAX_ADDRESSES),
            // Room for one more than there is: a crowd would begin anew.
            all: callers(config.per_minute, 2),
            refused: metrics.counter("casemate_unknown_chips_limited_total", help, &[]),
        }
    }

    /// Takes one request out of the budget. Who is on this machine has no limit of its own.
    pub fn spend(&self, from: Peer, now: i64) -> Result<(), NoAnswer> {
        let each = self.each.as_ref().filter(|_| from != Peer::Loopback);
        let spent = check(each, from, "one address").and_then(|()| check(self.all.as_ref(), (), "all"));
        spent.map_err(|(rate, who, wait)| {
            self.refused.increment(1);
            let reason = format!(
                "certificates of unknown chips are asked for at most {rate}, for {who} ([unknown_chips] of the service's configuration)"
            );
            let wait = i64::try_from(wait.seconds()).unwrap_or(i64::MAX);
            NoAnswer { reason, retry_at: now.saturating_add(wait), missing: false }
        })
    }
}

fn check<'a>(
    callers: Option<&Callers>,
    caller: impl std::hash::Hash,
    who: &'a str,
) -> Result<(), (Rate, &'a str, Wait)> {
    callers.map_or(Ok(()), |callers| callers.check(caller).map_err(|wait| (callers.rate(), who, wait)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(each: u32, all: u32) -> Budget {
        let config = UnknownChips { per_minute_and_address: each, per_minute: all };
        Budget::new(config, &Metrics::new("test", "1"))
    }

    fn address(text: &str) -> Peer {
        Peer::Address(text.parse().expect("an address"))
    }

    #[test]
    fn one_address_cannot_use_up_what_all_have() {
        let budget = budget(2, 3);
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        assert!(budget.spend(a, 0).is_ok() && budget.spend(a, 0).is_ok());
        let refused = budget.spend(a, 100).expect_err("too many");
        assert!(refused.reason.contains("2 in a minute, 2 at once, for one address"), "{}", refused.reason);
        assert!((101..=130).contains(&refused.retry_at), "{}", refused.retry_at);
        assert!(budget.spend(b, 0).is_ok(), "others are not touched");
        let refused = budget.spend(b, 0).expect_err("all together");
        assert!(refused.reason.contains("for all"), "{}", refused.reason);
        assert!(budget.spend(Peer::Loopback, 0).is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let budget = budget(0, 0);
        assert!((0..1000).all(|_| budget.spend(Peer::Unknown, 0).is_ok()));
    }
}
