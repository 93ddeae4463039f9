//! The walker that brings a JSON value into the shape of a table.

use serde_json::{Map, Value};

use super::table::{EnumType, Kind, ObjectType};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For people; a full sentence.
    pub message: String,
    /// For example `properties.storageProfile.osDisk`.
    pub path: String,
}

/// Brings an object into shape.
pub fn conform(value: &Value, shape: &'static ObjectType) -> Result<Value, Fault> {
    object(value, shape, "")
}

fn fault<T>(path: &str, message: String) -> Result<T, Fault> {
    Err(Fault { message, path: path.to_owned() })
}

fn object(value: &Value, shape: &'static ObjectType, path: &str) -> Result<Value, Fault> {
    let Value::Object(given) = value else {
        return fault(path, format!("Error converting value {value} to type '{}'.", shape.name));
    };
    let mut result = Map::new();
    for (name, value) in given {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(member) = shape.members.iter().find(|member| member.name.eq_ignore_ascii_case(name)) else {
            let message = format!("Could not find member '{name}' on object of type '{}'.", shape.name);
            return fault(&path, message);
        };
        if value.is_null() {
            continue;
        }
        if let Some(value) = conform_kind(value, &member.kind, &path)?
            && result.insert(member.name.to_owned(), value).is_some()
        {
            return fault(&path, format!("The member '{}' is given twice.", member.name));
        }
    }
    Ok(Value::Object(result))
}

fn conform_kind(value: &Value, kind: &'static Kind, path: &str) -> Result<Option<Value>, Fault> {
    let bad = |what: &str| fault(path, format!("Error converting value {} to type '{what}'.", brief(value)));
    Ok(Some(match kind {
        Kind::Text => match value {
            Value::String(_) => value.clone(),
            Value::Number(number) => Value::String(number.to_string()),
            _ => return bad("System.String"),
        },
        Kind::Bool => match as_bool(value) {
            Some(truth) => Value::Bool(truth),
            None => return bad("System.Nullable`1[System.Boolean]"),
        },
        Kind::Int => match as_int(value) {
            Some(number) => Value::from(number),
            None => return bad("System.Nullable`1[System.Int32]"),
        },
        Kind::Enum(words) => match word(value, words) {
            Some(word) => Value::from(word),
            None => {
                return bad(&format!("System.Nullable`1[Microsoft.Azure.Management.Compute.{}]", words.name));
            }
        },
        Kind::Object(shape) => object(value, shape, path)?,
        Kind::List(inner) => list(value, inner, path)?,
        Kind::Labels => labels(value, path)?,
        Kind::Any => value.clone(),
        Kind::ReadOnly => return Ok(None),
        Kind::NotOffered => {
            if !is_nothing(value) {
                let message = "This property is valid but not offered by this installation; leave it out.";
                return fault(path, message.to_owned());
            }
            return Ok(None);
        }
    }))
}

fn list(value: &Value, inner: &'static Kind, path: &str) -> Result<Value, Fault> {
    let Value::Array(items) = value else {
        return fault(path, format!("Error converting value {} to a list.", brief(value)));
    };
    let mut result = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if let Some(item) = conform_kind(item, inner, &format!("{path}[{index}]"))? {
            result.push(item);
        }
    }
    Ok(Value::Array(result))
}

fn labels(value: &Value, path: &str) -> Result<Value, Fault> {
    let Value::Object(given) = value else {
        return fault(path, format!("Error converting value {} to a set of labels.", brief(value)));
    };
    for (name, value) in given {
        if !value.is_string() {
            let message = format!("Error converting value {} to type 'System.String'.", brief(value));
            return fault(&format!("{path}.{name}"), message);
        }
    }
    Ok(value.clone())
}

fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn as_int(value: &Value) -> Option<i32> {
    match value {
        Value::Number(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn word(value: &Value, words: &EnumType) -> Option<&'static str> {
    let text = value.as_str()?;
    words.values.iter().copied().find(|word| word.eq_ignore_ascii_case(text))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text.eq_ignore_ascii_case("false"),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_nothing),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { text.chars().take(77).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::compute::{DISK_ENCRYPTION_SET, IMAGE, VIRTUAL_MACHINE};
    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let names = prop::sample::select(vec![
            "location",
            "properties",
            "storageProfile",
            "osDisk",
            "TAGS",
            "name",
            "hardwareProfile",
            "vmSize",
            "x",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zA-Z]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..5).prop_map(|members| Value::Object(
                    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_conforms_conforms_again_unchanged(value in values()) {
            for shape in [&VIRTUAL_MACHINE, &DISK_ENCRYPTION_SET, &IMAGE] {
                match conform(&value, shape) {
                    Ok(shaped) => prop_assert_eq!(conform(&shaped, shape), Ok(shaped.clone())),
                    Err(fault) => prop_assert!(!fault.message.is_empty()),
                }
            }
        }
    }

    #[test]
    fn every_kind_of_value_is_checked() {
        let properties = |value: Value| conform(&json!({"properties": value}), &VIRTUAL_MACHINE);
        for (value, good) in [
            (json!({"storageProfile": {"osDisk": {"diskSizeGB": "30"}}}), true),
            (json!({"storageProfile": {"osDisk": {"diskSizeGb": 30}}}), true),
            (json!({"storageProfile": {"osDisk": {"diskSizeGB": 30.5}}}), false),
            (json!({"storageProfile": {"osDisk": {"diskSizeGB": 3_000_000_000_u64}}}), false),
            (json!({"storageProfile": {"osDisk": []}}), false),
            (json!({"storageProfile": {"dataDisks": []}}), true),
            (json!({"storageProfile": {"dataDisks": [{}]}}), false),
            (json!({"storageProfile": {"dataDisks": [{"lun": 0}]}}), false),
            (json!({"securityProfile": {"encryptionAtHost": 1}}), false),
            (json!({"osProfile": {"linuxConfiguration": {"ssh": {"publicKeys": {}}}}}), false),
            (json!({"priority": "Spot"}), false),
        ] {
            assert_eq!(properties(value.clone()).is_ok(), good, "{value}");
        }
        assert!(conform(&json!({"tags": {"a": 1}}), &VIRTUAL_MACHINE).is_err());
        assert!(conform(&json!([]), &VIRTUAL_MACHINE).is_err());
    }
}
