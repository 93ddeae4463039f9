//! Many clients at once on the same few names: what they were answered can be told as one thing after the other.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use serde_json::Value;

use super::checker::{Wanted, ends};
use super::load::{Histories, Load};
use super::model::{KeyState, Name};
use super::requests::{Http, Vault, counts};
use super::rng::seed;
use super::witness::Witness;
use crate::binary::{Service, caller, start, unix_now};
use crate::support::vault::{self, Folder, OFFICER, RELEASE_USER};

const CLIENTS: u64 = 64;
const CALLS: u32 = 60;

/// A vault in this process, called through its router.
struct InProcess {
    vault: vault::Vault,
    officer: String,
    releaser: String,
}

impl InProcess {
    async fn new() -> Self {
        let vault = vault::Vault::new().await;
        let (officer, releaser) = (vault.caller(&[OFFICER]), vault.caller(&[RELEASE_USER]));
        Self { vault, officer, releaser }
    }
}

impl Vault for InProcess {
    async fn send(&self, request: Http) -> Option<(u16, Value)> {
        let token = if request.role == OFFICER { &self.officer } else { &self.releaser };
        let body = if request.body.is_null() { String::new() } else { request.body.to_string() };
        let answer = self.vault.send(request.method, &request.path, Some(token), body).await;
        assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer.body);
        Some((answer.status.as_u16(), answer.body))
    }

    fn now(&self) -> i64 {
        self.vault.now()
    }
}

/// The program, over TLS.
pub struct Process {
    pub service: Service,
    officer: String,
    releaser: String,
}

impl Process {
    pub async fn start(folder: &Folder) -> Self {
        let service = start(folder).await;
        Self { service, officer: caller(OFFICER), releaser: caller(RELEASE_USER) }
    }
}

impl Vault for Process {
    async fn send(&self, request: Http) -> Option<(u16, Value)> {
        let token = if request.role == OFFICER { &self.officer } else { &self.releaser };
        let separator = if request.path.contains('?') { '&' } else { '?' };
        let url = format!("{}{}{separator}api-version=7.4", self.service.url, request.path);
        let method = request.method.parse().expect("a method");
        let mut call = self.service.client.request(method, url).bearer_auth(token);
        if !request.body.is_null() {
            call = call.body(request.body.to_string());
        }
        let response = call.send().await.ok()?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.ok()?;
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        Some((status, body))
    }

    fn now(&self) -> i64 {
        unix_now()
    }
}

/// Fails with the place where no order went on.
fn in_some_order(histories: &Histories) {
    let start = HashSet::from([KeyState::default()]);
    for (name, history) in histories {
        if let Err(stuck) = ends::<Name>(&start, history, Wanted::AnyEnd) {
            panic!("{name}: {} calls of {} have an order, then\n{}", stuck.done, history.len(), stuck.place);
        }
    }
}

/// Outcomes that have to come about, so that a vault that refuses everything does not pass.
const OUTCOMES: [&str; 21] = [
    "Create Key",
    "Create Held",
    "Rotate Key",
    "Update Key",
    "Delete Key",
    "Recover Key",
    "Purge Purged",
    "Read Key",
    "Read NotFound",
    "ReadVersion Key",
    "ReadVersion NotFound",
    "ReadDeleted Key",
    "List Versions",
    "Use Used",
    "Use Disabled",
    "Use NotFound",
    "UseVersion Used",
    "UseVersion NotFound",
    "Release Used",
    "Release Rollback",
    "Release Ahead",
];
/// Loads until all of them came about: which do is a matter of luck, and the rarest miss one load in some.
pub const LOADS: usize = 8;

/// The outcomes of a load, counted.
fn outcomes(histories: &Histories) -> BTreeMap<String, u32> {
    let events = histories.values().flatten();
    counts(events.filter_map(|event| Some((&event.call.call, event.call.answer.as_ref()?))))
}

/// Loads on vaults of their own.
pub async fn interleave<V: Vault>(vault: impl AsyncFn() -> V) {
    let mut seen = BTreeMap::new();
    for _ in 0..LOADS {
        let histories = load(vault().await).await;
        seen.append(&mut outcomes(&histories));
        if OUTCOMES.iter().all(|outcome| seen.contains_key(*outcome)) {
            return;
        }
    }
    panic!("of {OUTCOMES:?} only these came about: {seen:?}");
}

/// What a vault under load answered, which had an order.
async fn load<V: Vault>(vault: V) -> Histories {
    let (vault, load) = (Arc::new(vault), Arc::new(Load::on(6)));
    load.run(&vault, CLIENTS, CALLS, seed()).await;
    let histories = load.take();
    assert_eq!(histories.values().map(Vec::len).sum::<usize>(), 64 * CALLS as usize);
    in_some_order(&histories);
    Witness::default().hear(&*vault, &histories).await;
    histories
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_64_clients_were_answered_has_an_order() {
    interleave(InProcess::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_64_clients_of_the_program_were_answered_has_an_order() {
    let folders: [Folder; LOADS] = std::array::from_fn(|_| Folder::new());
    let next = AtomicUsize::new(0);
    interleave(async || Process::start(&folders[next.fetch_add(1, Ordering::SeqCst)]).await).await;
}
