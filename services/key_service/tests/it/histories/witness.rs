//! The decision log beside a history: its chain holds, it tells each name's life in an order that the model permits, and
//! it has an entry for everything that was answered and must be on record, and for nothing that nobody asked for.

use std::collections::{BTreeMap, HashMap, HashSet};

use public_api::decision_log::{self, Decision, Entry};

use super::checker::Event;
use super::load::{Histories, NAMES};
use super::model::{Answer, Call, Id, KeyState, Request};
use super::requests::{Http, Kind, Sent, Vault, id};
use crate::support::vault::OFFICER;

/// What was read of a log, and what it says of each name.
#[derive(Default)]
pub struct Witness {
    pub last: Option<Entry>,
    pub entries: u64,
    states: HashMap<&'static str, KeyState>,
}

/// One thing that is on record: operation, version (or none), code of the refusal (or none).
type Fact = (String, Option<Id>, String);

impl Witness {
    /// Reads what the log has since the last time and holds it against what was recorded meanwhile. Returns, by name,
    /// which operations it has more often than they were answered.
    pub async fn hear<V: Vault>(
        &mut self,
        vault: &V,
        histories: &Histories,
    ) -> HashMap<&'static str, HashSet<String>> {
        let entries = self.read(vault).await;
        self.entries += entries.len() as u64;
        let mut unanswered = HashMap::new();
        for (name, kind) in NAMES {
            let of_name: Vec<&Entry> = entries.iter().filter(|entry| name_of(entry) == name).collect();
            let state = self.states.entry(name).or_default();
            of_name.iter().for_each(|entry| *state = told(state, entry));
            let history = histories.get(name).map(Vec::as_slice).unwrap_or_default();
            unanswered.insert(name, compare(name, &of_name, history, kind));
        }
        unanswered
    }

    /// All entries after the last one, in a chain with it.
    async fn read<V: Vault>(&mut self, vault: &V) -> Vec<Entry> {
        let mut all = Vec::new();
        loop {
            let after = self.last.as_ref().map_or(0, |entry| entry.sequence);
            let path = format!("/log?after={after}");
            let request = Http { method: "GET", path, role: OFFICER, body: serde_json::Value::Null };
            let (status, body) = vault.send(request).await.expect("the vault lives");
            assert_eq!(status, 200, "{body}");
            let page: Vec<Entry> = serde_json::from_value(body).expect("entries");
            let Some(newest) = page.last().cloned() else { return all };
            decision_log::verify(self.last.as_ref(), &page).expect("the chain is whole");
            self.last = Some(newest);
            all.extend(page);
        }
    }
}

/// The name in a key's id, or in `keys/NAME`.
fn name_of(entry: &Entry) -> &str {
    let rest = entry.subject.rsplit_once("keys/").map_or("", |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// The state after an entry that changed something. It must be a change that the state before permits, of that version.
fn told(state: &KeyState, entry: &Entry) -> KeyState {
    let call = match (entry.decision, entry.detail["operation"].as_str().unwrap_or_default()) {
        (Decision::Refused, _) => return state.clone(),
        (_, "create") => Call::Create { mark: 0 },
        (_, "rotate") => Call::Rotate,
        (_, "update") => Call::Update { mark: 0 },
        (_, "delete") => Call::Delete,
        (_, "recover") => Call::Recover,
        (_, "purge") => Call::Purge,
        (_, "release") => {
            Call::Release { generation: entry.detail["generation"].as_u64().expect("a generation") }
        }
        _ => return state.clone(),
    };
    let version = id(&entry.subject.as_str().into());
    let newest = match state.after(&Call::ReadDeleted, version).0 {
        Answer::Key(id, _) => Some(id),
        _ => None,
    };
    let (answer, next) = state.after(&call, version);
    let fits = match answer {
        Answer::Key(id, _) | Answer::Used(id) => id == version,
        Answer::Purged => newest == Some(version),
        _ => false,
    };
    assert!(fits, "the log's entry {entry:?} cannot follow {state:?}");
    next
}

/// Everything that was answered is on record, and what is on record besides was asked for. Returns the latter.
fn compare(name: &str, entries: &[&Entry], history: &[Event<Request>], kind: Kind) -> HashSet<String> {
    let mut open: BTreeMap<Fact, i64> = BTreeMap::new();
    for entry in entries {
        *open.entry(recorded(entry)).or_default() += 1;
    }
    for fact in history.iter().filter_map(|event| answered(name, kind, &event.call)) {
        *open.entry(fact).or_default() -= 1;
    }
    let missing: Vec<_> = open.iter().filter(|(_, count)| **count < 0).collect();
    assert!(missing.is_empty(), "{name}: answered, but not on record: {missing:?}");
    let extra: i64 = open.values().sum();
    let unanswered = history.iter().filter(|event| !event.answered).count();
    assert!(
        extra <= i64::try_from(unanswered).expect("few"),
        "{name}: on record without a request: {open:?}"
    );
    open.into_iter().filter(|(_, count)| *count > 0).map(|((operation, ..), _)| operation).collect()
}

fn recorded(entry: &Entry) -> Fact {
    let operation = entry.detail["operation"].as_str().unwrap_or_default().to_owned();
    match &entry.denial {
        Some(denial) => (operation, None, denial.code.clone()),
        None if operation == "purge" => (operation, None, String::new()),
        None => (operation, Some(id(&entry.subject.as_str().into())), String::new()),
    }
}

/// The entry that an answered request must have left.
fn answered(name: &str, kind: Kind, request: &Request) -> Option<Fact> {
    let sent = Sent { name, kind, call: &request.call, wrapped: None, number: request.number };
    let operation = sent.operation();
    let refused = |code: &str| Some((operation.to_owned(), None, code.to_owned()));
    if operation.is_empty() {
        return None;
    }
    match request.answer.as_ref()? {
        Answer::Key(id, _) | Answer::Used(id) => Some((operation.to_owned(), Some(*id), String::new())),
        Answer::Purged => Some((operation.to_owned(), None, String::new())),
        Answer::Disabled => refused("KeyDisabled"),
        Answer::Rollback => refused("RollbackRefused"),
        Answer::Ahead => refused("GenerationAhead"),
        Answer::Busy if operation == "release" => refused("KeyChanged"),
        _ => None,
    }
}
