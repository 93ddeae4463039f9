//! The shape of a body as a table, and the words in which the tables are written.

/// A type of object.
#[derive(Debug)]
pub struct ObjectType {
    /// Name as the error text shows it.
    pub name: &'static str,
    /// What it may hold.
    pub members: &'static [Member],
}

/// A member of an object.
#[derive(Debug)]
pub struct Member {
    /// Name in the specification's spelling.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// `true`, `false`, or the same in quotes.
    Bool,
    /// A whole number, or the same in quotes.
    Int,
    /// One of some words.
    Enum(&'static EnumType),
    /// An object.
    Object(&'static ObjectType),
    /// A list.
    List(&'static Kind),
    /// Free names, text values.
    Labels,
    /// Anything; kept and shown again, without an effect.
    Any,
    /// Shown by us, accepted and dropped when it comes back.
    ReadOnly,
    /// Known to Azure, not offered here: refused unless it is empty or false.
    NotOffered,
}

/// A set of words.
#[derive(Debug)]
pub struct EnumType {
    /// Name as the error text shows it.
    pub name: &'static str,
    /// The words in the specification's spelling.
    pub values: &'static [&'static str],
}

/// A member of this kind.
pub(super) const fn member(name: &'static str, kind: Kind) -> Member {
    Member { name, kind }
}

pub(super) const fn text(name: &'static str) -> Member {
    member(name, Kind::Text)
}

pub(super) const fn flag(name: &'static str) -> Member {
    member(name, Kind::Bool)
}

pub(super) const fn object(name: &'static str, shape: &'static ObjectType) -> Member {
    member(name, Kind::Object(shape))
}

pub(super) const fn choice(name: &'static str, words: &'static EnumType) -> Member {
    member(name, Kind::Enum(words))
}

pub(super) const fn shown(name: &'static str) -> Member {
    member(name, Kind::ReadOnly)
}

pub(super) const fn absent(name: &'static str) -> Member {
    member(name, Kind::NotOffered)
}
