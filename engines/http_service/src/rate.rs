//! How often a caller may come: a bucket for each (GCRA, by `governor`), in bounded memory.
//!
//! A caller is the hash of who it is, under a random key: nobody can choose to share another one's bucket. When more than
//! the configured number are tracked, callers share buckets until enough of them have been quiet; a table therefore never
//! holds more than twice that number.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

/// So many in such a time, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub number: NonZeroU32,
    /// In what time.
    pub period: Duration,
    /// How many at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// Nothing if one of the numbers is 0: no limit.
    pub fn per_second(number: u32, burst: u32) -> Option<Self> {
        Self::per(Duration::from_secs(1), number, burst)
    }

    /// The same for a minute.
    pub fn per_minute(number: u32, burst: u32) -> Option<Self> {
        Self::per(Duration::from_secs(60), number, burst)
    }

    fn per(period: Duration, number: u32, burst: u32) -> Option<Self> {
        Some(Self { number: NonZeroU32::new(number)?, period, burst: NonZeroU32::new(burst)? })
    }

    fn quota(self) -> Quota {
        // One each; at least a nanosecond, since the clock knows nothing shorter.
        let each = (self.period / self.number.get()).max(Duration::from_nanos(1));
        Quota::with_period(each).expect("the period is not zero").allow_burst(self.burst)
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, burst, .. } = self;
        let unit = if self.period == Duration::from_secs(1) { "second" } else { "minute" };
        write!(f, "{number} in a {unit}, {burst} at once")
    }
}

/// How long a refused caller has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl Wait {
    /// Whole seconds, at least one.
    pub fn seconds(self) -> u64 {
        let whole = self.0.as_secs();
        if self.0.subsec_nanos() > 0 || whole == 0 { whole + 1 } else { whole }
    }
}

type Buckets<C> = RateLimiter<u64, DashMapStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Buckets of many callers.
pub struct Callers<C: Clock = DefaultClock> {
    rate: Rate,
    buckets: Buckets<C>,
    clock: C,
    hasher: RandomState,
    max: usize,
    /// Not less than the number of buckets: each check may have made one.
    at_most: AtomicUsize,
    crowded: AtomicBool,
}

impl Callers {
    /// Tells up to `max` callers apart.
    pub fn new(rate: Rate, max: usize) -> Self {
        Self::with_clock(rate, max, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Callers<C> {
    fn with_clock(rate: Rate, max: usize, clock: C) -> Self {
        Self {
            rate,
            buckets: RateLimiter::new(rate.quota(), DashMapStateStore::default(), clock.clone()),
            clock,
            hasher: RandomState::new(),
            max: max.max(1),
            at_most: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
        }
    }

    /// What is permitted.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Lets the caller in, or says how long it has to wait.
    pub fn check(&self, caller: impl Hash) -> Result<(), Wait> {
        if self.at_most.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.forget_the_quiet();
        }
        let whole = self.hasher.hash_one(caller);
        let key = if self.crowded.load(Ordering::Relaxed) { whole % self.max as u64 } else { whole };
        self.buckets.check_key(&key).map_err(|until| Wait(until.wait_time_from(self.clock.now())))
    }

    /// Drops buckets that are full again. Under a crowd nothing is dropped, and this is done once for as many checks.
    fn forget_the_quiet(&self) {
        self.buckets.retain_recent();
        let left = self.buckets.len();
        self.crowded.store(left >= self.max, Ordering::Relaxed);
        let counted = if left >= self.max { 0 } else { left };
        self.at_most.store(counted, Ordering::Relaxed);
    }

    /// Callers that are tracked.
    pub fn tracked(&self) -> usize {
        self.buckets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn callers(burst: u32, max: usize) -> (Callers<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rate = Rate::per_second(1, burst).expect("not zero");
        (Callers::with_clock(rate, max, clock.clone()), clock)
    }

    #[test]
    fn a_burst_then_one_a_second_and_others_are_not_touched() {
        let (callers, clock) = callers(3, 100);
        for _ in 0..3 {
            assert_eq!(callers.check("a"), Ok(()));
        }
        let wait = callers.check("a").expect_err("too many");
        assert_eq!((wait.seconds(), callers.check("b")), (1, Ok(())));
        clock.advance(Duration::from_secs(1));
        assert_eq!(callers.check("a"), Ok(()));
        assert!(callers.check("a").is_err());
    }

    #[test]
    fn a_crowd_is_bounded_and_goes_when_it_is_quiet() {
        let (callers, clock) = callers(2, 50);
        for number in 0..10_000 {
            let _ = callers.check(number);
        }
        assert!(callers.tracked() <= 100, "{}", callers.tracked());
        assert!((0..10_000).any(|number| callers.check(number).is_err()), "a crowd shares");
        clock.advance(Duration::from_secs(600));
        for _ in 0..51 {
            let _ = callers.check("one");
        }
        assert!(callers.tracked() <= 51, "{}", callers.tracked());
        assert_eq!(callers.check("another"), Ok(()));
    }

    #[test]
    fn zero_is_no_limit_and_waits_are_whole_seconds() {
        assert_eq!(Rate::per_second(0, 5), None);
        let cases = [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2)];
        for (milliseconds, seconds) in cases {
            assert_eq!(Wait(Duration::from_millis(milliseconds)).seconds(), seconds);
        }
        assert_eq!(Rate::per_minute(6, 3).expect("not zero").to_string(), "6 in a minute, 3 at once");
    }
}
