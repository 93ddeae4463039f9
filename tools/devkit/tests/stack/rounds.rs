//! Sharing the points out: each platform lives whole lives, with the next unlived point of each phase in each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::points::{self, Phase};
use crate::site::Site;
use crate::state::EndState;

type Outcomes = BTreeMap<(Phase, &'static str), Result<(), String>>;

struct Rounds<'a> {
    open: Mutex<BTreeMap<Phase, VecDeque<&'static str>>>,
    outcomes: Mutex<Outcomes>,
    reference: &'a BTreeMap<Phase, EndState>,
}

/// Lives through all points; returns what each came to.
pub fn run(sites: &mut [Site], reference: &BTreeMap<Phase, EndState>) -> Outcomes {
    let mut open: BTreeMap<Phase, VecDeque<&'static str>> = BTreeMap::new();
    for (phase, order) in points::all() {
        open.entry(phase).or_default().push_back(order);
    }
    let rounds = Rounds { open: Mutex::new(open), outcomes: Mutex::default(), reference };
    std::thread::scope(|scope| {
        for site in sites {
            scope.spawn(|| rounds.work(site));
        }
    });
    rounds.outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rounds<'_> {
    /// Whole lives until no point is open. After a failure the VM is removed, undisturbed; if that fails too the platform
    /// is of no more use, and the others go on.
    fn work(&self, site: &mut Site) {
        while self.anything_open() {
            if self.life(site).is_err() && site.clear().is_err() {
                return;
            }
        }
    }

    fn anything_open(&self) -> bool {
        lock(&self.open).values().any(|orders| !orders.is_empty())
    }

    fn life(&self, site: &mut Site) -> Result<(), ()> {
        for phase in Phase::ALL {
            let order = lock(&self.open).get_mut(&phase).and_then(VecDeque::pop_front);
            let idle = order.is_none() && matches!(phase, Phase::Stop | Phase::Start);
            if idle && !self.anything_open_in(Phase::Start) {
                continue;
            }
            let outcome = site.live(phase, order, self.reference.get(&phase)).map(drop);
            let failed = outcome.is_err();
            if let Some(order) = order {
                let outcome = outcome.map_err(|error| format!("{error:#}"));
                lock(&self.outcomes).insert((phase, order), outcome);
            }
            if failed {
                return Err(());
            }
        }
        Ok(())
    }

    fn anything_open_in(&self, phase: Phase) -> bool {
        lock(&self.open).get(&phase).is_some_and(|orders| !orders.is_empty())
    }
}
