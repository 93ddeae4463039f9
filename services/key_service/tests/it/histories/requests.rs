//! The calls of the model as requests to a vault, and its answers as those of the model.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::model::{Answer, Call, Id, Mark, is_enabled};
use crate::support::issuer::{attestation, encoded};
use crate::support::vault::{OFFICER, RELEASE_USER, evidence_at, platform_conditions, policy};

/// What a key name is for. All may be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An EC key: it signs.
    Signs,
    /// A symmetric key: it wraps and unwraps.
    Wraps,
}

/// What was wrapped, to be unwrapped by the same version.
#[derive(Clone, Debug)]
pub struct Wrapped {
    pub plain: String,
    pub value: Value,
}

/// A request, but for its token.
#[derive(Clone, Debug)]
pub struct Http {
    pub method: &'static str,
    pub path: String,
    pub role: &'static str,
    pub body: Value,
}

/// Sends requests to one vault.
pub trait Vault: Send + Sync + 'static {
    /// Status and body; `None` if the vault died before it answered.
    fn send(&self, request: Http) -> impl Future<Output = Option<(u16, Value)>> + Send;

    /// Seconds since 1970, for this vault.
    fn now(&self) -> i64;
}

/// A call on a name, ready to be sent.
pub struct Sent<'a> {
    pub name: &'a str,
    pub kind: Kind,
    pub call: &'a Call,
    /// Needed by `UseVersion` of a key that wraps.
    pub wrapped: Option<&'a Wrapped>,
    /// The number of the request: what it wraps.
    pub number: u32,
}

