//! One key name of a vault, as it would be if its requests came one after the other.

use std::collections::BTreeMap;

use super::checker::Model;

/// A version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// As the vault named it.
    Known(u128),
    /// Made by the request of this number, whose answer never came.
    MadeBy(u32),
}

/// A tag that tells the states of a version apart. Every fifth one disables it.
pub type Mark = u32;

/// Whether a version with this mark is enabled.
pub fn is_enabled(mark: Mark) -> bool {
    mark == 0 || !mark.is_multiple_of(5)
}

/// What is asked of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Create {
        mark: Mark,
    },
    Rotate,
    Update {
        mark: Mark,
    },
    Delete,
    Recover,
    Purge,
    Read,
    ReadVersion(Id),
    ReadDeleted,
    List,
    /// Signing or wrapping with the newest version.
    Use,
    /// Signing or unwrapping with this version.
    UseVersion(Id),
    Release {
        generation: u64,
    },
}

impl Call {
    /// What it changes, as the decision log calls it; empty if it changes nothing.
    pub fn changes(&self) -> &'static str {
        match self {
            Call::Create { .. } => "create",
            Call::Rotate => "rotate",
            Call::Update { .. } => "update",
            Call::Delete => "delete",
            Call::Recover => "recover",
            Call::Purge => "purge",
            Call::Release { .. } => "release",
            _ => "",
        }
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A version as it is.
    Key(Id, Mark),
    /// The version that was used or released.
    Used(Id),
    Versions(BTreeMap<Id, Mark>),
    Purged,
    NotFound,
    /// The name belongs to a deleted key.
    Held,
    /// Others were faster, or too many; nothing happened.
    Busy,
    Disabled,
    Rollback,
    Ahead,
}

/// A request with its answer, if one came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its own number.
    pub number: u32,
    pub call: Call,
    pub answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Life {
    #[default]
    Free,
    Live,
    Deleted,
}

/// How a name stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyState {
    life: Life,
    versions: BTreeMap<Id, Mark>,
    newest: Option<Id>,
    /// The guest state's generation that was released last.
    generation: Option<u64>,
}

impl KeyState {
    /// What is answered and what is left. A version that is made is `fresh`.
    pub fn after(&self, call: &Call, fresh: Id) -> (Answer, KeyState) {
        let same = |answer| (answer, self.clone());
        match (call, self.life) {
            (Call::Create { .. }, Life::Deleted) => same(Answer::Held),
            (Call::Create { mark }, _) => self.with_newest(fresh, *mark),
            (Call::Rotate, Life::Live) => self.with_newest(fresh, self.mark()),
            (Call::Update { mark }, Life::Live) => self.with_newest(self.id(), *mark),
            (Call::Delete, Life::Live) => self.turned(Life::Deleted),
            (Call::Recover, Life::Deleted) => self.turned(Life::Live),
            (Call::Purge, Life::Deleted) => (Answer::Purged, KeyState::default()),
            (Call::Read, Life::Live) | (Call::ReadDeleted, Life::Deleted) => {
                same(Answer::Key(self.id(), self.mark()))
            }
            (Call::ReadVersion(id), Life::Live) => {
                same(self.versions.get(id).map_or(Answer::NotFound, |mark| Answer::Key(*id, *mark)))
            }
            (Call::List, Life::Live) => same(Answer::Versions(self.versions.clone())),
            (Call::List, _) => same(Answer::Versions(BTreeMap::new())),
            (Call::Use, Life::Live) => same(self.used(self.id())),
            (Call::UseVersion(id), Life::Live) => same(self.used(*id)),
            (Call::Release { generation }, Life::Live) => self.released(*generation),
            _ => same(Answer::NotFound),
        }
    }

    fn id(&self) -> Id {
        self.newest.expect("a name that is not free has a newest version")
    }

    fn mark(&self) -> Mark {
        self.versions[&self.id()]
    }

