//! JSON values that are cheap to share, and their way from and to text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{Fault, Fuel, MAX_JSON_BYTES};

/// A JSON value; copies share what they contain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Arc<str>),
    Array(Arc<Vec<Json>>),
    Object(Arc<BTreeMap<Arc<str>, Json>>),
}

/// A number: exact where it has no fraction. A fraction is never a whole number below 2^53.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Integer(i128),
    Fraction(f64),
}

/// Up to here every whole number has a double of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Number {
    pub fn of(value: f64) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        if value.fract() == 0.0 && value.abs() < EXACT {
            return Self::Integer(value as i128);
        }
        Self::Fraction(value)
    }

    pub fn as_f64(self) -> f64 {
        match self {
            Number::Integer(value) => value as f64,
            Number::Fraction(value) => value,
        }
    }

    pub fn compare(self, other: Self) -> std::cmp::Ordering {
        match (self, other) {
            (Number::Integer(left), Number::Integer(right)) => left.cmp(&right),
            _ => self.as_f64().total_cmp(&other.as_f64()),
        }
    }
}

impl Json {
    pub fn text(value: &str) -> Self {
        Self::Text(Arc::from(value))
    }

    pub fn integer(value: usize) -> Self {
        Self::Number(Number::Integer(value as i128))
    }

    pub fn array(elements: Vec<Json>) -> Self {
        Self::Array(Arc::new(elements))
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Boolean(_) => "boolean",
            Json::Number(_) => "number",
            Json::Text(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    /// What JMESPath takes for true: everything but `false`, `null` and what is empty.
    pub fn is_truthy(&self) -> bool {
        match self {
            Json::Null => false,
            Json::Boolean(value) => *value,
            Json::Number(_) => true,
            Json::Text(text) => !text.is_empty(),
            Json::Array(elements) => !elements.is_empty(),
            Json::Object(members) => !members.is_empty(),
        }
    }

    pub fn equals(&self, other: &Json, fuel: &Fuel) -> Result<bool, Fault> {
        fuel.charge(1)?;
        match (self, other) {
            (Json::Null, Json::Null) => Ok(true),
            (Json::Boolean(left), Json::Boolean(right)) => Ok(left == right),
            (Json::Number(left), Json::Number(right)) => Ok(left.compare(*right).is_eq()),
            (Json::Text(left), Json::Text(right)) => {
                fuel.charge_text(left)?;
                Ok(left == right)
            }
            (Json::Array(left), Json::Array(right)) if left.len() == right.len() => {
                all(left.iter().zip(right.iter()), |(left, right)| left.equals(right, fuel))
            }
            (Json::Object(left), Json::Object(right)) if left.len() == right.len() => {
                all(left.iter().zip(right.iter()), |((left_name, left), (right_name, right))| {
                    fuel.charge_text(left_name)?;
                    Ok(left_name == right_name && left.equals(right, fuel)?)
                })
            }
            _ => Ok(false),
        }
    }

    /// Charges for a copy as text, and adds up its length. Values share their parts, so the text of a small value can
    /// be as long as one likes.
    fn charge_copy(&self, fuel: &Fuel, length: &mut usize) -> Result<(), Fault> {
        let text = |text: &str, length: &mut usize| {
            *length = length.saturating_add(text.len() + 2);
            fuel.charge(1 + text.len() as u64 / 16)
        };
        fuel.charge(1)?;
        *length = length.saturating_add(4);
        if *length > MAX_JSON_BYTES {
            return Err(format!("the JSON result is longer than {MAX_JSON_BYTES} bytes"));
        }
        match self {
            Json::Text(value) => text(value, length),
            Json::Array(elements) => {
                elements.iter().try_for_each(|element| element.charge_copy(fuel, length))
            }
            Json::Object(members) => members.iter().try_for_each(|(name, member)| {
                text(name, length)?;
                member.charge_copy(fuel, length)
            }),
            Json::Null | Json::Boolean(_) | Json::Number(_) => Ok(()),
        }
    }
}

fn all<T>(
    mut items: impl Iterator<Item = T>,
    mut holds: impl FnMut(T) -> Result<bool, Fault>,
) -> Result<bool, Fault> {
    items.try_fold(true, |so_far, item| Ok(so_far && holds(item)?))
}

/// The JSON text of a value.
pub(crate) fn to_text(value: &Json, fuel: &Fuel) -> Result<String, Fault> {
    value.charge_copy(fuel, &mut 0)?;
    serde_json::to_string(value).map_err(|error| format!("a result is no JSON: {error}"))
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Boolean(value) => serializer.serialize_bool(*value),
            Json::Number(Number::Integer(value)) => serializer.serialize_i128(*value),
            Json::Number(Number::Fraction(value)) => serializer.serialize_f64(*value),
            Json::Text(text) => serializer.serialize_str(text),
            Json::Array(elements) => serializer.collect_seq(elements.iter()),
            Json::Object(members) => {
                serializer.collect_map(members.iter().map(|(name, member)| (&**name, member)))
            }
        }
    }
}

/// Reads a JSON text of at most [`MAX_JSON_BYTES`] bytes and 127 levels.
pub(crate) fn parse_json(text: &str, fuel: &Fuel) -> Result<Json, Fault> {
    if text.len() > MAX_JSON_BYTES {
        return Err(format!("JSON of {} bytes is longer than {MAX_JSON_BYTES} bytes", text.len()));
    }
    fuel.charge(1 + text.len() as u64 / 64)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Reader(fuel).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    // When the reader stopped for want of fuel, that is the reason and not the JSON.
    value.map_err(|error| fuel.charge(1).err().unwrap_or_else(|| format!("this is no JSON: {error}")))
}

/// Builds a value and charges for each part before it is made.
struct Reader<'f>(&'f Fuel);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Boolean(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(Number::Integer(value.into())))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(Number::Integer(value.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(Number::of(value)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Json, E> {
        self.0.charge_text(text).map_err(E::custom)?;
        Ok(Json::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element_seed(Reader(self.0))? {
            self.0.charge(2).map_err(A::Error::custom)?;
            elements.push(element);
        }
        Ok(Json::array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = access.next_key::<String>()? {
            self.0.charge(2).and_then(|()| self.0.charge_text(&name)).map_err(A::Error::custom)?;
            let name: Arc<str> = name.into();
            let member = access.next_value_seed(Reader(self.0))?;
            if members.insert(Arc::clone(&name), member).is_some() {
                return Err(A::Error::custom(format!("member \"{name:.64}\" stands there twice")));
            }
        }
        Ok(Json::Object(Arc::new(members)))
    }
}
