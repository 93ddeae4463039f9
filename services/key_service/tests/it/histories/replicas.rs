//! Two services on one PostgreSQL database, each request to the other of the two: what they answer has one order. And the
//! same when either is killed, or both, or the database under them.
//!
//! `CASEMATE_KILLS=200` for the long run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::interleavings::{LOADS, Process, interleave};
use super::kills::{CALLS, CLIENTS, EARLIEST, SPREAD, States, Tally, kills, look, only_recorded};
use super::load::{Fuse, Load, NAMES};
use super::requests::{Http, Vault};
use super::rng::{Rng, seed};
use super::witness::Witness;
use crate::support::postgres::{Cluster, Durability};
use crate::support::vault::Folder;

/// Two services.
struct Replicas {
    each: [Process; 2],
    next: AtomicUsize,
}

impl Replicas {
    async fn start(folders: &[Folder; 2]) -> Self {
        let (first, second) = tokio::join!(Process::start(&folders[0]), Process::start(&folders[1]));
        Self { each: [first, second], next: AtomicUsize::new(0) }
    }

    fn pids(&self) -> [Pid; 2] {
        self.each.each_ref().map(|process| Pid::from_child(&process.service.child))
    }

    /// Waits until each has written something, and so for everything that was under way before: a transaction of a dead
    /// service may be at its commit.
    async fn written(&self) {
        for process in &self.each {
            for _ in 0..1000 {
                let request =
                    Http { method: "GET", path: "/health/ready".to_owned(), role: "", body: Value::Null };
                if matches!(process.send(request).await, Some((200, _))) {
                    break;
                }
                wait_for_a_moment().await;
            }
        }
    }
}

/// Waits 50 ms, for the loops that wait for a condition.
async fn wait_for_a_moment() {
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

impl Vault for Replicas {
    /// An error of the service is no answer: it says that the request may have happened, or not.
    async fn send(&self, request: Http) -> Option<(u16, Value)> {
        let turn = self.next.fetch_add(1, Ordering::SeqCst);
        let answer = self.each[turn % self.each.len()].send(request).await;
        answer.filter(|(status, _)| *status < 500)
    }

    fn now(&self) -> i64 {
        self.each[0].now()
    }
}

/// Two folders on one vault.
fn folders(database: String) -> [Folder; 2] {
    let first = Folder { database, ..Folder::in_a_file() };
    std::fs::write(first.dir.path().join("master.key"), "a5".repeat(32)).expect("the folder is writable");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(first.dir.path().join("master.key"), mode).expect("it is the test's");
    let second = first.replica();
    [first, second]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_64_clients_of_two_services_were_answered_has_an_order() {
    let all: [_; LOADS] = std::array::from_fn(|_| folders(crate::support::postgres::shared().section()));
    let next = AtomicUsize::new(0);
    interleave(async || Replicas::start(&all[next.fetch_add(1, Ordering::SeqCst)]).await).await;
}

/// What was seen of a vault through all of its crashes.
struct Run {
    load: Load,
    rng: Rng,
    seed: u64,
    states: States,
    witness: Witness,
    tally: Tally,
}

impl Run {
    fn new() -> Self {
        let seed = seed();
        let rng = Rng::new(seed, u64::MAX);
        let (states, witness, tally) = (States::new(), Witness::default(), Tally::default());
        Self { load: Load::on(NAMES.len()), rng, seed, states, witness, tally }
    }

    /// Load on the replicas until `blow` is called; returns them with what is left of them.
    async fn load(&mut self, replicas: Replicas, round: u64, blow: Box<dyn Fn() + Send + Sync>) -> Replicas {
        let at = self.load.now() + EARLIEST + self.rng.below(SPREAD);
        let load = std::mem::replace(&mut self.load, Load::on(0));
        let (load, shared) = (Arc::new(load.with_fuse(Fuse { at, blow })), Arc::new(replicas));
        load.run_clients(&shared, CLIENTS, CALLS, self.seed.wrapping_add(round)).await;
        self.load = Arc::into_inner(load).expect("no client is left");
        Arc::into_inner(shared).expect("no client is left")
    }

    /// Holds what was answered until now against what is there.
    async fn judge(&mut self, replicas: &Replicas, round: u64) {
        replicas.written().await;
        self.load.all_is_over();
        look(replicas, &self.load).await;
        let mut histories = self.load.take();
        self.tally.add(&histories);
        let happened = self.witness.hear(replicas, &histories).await;
        histories.iter_mut().for_each(|(name, history)| only_recorded(history, &happened[name]));
        self.states.advance(&histories, round);
    }

    #[allow(clippy::print_stderr, reason = "the figures of a long run")]
    fn tell(&self, what: &str, times: u64) {
        eprintln!("{times} {what}: {:?}, {} entries in the log", self.tally, self.witness.entries);
        self.tally.was_a_load(times);
    }
}

fn kill(pids: &[Pid]) {
    pids.iter().for_each(|pid| kill_process(*pid, Signal::KILL).expect("it runs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_are_killed_under_load_keep_what_they_answered() {
    let cluster = Cluster::start(Durability::Full);
    let folders = folders(cluster.section("vault"));
    let (mut run, kills) = (Run::new(), kills());
    let mut replicas = Replicas::start(&folders).await;
    for round in 0..kills {
        let pids = replicas.pids();
        let dead = match run.rng.below(3) {
            2 => pids.to_vec(),
            one => vec![pids[usize::try_from(one).expect("0 or 1")]],
        };
        let victims = dead.clone();
        replicas = run.load(replicas, round, Box::new(move || kill(&victims))).await;
        for (process, folder) in replicas.each.iter_mut().zip(&folders) {
            if dead.contains(&Pid::from_child(&process.service.child)) {
                process.service.child.wait().expect("it was started here");
                *process = Process::start(folder).await;
            }
        }
        run.judge(&replicas, round).await;
    }
    run.tell("kills of replicas", kills);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_whose_database_is_killed_under_load_keep_what_they_answered() {
    let cluster = Cluster::start(Durability::Full);
    let folders = folders(cluster.section("vault"));
    let (mut run, kills) = (Run::new(), kills().div_ceil(5));
    let mut replicas = Replicas::start(&folders).await;
    let mut cluster = cluster;
    for round in 0..kills {
        let server = cluster.pid();
        replicas = run.load(replicas, round, Box::new(move || kill(&[server]))).await;
        cluster.stop();
        cluster.serve();
        // The services were never restarted.
        run.judge(&replicas, round).await;
    }
    for process in &mut replicas.each {
        assert!(process.service.child.try_wait().expect("it was started here").is_none(), "it went on");
    }
    run.tell("kills of the database", kills);
}
