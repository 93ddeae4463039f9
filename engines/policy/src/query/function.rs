//! The functions of JMESPath. Source: the specification's "Built-in Functions"; a value of a type that a function does
//! not take is an error, as there.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::Query;
use super::interpret::search;
use super::json::{Json, Number, to_text};
use super::{Fault, Fuel, MAX_JSON_BYTES};

/// A function, its name, and how many arguments it takes.
macro_rules! functions {
    ($($variant:ident $name:literal $least:expr, $most:expr;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Function { $($variant),* }

        impl Function {
            pub const ALL: &[Function] = &[$(Function::$variant),*];

            pub fn name(self) -> &'static str {
                match self { $(Function::$variant => $name),* }
            }

            pub fn arity(self) -> (usize, usize) {
                match self { $(Function::$variant => ($least, $most)),* }
            }
        }
    };
}

functions! {
    Abs "abs" 1, 1;
    Avg "avg" 1, 1;
    Ceil "ceil" 1, 1;
    Contains "contains" 2, 2;
    EndsWith "ends_with" 2, 2;
    EqualsIgnoreCase "equals_ignore_case" 2, 2;
    Floor "floor" 1, 1;
    Join "join" 2, 2;
    Keys "keys" 1, 1;
    Length "length" 1, 1;
    Map "map" 2, 2;
    Max "max" 1, 1;
    MaxBy "max_by" 2, 2;
    Merge "merge" 1, usize::MAX;
    Min "min" 1, 1;
    MinBy "min_by" 2, 2;
    NotNull "not_null" 1, usize::MAX;
    Reverse "reverse" 1, 1;
    Sort "sort" 1, 1;
    SortBy "sort_by" 2, 2;
    StartsWith "starts_with" 2, 2;
    Sum "sum" 1, 1;
    ToArray "to_array" 1, 1;
    ToNumber "to_number" 1, 1;
    ToString "to_string" 1, 1;
    Type "type" 1, 1;
    Values "values" 1, 1;
}

impl Function {
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|function| function.name() == name)
    }

    /// The position of the argument that is an expression reference.
    pub fn reference(self) -> Option<usize> {
        match self {
            Function::Map => Some(0),
            Function::MaxBy | Function::MinBy | Function::SortBy => Some(1),
            _ => None,
        }
    }
}

/// Calls a function on arguments that [`super::compile`] has counted.
pub(super) fn call(function: Function, arguments: &[Query], data: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    match (function, arguments) {
        (Function::Map, [reference, elements]) => map(reference, &search(elements, data, fuel)?, fuel),
        (Function::MaxBy | Function::MinBy | Function::SortBy, [elements, reference]) => {
            by(function, &search(elements, data, fuel)?, reference, fuel)
        }
        _ => {
            let arguments: Result<Vec<Json>, Fault> =
                arguments.iter().map(|argument| search(argument, data, fuel)).collect();
            match arguments?.as_slice() {
                [] => Err(wrong(function, "its arguments", &Json::Null)),
                arguments if function == Function::Merge => merge(arguments, fuel),
                arguments if function == Function::NotNull => Ok(not_null(arguments)),
                [only] => unary(function, only, fuel),
                [first, second] => binary(function, first, second, fuel),
                _ => Err(wrong(function, "fewer arguments", &Json::Null)),
            }
        }
    }
}

fn wrong(function: Function, expected: &str, found: &Json) -> Fault {
    format!("JMESPath function {} takes {expected}, not {}", function.name(), found.type_name())
}

fn unary(function: Function, value: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    match function {
        Function::Abs | Function::Ceil | Function::Floor => match value {
            Json::Number(number) => Ok(Json::Number(rounded(function, *number))),
            _ => Err(wrong(function, "a number", value)),
        },
        Function::Avg | Function::Sum => total(function, value, fuel),
        Function::Max | Function::Min | Function::Sort => ordered(function, value, fuel),
        Function::Keys | Function::Values => of_object(function, value, fuel),
        Function::Length => length(value, fuel),
        Function::Reverse => reverse(value, fuel),
        Function::ToArray => match value {
            Json::Array(_) => Ok(value.clone()),
            _ => Ok(Json::array(vec![value.clone()])),
        },
        Function::ToNumber => Ok(to_number(value, fuel)?),
        Function::ToString => match value {
            Json::Text(_) => Ok(value.clone()),
            _ => Ok(Json::Text(to_text(value, fuel)?.into())),
        },
        Function::Type => Ok(Json::text(value.type_name())),
        _ => Err(wrong(function, "other arguments", value)),
    }
}

