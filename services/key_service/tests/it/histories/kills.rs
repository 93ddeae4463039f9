//! `kill -9` under load, again and again on one database: nothing that was answered is lost, what was not answered
//! happened or did not, no purged key comes back, and the decision log is whole.
//!
//! `CASEMATE_KILLS=200` for the long run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::checker::{Event, Wanted, ends};
use super::interleavings::Process;
use super::load::{Fuse, Histories, Load, NAMES};
use super::model::{Answer, Call, KeyState, Name, Request};
use super::requests::Vault;
use super::rng::{Rng, seed};
use super::witness::Witness;
use crate::support::vault::Folder;

pub const CLIENTS: u64 = 64;
/// More than any client comes to before its vault is killed.
pub const CALLS: u32 = 1000;
/// Starts and ends of calls before the kill: from the first ones to well into the load.
pub const EARLIEST: u64 = 70;
pub const SPREAD: u64 = 500;

/// How many times.
pub fn kills() -> u64 {
    let wanted = std::env::var("CASEMATE_KILLS").ok();
    wanted.map_or(20, |text| text.parse().expect("CASEMATE_KILLS is a number"))
}

/// A vault that is killed when the counter comes to `at`, by one of the clients.
async fn killed_under_load(mut vault: Process, load: Load, at: u64, seed: u64) -> Load {
    let process = rustix::process::Pid::from_child(&vault.service.child);
    let blow = move || {
        rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it runs");
    };
    let load = Arc::new(load.with_fuse(Fuse { at, blow: Box::new(blow) }));
    let shared = Arc::new(vault);
    load.run(&shared, CLIENTS, CALLS, seed).await;
    vault = Arc::into_inner(shared).expect("no client is left");
    assert!(!vault.service.child.wait().expect("it was started here").success(), "it was killed");
    Arc::into_inner(load).expect("no client is left")
}

/// Looks at every name; a deleted one is recovered, to see all of its versions.
pub async fn look(vault: &impl Vault, load: &Load) {
    for name in NAMES {
        load.call(vault, name, Call::Read, None).await;
        if let Some(Answer::Key(..)) = load.call(vault, name, Call::ReadDeleted, None).await {
            load.call(vault, name, Call::Recover, None).await;
        }
        load.call(vault, name, Call::List, None).await;
    }
}

/// The states in which the names can be now.
pub struct States(HashMap<&'static str, HashSet<KeyState>>);

impl States {
    pub fn new() -> Self {
        Self(NAMES.map(|(name, _)| (name, HashSet::from([KeyState::default()]))).into())
    }

    pub fn advance(&mut self, histories: &Histories, round: u64) {
        for (name, states) in &mut self.0 {
            let history = histories.get(name).map(Vec::as_slice).unwrap_or_default();
            *states = ends::<Name>(states, history, Wanted::AllEnds).unwrap_or_else(|stuck| {
                panic!(
                    "kill {round}, {name}: {} of {} calls, then\n{}",
                    stuck.done,
                    history.len(),
                    stuck.place
                )
            });
        }
    }
}

/// Leaves out unanswered requests of which the log has no entry. If one of them happened all the same, what it left
/// behind has no explanation, and the search finds no order.
pub fn only_recorded(history: &mut Vec<Event<Request>>, operations: &HashSet<String>) {
    history.retain(|event| event.answered || operations.contains(event.call.call.changes()));
}

/// What was seen in all, so that a run that tested nothing does not pass for one.
#[derive(Debug, Default)]
pub struct Tally {
    answered: usize,
    unanswered: usize,
    purged: usize,
}

impl Tally {
    pub fn add(&mut self, histories: &Histories) {
        let answers = || histories.values().flatten().map(|event| event.call.answer.as_ref());
        self.answered += answers().flatten().count();
        self.unanswered += answers().filter(Option::is_none).count();
        self.purged += answers().filter(|answer| *answer == Some(&Answer::Purged)).count();
    }

    /// Fails if there was too little of it. A few rounds may go by without a purge.
    pub fn was_a_load(&self, kills: u64) {
        let each = usize::try_from(kills).expect("few");
        let purges = kills < 10 || self.purged > 0;
        assert!(self.answered > 50 * each && self.unanswered > 5 * each && purges, "{self:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[allow(clippy::print_stderr, reason = "the figures of a long run")]
async fn a_vault_that_is_killed_under_load_keeps_what_it_answered() {
    let (folder, seed, kills) = (Folder::new(), seed(), kills());
    let mut rng = Rng::new(seed, u64::MAX);
    let (mut states, mut witness, mut tally) = (States::new(), Witness::default(), Tally::default());
    let mut vault = Process::start(&folder).await;
    // Fewer clients on each, since every way in which the unanswered ones can have happened is tried.
    let mut load = Load::on(NAMES.len());
    for round in 0..kills {
        let at = load.now() + EARLIEST + rng.below(SPREAD);
        load = killed_under_load(vault, load, at, seed.wrapping_add(round)).await;
        vault = Process::start(&folder).await;
        look(&vault, &load).await;
        let mut histories = load.take();
        tally.add(&histories);
        let happened = witness.hear(&vault, &histories).await;
        histories.iter_mut().for_each(|(name, history)| only_recorded(history, &happened[name]));
        states.advance(&histories, round);
    }
    eprintln!("{kills} kills: {tally:?}, {} entries in the log", witness.entries);
    tally.was_a_load(kills);
}