    fn with_newest(&self, id: Id, mark: Mark) -> (Answer, KeyState) {
        let mut next = KeyState { life: Life::Live, newest: Some(id), ..self.clone() };
        next.versions.insert(id, mark);
        (Answer::Key(id, mark), next)
    }

    fn turned(&self, life: Life) -> (Answer, KeyState) {
        (Answer::Key(self.id(), self.mark()), KeyState { life, ..self.clone() })
    }

    fn used(&self, id: Id) -> Answer {
        match self.versions.get(&id) {
            None => Answer::NotFound,
            Some(mark) if is_enabled(*mark) => Answer::Used(id),
            Some(_) => Answer::Disabled,
        }
    }

    fn released(&self, generation: u64) -> (Answer, KeyState) {
        let (oldest, newest) = self.generation.map_or((0, 1), |last| (last, last + 1));
        let refused = |answer| (answer, self.clone());
        match self.used(self.id()) {
            Answer::Used(_) if generation < oldest => refused(Answer::Rollback),
            Answer::Used(_) if generation > newest => refused(Answer::Ahead),
            Answer::Used(id) => (Answer::Used(id), KeyState { generation: Some(generation), ..self.clone() }),
            other => refused(other),
        }
    }

    /// Every way in which a version of an unanswered request can be the one that was seen as `id`.
    fn recognised(&self, id: Id) -> Vec<KeyState> {
        let unknown = self.versions.keys().filter(|id| matches!(id, Id::MadeBy(_)));
        if self.versions.contains_key(&id) || unknown.clone().next().is_none() {
            return vec![self.clone()];
        }
        unknown.map(|unknown| self.renamed(*unknown, id)).collect()
    }

    fn renamed(&self, from: Id, to: Id) -> KeyState {
        let name = |id: Id| if id == from { to } else { id };
        let versions = self.versions.iter().map(|(id, mark)| (name(*id), *mark)).collect();
        KeyState { versions, newest: self.newest.map(name), ..self.clone() }
    }
}

impl Answer {
    fn ids(&self) -> Vec<Id> {
        match self {
            Answer::Key(id, _) | Answer::Used(id) => vec![*id],
            Answer::Versions(versions) => versions.keys().copied().collect(),
            _ => vec![],
        }
    }
}

/// The model of one name, for the checker.
pub struct Name;

impl Model for Name {
    type State = KeyState;
    type Call = Request;

    fn step(state: &KeyState, request: &Request) -> Vec<KeyState> {
        let Request { number, call, answer } = request;
        match answer {
            None => vec![state.after(call, Id::MadeBy(*number)).1],
            Some(Answer::Busy) => vec![state.clone()],
            Some(answer) => answered(state, call, answer),
        }
    }

    fn only_looks(request: &Request) -> bool {
        use Call::{List, Read, ReadDeleted, ReadVersion, Use, UseVersion};
        let changed = matches!(request.answer, Some(Answer::Key(..) | Answer::Used(_) | Answer::Purged));
        let looks = matches!(request.call, Read | ReadVersion(_) | ReadDeleted | List | Use | UseVersion(_));
        request.answer.is_some() && (looks || !changed)
    }
}

fn answered(state: &KeyState, call: &Call, answer: &Answer) -> Vec<KeyState> {
    if let (Call::Create { .. } | Call::Rotate, Answer::Key(id, _)) = (call, answer) {
        let (predicted, next) = state.after(call, *id);
        let new = !state.versions.contains_key(id);
        return if new && predicted == *answer { vec![next] } else { vec![] };
    }
    let mut states = vec![state.clone()];
    for id in answer.ids() {
        states = states.iter().flat_map(|state| state.recognised(id)).collect();
    }
    let outcomes = states.iter().map(|state| state.after(call, Id::MadeBy(u32::MAX)));
    outcomes.filter(|(predicted, _)| predicted == answer).map(|(_, next)| next).collect()
}