impl Sent<'_> {
    /// The request.
    pub fn http(&self, now: i64) -> Http {
        let (name, call) = (self.name, self.call);
        let keys = |rest: &str| format!("/keys/{name}{rest}");
        let deleted = |rest: &str| format!("/deletedkeys/{name}{rest}");
        let (method, path, body) = match call {
            Call::Create { mark } => ("POST", keys("/create"), self.create(*mark)),
            Call::Rotate => ("POST", keys("/rotate"), Value::Null),
            Call::Update { mark } => ("PATCH", keys(""), marked(*mark)),
            Call::Delete => ("DELETE", keys(""), Value::Null),
            Call::Recover => ("POST", deleted("/recover"), Value::Null),
            Call::Purge => ("DELETE", deleted(""), Value::Null),
            Call::Read => ("GET", keys(""), Value::Null),
            Call::ReadVersion(id) => ("GET", keys(&format!("/{}", hex(*id))), Value::Null),
            Call::ReadDeleted => ("GET", deleted(""), Value::Null),
            Call::List => ("GET", keys("/versions"), Value::Null),
            Call::Use => ("POST", keys(&format!("/{}", self.operation())), self.used()),
            Call::UseVersion(id) => {
                ("POST", keys(&format!("/{}/{}", hex(*id), self.operation())), self.used())
            }
            Call::Release { generation } => ("POST", keys("/release"), release(now, *generation)),
        };
        let role = if matches!(call, Call::Release { .. }) { RELEASE_USER } else { OFFICER };
        Http { method, path, role, body }
    }

    /// As the decision log calls it; what it does not record has no name.
    pub fn operation(&self) -> &'static str {
        match (self.call, self.kind) {
            (Call::Use | Call::UseVersion(_), Kind::Signs) => "sign",
            (Call::Use, Kind::Wraps) => "wrapkey",
            (Call::UseVersion(_), Kind::Wraps) => "unwrapkey",
            (other, _) => other.changes(),
        }
    }

    fn create(&self, mark: Mark) -> Value {
        let mut body = marked(mark);
        body["attributes"]["exportable"] = json!(true);
        body["release_policy"] = json!({"data": policy(&platform_conditions())});
        match self.kind {
            Kind::Signs => body["kty"] = json!("EC-HSM"),
            Kind::Wraps => body["kty"] = json!("oct-HSM"),
        }
        body
    }

    fn used(&self) -> Value {
        match (self.kind, self.wrapped) {
            (Kind::Signs, _) => json!({"alg": "ES256", "value": encoded([7; 32])}),
            (Kind::Wraps, None) => json!({"alg": "A256KW", "value": self.plain()}),
            (Kind::Wraps, Some(wrapped)) => json!({"alg": "A256KW", "value": wrapped.value}),
        }
    }

    /// What is wrapped: tells the request.
    pub fn plain(&self) -> String {
        encoded(format!("request{:09}", self.number))
    }

    /// The answer, as the model has it. Panics at one that no vault may give.
    pub fn answer(&self, status: u16, body: &Value) -> Answer {
        let code = body["error"]["denial"]["code"].as_str().unwrap_or_default();
        match (status, code) {
            (204, _) if *self.call == Call::Purge => Answer::Purged,
            (200, _) => self.good(body),
            (404, _) => Answer::NotFound,
            (409, _) if matches!(self.call, Call::Create { .. }) => Answer::Held,
            (409, _) if matches!(self.call, Call::Rotate | Call::Update { .. }) => Answer::Busy,
            (429, _) | (403, "KeyChanged") => Answer::Busy,
            (403, "KeyDisabled") => Answer::Disabled,
            (403, "RollbackRefused") => Answer::Rollback,
            (403, "GenerationAhead") => Answer::Ahead,
            _ => panic!("{:?} of {} was answered {status} {body}", self.call, self.name),
        }
    }

    fn good(&self, body: &Value) -> Answer {
        match self.call {
            Call::List => {
                let items = body["value"].as_array().expect("a list");
                Answer::Versions(items.iter().map(|item| (id(&item["kid"]), mark(item))).collect())
            }
            Call::Use => Answer::Used(id(&body["kid"])),
            Call::UseVersion(_) => {
                if let Some(wrapped) = self.wrapped {
                    assert_eq!(body["value"], wrapped.plain, "another key than the one that wrapped");
                }
                Answer::Used(id(&body["kid"]))
            }
            Call::Release { .. } => {
                let payload = body["value"].as_str().and_then(|jws| jws.split('.').nth(1)).expect("a JWS");
                let payload = crate::support::issuer::decoded(payload);
                let payload: Value = serde_json::from_slice(&payload).expect("JSON");
                Answer::Used(id(&payload["request"]["kid"]))
            }
            _ => Answer::Key(id(&body["key"]["kid"]), mark(body)),
        }
    }
}

fn marked(mark: Mark) -> Value {
    json!({"tags": {"mark": mark.to_string()}, "attributes": {"enabled": is_enabled(mark)}})
}

/// The mark of a bundle or item; its `enabled` must belong to it.
fn mark(item: &Value) -> Mark {
    let text = item["tags"]["mark"].as_str().expect("a mark");
    let mark = text.parse().expect("a number");
    assert_eq!(item["attributes"]["enabled"], is_enabled(mark), "tag and attribute were changed together");
    mark
}

fn release(now: i64, generation: u64) -> Value {
    json!({"target": attestation().token(&evidence_at(now, generation))})
}

/// The version at the end of a key's id.
pub fn id(kid: &Value) -> Id {
    let version = kid.as_str().and_then(|kid| kid.rsplit('/').next()).expect("a key id");
    Id::Known(u128::from_str_radix(version, 16).expect("32 hex characters"))
}

fn hex(id: Id) -> String {
    match id {
        Id::Known(number) => format!("{number:032x}"),
        Id::MadeBy(_) => unreachable!("only versions that were seen are asked for"),
    }
}

/// Every kind of outcome and how often it came, to show that a load was one.
pub fn counts<'a>(answers: impl Iterator<Item = (&'a Call, &'a Answer)>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for (call, answer) in answers {
        let word =
            |text: String| text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let name = format!("{} {}", word(format!("{call:?}")), word(format!("{answer:?}")));
        *counts.entry(name).or_default() += 1;
    }
    counts
}
