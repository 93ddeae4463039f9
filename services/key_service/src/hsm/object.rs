//! A key's object in the token: its id, its label, its attributes, and finding and destroying it.
//!
//! The label says whose object it is and how far it got; what decides about destroying one is [`crate::app`]'s sweep:
//!
//! ```text
//!   made --its row is committed--> kept --its purge begins--> gone
//! ```

use aws_lc_rs::rand;
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::SessionState;

use super::error::{Doing as _, HsmError};
use super::pool::Connection;
use crate::crypto::kind::Family;

/// Bytes of CKA_ID.
const ID_LEN: usize = 16;
/// First word of every label.
const OURS: &str = "casemate";

/// CKA_ID of a key: random, so that no name or version says where a key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    /// A new one.
    pub fn random() -> Self {
        let mut id = [0; ID_LEN];
        rand::fill(&mut id).expect("the system has random numbers");
        Self(id)
    }

    /// From a reference or an object.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// For a reference.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Hex.
    pub fn text(&self) -> String {
        hex::encode(self.0)
    }

    fn attribute(self) -> Attribute {
        Attribute::Id(self.0.to_vec())
    }
}

/// How far an object got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made; no row may refer to it yet.
    Made,
    /// A row referred to it once.
    Kept,
    /// Its row was to be deleted.
    Gone,
}

impl State {
    const ALL: [(Self, &'static str); 3] =
        [(State::Made, "made"), (State::Kept, "kept"), (State::Gone, "gone")];

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }
}

/// CKA_LABEL: whose object it is, when it was made, and how far it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Id of the vault's master key: replicas of one vault share it, and vaults that share a token differ in it.
    pub vault: String,
    /// Unix seconds.
    pub made: i64,
    /// How far it got.
    pub state: State,
}

impl Label {
    fn text(&self) -> String {
        format!("{OURS} {} {} {}", self.vault, self.made, self.state.name())
    }

    fn parse(label: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(label).ok()?.split(' ');
        let (ours, vault, made, state) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (state, _) = State::ALL.into_iter().find(|(_, name)| *name == state)?;
        let made = made.parse().ok()?;
        (ours == OURS && words.next().is_none()).then(|| Self { vault: vault.to_owned(), made, state })
    }
}

/// What a new key object is to be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its label.
    pub label: Label,
    /// Whether it may leave the token, wrapped: keys with a release policy, and no others.
    pub extractable: bool,
}

impl NewKey {
    /// The attributes of a private or secret key. What is not set here has the vendor's default, so everything that
    /// lets a key do more than this service asks of it is set.
    pub fn template(&self, id: KeyId, family: Family) -> Vec<Attribute> {
        let usage: &[Attribute] = match family {
            Family::Rsa => &[Attribute::Sign(true), Attribute::Decrypt(true), Attribute::Unwrap(false)],
            Family::Ec => &[Attribute::Sign(true), Attribute::Decrypt(false), Attribute::Unwrap(false)],
            Family::Oct => &[
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::Wrap(true),
                Attribute::Unwrap(true),
                Attribute::Sign(false),
                Attribute::Verify(false),
            ],
        };
        let mut template = vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(self.extractable),
            Attribute::Derive(false),
            id.attribute(),
            Attribute::Label(self.label.text().into_bytes()),
        ];
        template.extend_from_slice(usage);
        template
    }
}

/// The class of a family's secret half.
fn class(family: Family) -> ObjectClass {
    match family {
        Family::Rsa | Family::Ec => ObjectClass::PRIVATE_KEY,
        Family::Oct => ObjectClass::SECRET_KEY,
    }
}

/// The one object with this id.
pub fn find(connection: &Connection<'_>, id: KeyId, family: Family) -> Result<ObjectHandle, HsmError> {
    let template = [Attribute::Token(true), Attribute::Class(class(family)), id.attribute()];
    let mut found = search(connection, &template)?;
    match (found.pop(), found.len()) {
        (Some(handle), 0) => Ok(handle),
        (Some(_), others) => Err(HsmError::KeyAmbiguous { id: id.text(), count: others + 1 }),
        (None, _) => Err(HsmError::KeyMissing(id.text())),
    }
}