fn binary(function: Function, first: &Json, second: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    match (function, first, second) {
        (Function::Contains, Json::Array(elements), _) => {
            for element in elements.iter() {
                if element.equals(second, fuel)? {
                    return Ok(Json::Boolean(true));
                }
            }
            Ok(Json::Boolean(false))
        }
        (Function::Contains, Json::Text(text), Json::Text(part)) => {
            fuel.charge_text(text)?;
            Ok(Json::Boolean(text.contains(&**part)))
        }
        (Function::Contains, Json::Text(_), _) => Ok(Json::Boolean(false)),
        (Function::StartsWith, Json::Text(text), Json::Text(part)) => {
            fuel.charge_text(part)?;
            Ok(Json::Boolean(text.starts_with(&**part)))
        }
        (Function::EndsWith, Json::Text(text), Json::Text(part)) => {
            fuel.charge_text(part)?;
            Ok(Json::Boolean(text.ends_with(&**part)))
        }
        (Function::EqualsIgnoreCase, Json::Text(left), Json::Text(right)) => {
            fuel.charge(1 + (left.len() / 8) as u64)?;
            Ok(Json::Boolean(equals_ignore_case(left, right)))
        }
        (Function::EqualsIgnoreCase, ..) => Ok(Json::Boolean(false)),
        (Function::Join, Json::Text(glue), Json::Array(parts)) => join(glue, parts, fuel),
        (Function::Join, Json::Text(_), _) => Err(wrong(function, "an array", second)),
        (Function::Contains, ..) => Err(wrong(function, "an array or a string", first)),
        (_, Json::Text(_), _) => Err(wrong(function, "two strings", second)),
        _ => Err(wrong(function, "a string", first)),
    }
}

/// Letters of ASCII equal only letters of ASCII, so that no look-alike passes for one.
fn equals_ignore_case(left: &str, right: &str) -> bool {
    let same = |(left, right): (char, char)| {
        left.eq_ignore_ascii_case(&right)
            || (!left.is_ascii() && !right.is_ascii() && left.to_uppercase().eq(right.to_uppercase()))
    };
    left.chars().count() == right.chars().count() && left.chars().zip(right.chars()).all(same)
}

fn rounded(function: Function, number: Number) -> Number {
    match (function, number) {
        (Function::Abs, Number::Integer(value)) => Number::Integer(value.saturating_abs()),
        (_, Number::Integer(_)) => number,
        (Function::Abs, Number::Fraction(value)) => Number::of(value.abs()),
        (Function::Ceil, Number::Fraction(value)) => Number::of(value.ceil()),
        (_, Number::Fraction(value)) => Number::of(value.floor()),
    }
}

fn total(function: Function, value: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Array(elements) = value else { return Err(wrong(function, "an array of numbers", value)) };
    fuel.charge(elements.len() as u64)?;
    let mut sum = Number::Integer(0);
    for element in elements.iter() {
        let Json::Number(number) = element else {
            return Err(wrong(function, "an array of numbers", element));
        };
        sum = match (sum, number) {
            (Number::Integer(left), Number::Integer(right)) => Number::Integer(left.saturating_add(*right)),
            (left, right) => Number::of(left.as_f64() + right.as_f64()),
        };
    }
    let count = elements.len() as i128;
    let result = match (function, sum) {
        (Function::Sum, sum) => sum,
        _ if count == 0 => return Ok(Json::Null),
        (_, Number::Integer(sum)) if sum % count == 0 => Number::Integer(sum / count),
        (_, sum) => Number::of(sum.as_f64() / elements.len() as f64),
    };
    if !result.as_f64().is_finite() {
        return Err(format!("JMESPath function {} gives a number that is too large", function.name()));
    }
    Ok(Json::Number(result))
}

/// A value to sort by: all of one array are numbers, or all are texts.
#[derive(Clone)]
enum Key {
    Number(Number),
    Text(Arc<str>),
}

impl Key {
    fn compare(&self, other: &Key) -> Ordering {
        match (self, other) {
            (Key::Number(left), Key::Number(right)) => left.compare(*right),
            (Key::Text(left), Key::Text(right)) => left.cmp(right),
            (Key::Number(_), Key::Text(_)) => Ordering::Less,
            (Key::Text(_), Key::Number(_)) => Ordering::Greater,
        }
    }
}

/// Checks the keys and charges for sorting them.
fn keys(
    function: Function,
    values: impl ExactSizeIterator<Item = Result<Json, Fault>>,
    fuel: &Fuel,
) -> Result<Vec<Key>, Fault> {
    let comparisons = u64::from(usize::BITS - values.len().leading_zeros());
    let mut keys: Vec<Key> = Vec::new();
    for value in values {
        let key = match (value?, keys.first()) {
            (Json::Number(number), None | Some(Key::Number(_))) => Key::Number(number),
            (Json::Text(text), None | Some(Key::Text(_))) => {
                fuel.charge(comparisons * (text.len() as u64 / 64))?;
                Key::Text(text)
            }
            (other, _) => return Err(wrong(function, "numbers only or strings only to order by", &other)),
        };
        fuel.charge(1 + comparisons)?;
        keys.push(key);
    }
    Ok(keys)
}

