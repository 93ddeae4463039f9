//! Request bodies: strict about names and types, lenient where Azure's clients are sloppy.
//!
//! A body is JSON checked against a table ([`table::ObjectType`]): member names and enum values are matched without
//! regard to case and come out in the spelling of the specification, `"true"` passes for `true`, `null` is the same as
//! absent, read-only members are dropped. An unknown member is refused with the text that Azure's serialiser gives.

pub mod attestation;
pub mod compute;
pub mod key_vault;
mod position;
pub mod schema;
pub mod table;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refusal::{Kind, Refusal};
use table::ObjectType;

/// Parses a body and brings it into the table's shape.
pub fn parse(text: &[u8], shape: &'static ObjectType) -> Result<Value, Refusal> {
    let value = json(text)?;
    schema::conform(&value, shape).map_err(|fault| {
        let place = position::describe(text, &fault.path);
        Refusal::bad(format!("{} Path '{}'{place}.", fault.message, fault.path)).at(&fault.path)
    })
}

/// Parses JSON that must be an object.
pub fn json(text: &[u8]) -> Result<Value, Refusal> {
    let invalid = |reason: String| {
        let message = format!("The request content was invalid and could not be deserialized: '{reason}'.");
        Refusal::new(Kind::BadRequest, "InvalidRequestContent", message)
    };
    let value: Value = serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(invalid("the body must be a JSON object".to_owned())) }
}

/// Turns a conforming value into a type.
pub fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Refusal> {
    serde_json::from_value(value.clone())
        .map_err(|error| Refusal::new(Kind::BadRequest, "InvalidRequestContent", error.to_string()))
}
