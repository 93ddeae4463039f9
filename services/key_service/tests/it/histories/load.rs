//! Many clients on a few names, each call recorded with when it was under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::checker::Event;
use super::model::{Answer, Call, Id, Request};
use super::requests::{Kind, Sent, Vault, Wrapped};
use super::rng::Rng;

/// A key name and what it is for.
pub type KeyName = (&'static str, Kind);

/// The names.
pub const NAMES: [KeyName; 16] = [
    ("sign-a", Kind::Signs),
    ("wrap-a", Kind::Wraps),
    ("sign-b", Kind::Signs),
    ("wrap-b", Kind::Wraps),
    ("sign-c", Kind::Signs),
    ("wrap-c", Kind::Wraps),
    ("sign-d", Kind::Signs),
    ("wrap-d", Kind::Wraps),
    ("sign-e", Kind::Signs),
    ("wrap-e", Kind::Wraps),
    ("sign-f", Kind::Signs),
    ("wrap-f", Kind::Wraps),
    ("sign-g", Kind::Signs),
    ("wrap-g", Kind::Wraps),
    ("sign-h", Kind::Signs),
    ("wrap-h", Kind::Wraps),
];
/// Versions that clients remember of each name.
const REMEMBERED: usize = 24;

/// What was recorded, by name.
pub type Histories = HashMap<&'static str, Vec<Event<Request>>>;

/// A version that somebody has seen, and something that it wrapped.
type Seen = (Id, Option<Wrapped>);

/// Does something when the counter comes to a number.
pub struct Fuse {
    pub at: u64,
    pub blow: Box<dyn Fn() + Send + Sync>,
}

/// What the clients share.
pub struct Load {
    names: &'static [KeyName],
    clock: AtomicU64,
    numbers: AtomicU32,
    fuse: Option<Fuse>,
    seen: Mutex<HashMap<&'static str, Vec<Seen>>>,
    histories: Mutex<Histories>,
}

impl Load {
    /// A load on the first `names` names.
    pub fn on(names: usize) -> Self {
        Self {
            names: &NAMES[..names],
            clock: AtomicU64::default(),
            numbers: AtomicU32::default(),
            fuse: None,
            seen: Mutex::default(),
            histories: Mutex::default(),
        }
    }

    pub fn with_fuse(self, fuse: Fuse) -> Self {
        Self { fuse: Some(fuse), ..self }
    }

    /// Where the counter stands.
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn tick(&self) -> u64 {
        let now = self.clock.fetch_add(1, Ordering::SeqCst);
        if let Some(fuse) = self.fuse.as_ref().filter(|fuse| fuse.at == now) {
            (fuse.blow)();
        }
        now
    }

    /// Runs clients until each has made its calls, or the vault is dead. Afterwards nothing is under way.
    pub async fn run<V: Vault>(self: &Arc<Self>, vault: &Arc<V>, clients: u64, calls: u32, seed: u64) {
        self.run_clients(vault, clients, calls, seed).await;
        self.all_is_over();
    }

    /// The same, where what was not answered may still be under way.
    pub async fn run_clients<V: Vault>(
        self: &Arc<Self>,
        vault: &Arc<V>,
        clients: u64,
        calls: u32,
        seed: u64,
    ) {
        let client = |number| {
            let (load, vault) = (Arc::clone(self), Arc::clone(vault));
            tokio::spawn(async move { load.client(&*vault, Rng::new(seed, number), calls).await })
        };
        let tasks: Vec<_> = (0..clients).map(client).collect();
        for task in tasks {
            task.await.expect("every answer is one that a vault may give");
        }
    }

    /// What was not answered until now, has happened or never will.
    pub fn all_is_over(&self) {
        let over = self.clock.fetch_add(1, Ordering::SeqCst);
        let mut histories = self.histories.lock().expect("no client failed");
        let unanswered = histories.values_mut().flatten().filter(|event| !event.answered);
        unanswered.for_each(|event| event.end = event.end.min(over));
    }

    async fn client<V: Vault>(&self, vault: &V, mut rng: Rng, calls: u32) {
        for _ in 0..calls {
            let (name, kind) = *rng.pick(self.names).expect("there are names");
            let seen = self.seen.lock().expect("no client failed").get(name).cloned().unwrap_or_default();
            let (call, wrapped) = choose(&mut rng, kind, &seen);
            if self.call(vault, (name, kind), call, wrapped).await.is_none() {
                return;
            }
        }
    }

    /// Makes one call and records it.
    pub async fn call<V: Vault>(
        &self,
        vault: &V,
        (name, kind): KeyName,
        call: Call,
        wrapped: Option<Wrapped>,
    ) -> Option<Answer> {
        // Zero is no mark of a request.
        let number = self.numbers.fetch_add(1, Ordering::SeqCst) + 1;
        let call = match call {
            Call::Create { .. } => Call::Create { mark: number },
            Call::Update { .. } => Call::Update { mark: number },
            other => other,
        };
        let sent = Sent { name, kind, call: &call, wrapped: wrapped.as_ref(), number };
        let http = sent.http(vault.now());
        let start = self.tick();
        let answer = vault.send(http).await;
        let end = if answer.is_some() { self.tick() } else { u64::MAX };
        let answer = answer.map(|(status, body)| (sent.answer(status, &body), body));
        if let Some((answer, body)) = &answer {
            self.remember(&sent, answer, body);
        }
        let answer = answer.map(|(answer, _)| answer);
        let request = Request { number, call, answer: answer.clone() };
        let event = Event { start, end, answered: answer.is_some(), call: request };
        self.histories.lock().expect("no client failed").entry(name).or_default().push(event);
        answer
    }

    fn remember(&self, sent: &Sent<'_>, answer: &Answer, body: &serde_json::Value) {
        let seen = match (sent.call, answer, sent.kind) {
            (Call::Use, Answer::Used(id), Kind::Wraps) => {
                (*id, Some(Wrapped { plain: sent.plain(), value: body["value"].clone() }))
            }
            (_, Answer::Key(id, _), _) => (*id, None),
            _ => return,
        };
        let mut all = self.seen.lock().expect("no client failed");
        let name = NAMES.iter().find(|(name, _)| *name == sent.name).expect("a name of the load").0;
        let versions = all.entry(name).or_default();
        versions.push(seen);
        let old = versions.len().saturating_sub(REMEMBERED);
        versions.drain(..old);
    }

    /// Takes what was recorded so far.
    pub fn take(&self) -> Histories {
        std::mem::take(&mut *self.histories.lock().expect("no client failed"))
    }
}

/// What a client does next: keys come and go, but mostly are there.
fn choose(rng: &mut Rng, kind: Kind, seen: &[Seen]) -> (Call, Option<Wrapped>) {
    let version = rng.pick(seen).cloned();
    let call = match rng.below(100) {
        0..12 => Call::Create { mark: 0 },
        12..19 => Call::Rotate,
        19..27 => Call::Update { mark: 0 },
        27..33 => Call::Delete,
        33..42 => Call::Recover,
        42..46 => Call::Purge,
        46..54 => Call::Read,
        54..58 => Call::ReadDeleted,
        58..62 => Call::List,
        62..70 => Call::Use,
        70..80 => Call::Release { generation: rng.below(4) },
        80..88 => return (version.map_or(Call::Read, |(id, _)| Call::ReadVersion(id)), None),
        _ => return use_version(rng, kind, seen),
    };
    (call, None)
}

fn use_version(rng: &mut Rng, kind: Kind, seen: &[Seen]) -> (Call, Option<Wrapped>) {
    let usable: Vec<&Seen> =
        seen.iter().filter(|(_, wrapped)| kind == Kind::Signs || wrapped.is_some()).collect();
    match rng.pick(&usable) {
        Some((id, wrapped)) => (Call::UseVersion(*id), wrapped.clone()),
        None => (Call::Use, None),
    }
}