fn ordered(function: Function, value: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Array(elements) = value else { return Err(wrong(function, "an array", value)) };
    let keys = keys(function, elements.iter().map(|element| Ok(element.clone())), fuel)?;
    Ok(pick(function, elements, &keys))
}

fn by(function: Function, value: &Json, reference: &Query, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Array(elements) = value else { return Err(wrong(function, "an array", value)) };
    let keys = keys(function, elements.iter().map(|element| search(reference, element, fuel)), fuel)?;
    Ok(pick(function, elements, &keys))
}

fn pick(function: Function, elements: &[Json], keys: &[Key]) -> Json {
    let mut pairs: Vec<(&Key, &Json)> = keys.iter().zip(elements).collect();
    let chosen = match function {
        Function::Sort | Function::SortBy => {
            pairs.sort_by(|(left, _), (right, _)| left.compare(right));
            return Json::array(pairs.into_iter().map(|(_, element)| element.clone()).collect());
        }
        Function::Max | Function::MaxBy => {
            pairs.into_iter().reduce(|best, next| if next.0.compare(best.0).is_gt() { next } else { best })
        }
        _ => pairs.into_iter().reduce(|best, next| if next.0.compare(best.0).is_lt() { next } else { best }),
    };
    chosen.map_or(Json::Null, |(_, element)| element.clone())
}

fn map(reference: &Query, value: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Array(elements) = value else { return Err(wrong(Function::Map, "an array", value)) };
    fuel.charge(elements.len() as u64)?;
    let mapped: Result<Vec<Json>, Fault> =
        elements.iter().map(|element| search(reference, element, fuel)).collect();
    Ok(Json::array(mapped?))
}

fn of_object(function: Function, value: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Object(members) = value else { return Err(wrong(function, "an object", value)) };
    fuel.charge(members.len() as u64)?;
    Ok(Json::array(match function {
        Function::Keys => members.keys().map(|name| Json::Text(Arc::clone(name))).collect(),
        _ => members.values().cloned().collect(),
    }))
}

fn length(value: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    match value {
        Json::Text(text) => {
            fuel.charge_text(text)?;
            Ok(Json::integer(text.chars().count()))
        }
        Json::Array(elements) => Ok(Json::integer(elements.len())),
        Json::Object(members) => Ok(Json::integer(members.len())),
        _ => Err(wrong(Function::Length, "a string, an array or an object", value)),
    }
}

fn reverse(value: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    match value {
        Json::Text(text) => {
            fuel.charge(1 + text.len() as u64 / 16)?;
            Ok(Json::Text(text.chars().rev().collect::<String>().into()))
        }
        Json::Array(elements) => {
            fuel.charge(elements.len() as u64)?;
            Ok(Json::array(elements.iter().rev().cloned().collect()))
        }
        _ => Err(wrong(Function::Reverse, "an array or a string", value)),
    }
}

fn to_number(value: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    match value {
        Json::Number(_) => Ok(value.clone()),
        Json::Text(text) if text.len() <= 64 => Ok(match super::parse_json(text, fuel) {
            Ok(number @ Json::Number(_)) => number,
            _ => Json::Null,
        }),
        _ => Ok(Json::Null),
    }
}

fn join(glue: &str, parts: &[Json], fuel: &Fuel) -> Result<Json, Fault> {
    let mut joined = String::new();
    for (index, part) in parts.iter().enumerate() {
        let Json::Text(part) = part else { return Err(wrong(Function::Join, "an array of strings", part)) };
        if index > 0 {
            fuel.charge_text(glue)?;
            joined.push_str(glue);
        }
        fuel.charge_text(part)?;
        joined.push_str(part);
        if joined.len() > MAX_JSON_BYTES {
            return Err(format!("JMESPath function join makes more than {MAX_JSON_BYTES} bytes"));
        }
    }
    Ok(Json::Text(joined.into()))
}

fn merge(objects: &[Json], fuel: &Fuel) -> Result<Json, Fault> {
    let mut merged = BTreeMap::new();
    for object in objects {
        let Json::Object(members) = object else { return Err(wrong(Function::Merge, "objects", object)) };
        fuel.charge(2 * members.len() as u64)?;
        merged.extend(members.iter().map(|(name, member)| (Arc::clone(name), member.clone())));
    }
    Ok(Json::Object(Arc::new(merged)))
}

fn not_null(values: &[Json]) -> Json {
    values.iter().find(|value| !matches!(value, Json::Null)).cloned().unwrap_or(Json::Null)
}
