//! Whether a history of overlapping calls can be told as calls one after the other (linearizability): the search of Wing
//! and Gong with Lowe's memory of the places where it has been.
//!
//! Sources: Wing and Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for linearizability" (2017).
//!
//! A call may be put next in order if no other call had ended before it began. Two things are added:
//!
//! * A call without an answer (its server was killed) happened before the server's death, or never.
//! * A call that only looks, and sees what is there, goes first: it cannot be in the way of another, so no second order
//!   has to be tried. This keeps the search short, and loses nothing. (Not past the death of a server: what is still
//!   open there, happened before or never.)

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

/// Places after which a search is given up, as a failure of the test and never as a success.
const MOST_PLACES: usize = 4_000_000;

/// What calls do when they come one after the other.
pub trait Model {
    /// Where things stand between two calls.
    type State: Clone + Eq + Hash + fmt::Debug;
    /// A call, with its answer if it had one.
    type Call: fmt::Debug;

    /// The states in which this call can leave `state`; none if its answer does not agree.
    fn step(state: &Self::State, call: &Self::Call) -> Vec<Self::State>;

    /// Whether a call with this answer changes nothing, whatever the state.
    fn only_looks(call: &Self::Call) -> bool;
}

/// A call and when it was under way, in numbers that one counter gave out.
#[derive(Clone, Debug)]
pub struct Event<C> {
    /// Before it was sent.
    pub start: u64,
    /// After its answer was there; for a call without an answer, after its server was dead.
    pub end: u64,
    /// Whether it was answered. Another may not have happened at all.
    pub answered: bool,
    /// The call.
    pub call: C,
}

/// How much is wanted of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One order: enough to say that there is one.
    AnyEnd,
    /// Every state in which some order ends.
    AllEnds,
}

/// No order agrees with all answers: how far the best one came.
#[derive(Debug)]
pub struct Stuck {
    /// State, and the calls of which none can be next.
    pub place: String,
    /// Calls that this order has.
    pub done: usize,
}

/// Calls that have their place in the order.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn none(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)])
    }

    fn has(&self, call: usize) -> bool {
        self.0[call / 64] & (1 << (call % 64)) != 0
    }

    fn add(&mut self, call: usize) {
        self.0[call / 64] |= 1 << (call % 64);
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// A place of the search.
type Place<S> = (Done, S);

struct Search<'h, M: Model> {
    history: Vec<&'h Event<M::Call>>,
    been: HashSet<Place<M::State>>,
    open: Vec<Place<M::State>>,
    ends: HashSet<M::State>,
    best: Option<Stuck>,
}

/// The states in which the history can end if it begins in one of `starts`. Of [`Wanted::AnyEnd`], one of them.
pub fn ends<M: Model>(
    starts: &HashSet<M::State>,
    history: &[Event<M::Call>],
    wanted: Wanted,
) -> Result<HashSet<M::State>, Stuck> {
    let mut sorted: Vec<_> = history.iter().collect();
    sorted.sort_by_key(|event| event.start);
    let open = starts.iter().map(|state| (Done::none(sorted.len()), state.clone())).collect();
    let mut search: Search<'_, M> =
        Search { history: sorted, been: HashSet::new(), open, ends: HashSet::new(), best: None };
    while let Some((mut done, state)) = search.open.pop() {
        search.settle(&mut done, &state);
        if search.been.insert((done.clone(), state.clone())) {
            search.visit(done, state);
        }
        if wanted == Wanted::AnyEnd && !search.ends.is_empty() {
            break;
        }
        assert!(search.been.len() < MOST_PLACES, "the history is too wide to be searched");
    }
    if search.ends.is_empty() {
        return Err(search.best.expect("a search that began has a best place"));
    }
    Ok(search.ends)
}

impl<M: Model> Search<'_, M> {
    /// Puts every call in order that only looks and agrees with the state.
    fn settle(&self, done: &mut Done, state: &M::State) {
        loop {
            let next = self.candidates(done);
            let open = next.iter().map(|call| self.history[*call]).filter(|event| !event.answered);
            let death = open.map(|event| event.end).min().unwrap_or(u64::MAX);
            let quiet = |call: &usize| {
                let Event { start, call, .. } = self.history[*call];
                let looks = *start < death && M::only_looks(call);
                looks && matches!(M::step(state, call).as_slice(), [same] if same == state)
            };
            let quiet: Vec<usize> = next.into_iter().filter(quiet).collect();
            if quiet.is_empty() {
                return;
            }
            quiet.into_iter().for_each(|call| done.add(call));
        }
    }

    fn visit(&mut self, done: Done, state: M::State) {
        let next = self.candidates(&done);
        if !self.history.iter().enumerate().any(|(call, event)| event.answered && !done.has(call)) {
            self.ends.insert(state.clone());
        }
        if self.best.as_ref().is_none_or(|best| best.done < done.count()) {
            self.best = Some(self.stuck(&done, &state, &next));
        }
        // The one that ended first is tried first: it is the last to be pushed.
        for call in next.into_iter().rev() {
            for after in M::step(&state, &self.history[call].call) {
                if after != state || self.history[call].answered {
                    let mut done = done.clone();
                    done.add(call);
                    self.open.push((done, after));
                }
            }
        }
    }

    /// The calls that may be next, by their ends.
    fn candidates(&self, done: &Done) -> Vec<usize> {
        let latest = (0..self.history.len()).rev().find(|call| done.has(*call));
        let latest = latest.map_or(0, |call| self.history[call].start);
        let mut horizon = u64::MAX;
        let mut next = Vec::new();
        for (call, event) in self.history.iter().enumerate() {
            if event.start > horizon {
                break;
            }
            if done.has(call) || event.end < latest {
                continue;
            }
            if event.answered {
                horizon = horizon.min(event.end);
            }
            next.push(call);
        }
        next.retain(|call| self.history[*call].start < horizon);
        next.sort_by_key(|call| self.history[*call].end);
        next
    }

    fn stuck(&self, done: &Done, state: &M::State, next: &[usize]) -> Stuck {
        let calls: Vec<_> = next.iter().map(|call| format!("  {:?}", self.history[*call])).collect();
        Stuck { place: format!("{state:?}\nnone of\n{}", calls.join("\n")), done: done.count() }
    }
}