/// Whether the object is as protected as it was asked for. A token that ignores a part of a template is found out here.
pub fn check_protected(
    connection: &Connection<'_>,
    handle: ObjectHandle,
    id: KeyId,
    extractable: bool,
) -> Result<(), HsmError> {
    let asked =
        [AttributeType::Token, AttributeType::Private, AttributeType::Sensitive, AttributeType::Extractable];
    let wanted = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(extractable),
    ];
    let seen = connection.session.get_attributes(handle, &asked).doing("read a key's attributes")?;
    if seen == wanted { Ok(()) } else { Err(HsmError::KeyUnprotected(id.text())) }
}

/// Changes how far an object got.
pub fn relabel(connection: &Connection<'_>, id: KeyId, label: &Label) -> Result<(), HsmError> {
    for handle in all(connection, id)? {
        let label = [Attribute::Label(label.text().into_bytes())];
        connection.session.update_attributes(handle, &label).doing("change a key's label")?;
    }
    Ok(())
}

/// Destroys every object with this id; there is nothing to destroy if a former attempt did.
pub fn destroy(connection: &Connection<'_>, id: KeyId) -> Result<(), HsmError> {
    for handle in all(connection, id)? {
        connection.session.destroy_object(handle).doing("destroy a key")?;
    }
    Ok(())
}

fn all(connection: &Connection<'_>, id: KeyId) -> Result<Vec<ObjectHandle>, HsmError> {
    search(connection, &[Attribute::Token(true), id.attribute()])
}

/// Objects like this. A session whose login was lost sees no private object and no error, so "none" is believed only
/// from one that is logged in: otherwise a key would be said to be destroyed that is there.
fn search(connection: &Connection<'_>, template: &[Attribute]) -> Result<Vec<ObjectHandle>, HsmError> {
    let found = connection.session.find_objects(template).doing("look for a key")?;
    if found.is_empty() {
        let state = connection.session.get_session_info().doing("read a session's state")?.session_state();
        if !matches!(state, SessionState::RwUser) {
            let logged_out = Error::Pkcs11(RvError::UserNotLoggedIn, Function::FindObjects);
            return Err(logged_out).doing("look for a key");
        }
    }
    Ok(found)
}

/// An object of a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: KeyId,
    /// Its label.
    pub label: Label,
}

/// Whether the token's private objects can be seen and looked through.
pub fn probe(connection: &Connection<'_>) -> Result<(), HsmError> {
    search(connection, &[Attribute::Token(true), KeyId::random().attribute()]).map(drop)
}

/// Every key object of `vault`; those of others are not told.
pub fn held(connection: &Connection<'_>, vault: &str) -> Result<Vec<Held>, HsmError> {
    let mut held = Vec::new();
    for family in [Family::Rsa, Family::Oct] {
        let template = [Attribute::Token(true), Attribute::Class(class(family))];
        for handle in search(connection, &template)? {
            held.extend(described(connection, handle)?.filter(|held| held.label.vault == vault));
        }
    }
    Ok(held)
}

fn described(connection: &Connection<'_>, handle: ObjectHandle) -> Result<Option<Held>, HsmError> {
    let asked = [AttributeType::Id, AttributeType::Label];
    let seen = connection.session.get_attributes(handle, &asked).doing("read a key's label")?;
    let [Attribute::Id(id), Attribute::Label(label)] = seen.as_slice() else { return Ok(None) };
    Ok(KeyId::from_bytes(id).zip(Label::parse(label)).map(|(id, label)| Held { id, label }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_whose_it_is_and_how_far_it_got_and_others_labels_are_none_of_ours() {
        for (state, _) in State::ALL {
            let label = Label { vault: "ab12".to_owned(), made: 1_800_000_000, state };
            assert_eq!(Label::parse(label.text().as_bytes()), Some(label));
        }
        for other in [
            "",
            "casemate",
            "casemate v 1",
            "other v 1 made",
            "casemate v x made",
            "casemate v 1 made x",
            "casemate v 1 new",
        ] {
            assert_eq!(Label::parse(other.as_bytes()), None, "{other}");
        }
        assert_eq!(Label::parse(b"\xFF"), None);
    }
}
