//! JSON objects whose member names are matched without regard to case, as Azure Attestation's clients need it.
//!
//! An unknown member, one that is there twice, and one of another type are errors that name the member.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Why a body is not what was expected; `path` is the member that is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {problem}")]
pub struct FieldError {
    /// The member, for example `runtimeData.dataType`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FieldError {
    /// An error at a member.
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

/// The members of one object; their values stay where they came in.
pub struct Fields<'a> {
    path: String,
    members: Vec<(&'static str, &'a RawValue)>,
}

struct RawMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawMembers<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMembers<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'a> Fields<'a> {
    /// Reads an object that has no other members than `known`. `path` is the object's own place, empty for the body.
    pub fn parse(path: &str, text: &'a [u8], known: &[&'static str]) -> Result<Self, FieldError> {
        let place = if path.is_empty() { "body" } else { path };
        let raw: RawMembers<'a> = serde_json::from_slice(text)
            .map_err(|error| FieldError::new(place, format!("not the expected JSON: {error}")))?;
        let mut fields = Self { path: path.to_owned(), members: Vec::new() };
        for (name, value) in raw.0 {
            let Some(canonical) = known.iter().find(|known| known.eq_ignore_ascii_case(&name)) else {
                let name: String = name.chars().take(80).collect();
                let known = known.join(", ");
                return Err(FieldError::new(
                    fields.place(&name),
                    format!("unknown field, expected one of {known}"),
                ));
            };
            if fields.members.iter().any(|(present, _)| present == canonical) {
                return Err(FieldError::new(fields.place(canonical), "given twice"));
            }
            fields.members.push((canonical, value));
        }
        Ok(fields)
    }

    /// The place of a member of this object.
    pub fn place(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The JSON text of a member; `None` if it is missing or null.
    pub fn raw(&self, name: &'static str) -> Option<&'a str> {
        let (_, value) = self.members.iter().find(|(present, _)| *present == name)?;
        Some(value.get()).filter(|text| *text != "null")
    }

    /// A member that may be missing or null.
    pub fn optional<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, FieldError> {
        let Some(text) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| FieldError::new(self.place(name), format!("not the expected JSON: {error}")))
    }

    /// A member that must be there.
    pub fn required<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, FieldError> {
        self.optional(name)?.ok_or_else(|| FieldError::new(self.place(name), "missing"))
    }

    /// Bytes in any spelling of base64.
    pub fn bytes(&self, name: &'static str) -> Result<Vec<u8>, FieldError> {
        let text = match self.raw(name).and_then(plain) {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(self.required::<String>(name)?),
        };
        public_api::encoding::from_base64_any(&text)
            .map_err(|error| FieldError::new(self.place(name), error.to_string()))
    }
}

/// What stands between the quotes of a JSON text, if it stands for itself. It was parsed as JSON before.
fn plain(json: &str) -> Option<&str> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    memchr(b'\\', text.as_bytes()).is_none().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(text: &str) -> String {
        let fields = Fields::parse("", text.as_bytes(), &["report", "runtimeData"]);
        match fields.and_then(|fields| fields.bytes("report")) {
            Ok(bytes) => format!("{bytes:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_mistake_is_told_with_the_members_name() {
        let cases = [
            (r#"{"report":"AQI"}"#, "[1, 2]"),
            (r#"{"REPORT":"AQI=","RuntimeData":null}"#, "[1, 2]"),
            (r#"{"report":"\u0041QI"}"#, "[1, 2]"),
            (r#"{"report":"AQI","rePort":"AQI"}"#, "`report`: given twice"),
            (r#"{"report":"AQI","extra":1}"#, "`extra`: unknown field, expected one of report, runtimeData"),
            (r#"{"runtimeData":1}"#, "`report`: missing"),
            (r#"{"report":null}"#, "`report`: missing"),
            (r#"{"report":"?"}"#, "`report`: not base64 (neither the standard nor the URL alphabet)"),
            (
                r#"{"report":7}"#,
                "`report`: not the expected JSON: invalid type: integer `7`, expected a string at line 1 column 1",
            ),
            (
                "[]",
                "`body`: not the expected JSON: invalid type: sequence, expected an object at line 1 column 0",
            ),
            (
                "{\"report\":\"AQI\"",
                "`body`: not the expected JSON: EOF while parsing an object at line 1 column 15",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(problem(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = Fields::parse("", &body, &["report"]);
        }
    }
}
