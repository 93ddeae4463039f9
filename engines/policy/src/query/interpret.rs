//! What a query finds in a value. Each node that is visited is a step, and each element of an array that is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::jmespath::ast::Comparator;

use super::compile::Query;
use super::json::Json;
use super::{Fault, Fuel, function};

/// Evaluates a query on a value. Its recursion is as deep as the query.
pub(crate) fn search(query: &Query, data: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    fuel.charge(1)?;
    match query {
        Query::Current => Ok(data.clone()),
        Query::Literal(value) => Ok(value.clone()),
        Query::Field(name) => Ok(field(data, name)),
        Query::Index(index) => Ok(element(data, *index)),
        Query::Slice { start, stop, step } => slice(data, *start, *stop, *step, fuel),
        Query::Then(first, second) => search(second, &search(first, data, fuel)?, fuel),
        Query::Or(left, right) => {
            let left = search(left, data, fuel)?;
            if left.is_truthy() { Ok(left) } else { search(right, data, fuel) }
        }
        Query::And(left, right) => {
            let left = search(left, data, fuel)?;
            if left.is_truthy() { search(right, data, fuel) } else { Ok(left) }
        }
        Query::Not(inner) => Ok(Json::Boolean(!search(inner, data, fuel)?.is_truthy())),
        Query::Compare(comparator, left, right) => {
            compare(comparator, &search(left, data, fuel)?, &search(right, data, fuel)?, fuel)
        }
        Query::When(predicate, then) => {
            if search(predicate, data, fuel)?.is_truthy() {
                search(then, data, fuel)
            } else {
                Ok(Json::Null)
            }
        }
        Query::Project(left, right) => project(&search(left, data, fuel)?, right, fuel),
        Query::Values(inner) => values(&search(inner, data, fuel)?, fuel),
        Query::Flatten(inner) => flatten(&search(inner, data, fuel)?, fuel),
        Query::List(_) | Query::Hash(_) if *data == Json::Null => Ok(Json::Null),
        Query::List(elements) => list(elements, data, fuel),
        Query::Hash(members) => hash(members, data, fuel),
        Query::Call(function, arguments) => function::call(*function, arguments, data, fuel),
    }
}

fn field(data: &Json, name: &str) -> Json {
    match data {
        Json::Object(members) => members.get(name).cloned().unwrap_or(Json::Null),
        _ => Json::Null,
    }
}

fn element(data: &Json, index: i32) -> Json {
    let Json::Array(elements) = data else { return Json::Null };
    let distance = index.unsigned_abs() as usize;
    let index = if index < 0 { elements.len().checked_sub(distance) } else { Some(distance) };
    index.and_then(|index| elements.get(index)).cloned().unwrap_or(Json::Null)
}

/// Source: the specification's "Slices", which are Python's.
fn slice(data: &Json, start: Option<i32>, stop: Option<i32>, step: i32, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Array(elements) = data else { return Ok(Json::Null) };
    let length = i64::try_from(elements.len()).unwrap_or(i64::MAX);
    let step = i64::from(step);
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |end: i32| {
        let end = i64::from(end);
        (if end < 0 { end + length } else { end }).clamp(lowest, highest)
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    let (mut next, stop) = (start.map_or(first, bound), stop.map_or(last, bound));
    let mut taken = Vec::new();
    while if step > 0 { next < stop } else { next > stop } {
        fuel.charge(1)?;
        taken.extend(usize::try_from(next).ok().and_then(|next| elements.get(next)).cloned());
        next += step;
    }
    Ok(Json::array(taken))
}

fn compare(comparator: &Comparator, left: &Json, right: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    match comparator {
        Comparator::Equal => return Ok(Json::Boolean(left.equals(right, fuel)?)),
        Comparator::NotEqual => return Ok(Json::Boolean(!left.equals(right, fuel)?)),
        _ => {}
    }
    let (Json::Number(left), Json::Number(right)) = (left, right) else { return Ok(Json::Null) };
    let order = left.compare(*right);
    Ok(Json::Boolean(match comparator {
        Comparator::LessThan => order.is_lt(),
        Comparator::LessThanEqual => order.is_le(),
        Comparator::GreaterThan => order.is_gt(),
        _ => order.is_ge(),
    }))
}

/// Whatever is null is left out.
fn project(data: &Json, right: &Query, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Array(elements) = data else { return Ok(Json::Null) };
    let mut projected = Vec::new();
    for element in elements.iter() {
        let value = search(right, element, fuel)?;
        if value != Json::Null {
            fuel.charge(1)?;
            projected.push(value);
        }
    }
    Ok(Json::array(projected))
}

fn values(data: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Object(members) = data else { return Ok(Json::Null) };
    fuel.charge(members.len() as u64)?;
    Ok(Json::array(members.values().cloned().collect()))
}

fn flatten(data: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    let Json::Array(elements) = data else { return Ok(Json::Null) };
    let mut flat = Vec::new();
    for element in elements.iter() {
        match element {
            Json::Array(inner) => {
                fuel.charge(1 + inner.len() as u64)?;
                flat.extend(inner.iter().cloned());
            }
            _ => {
                fuel.charge(1)?;
                flat.push(element.clone());
            }
        }
    }
    Ok(Json::array(flat))
}

fn list(elements: &[Query], data: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    fuel.charge(elements.len() as u64)?;
    let elements: Result<Vec<Json>, Fault> =
        elements.iter().map(|element| search(element, data, fuel)).collect();
    Ok(Json::array(elements?))
}

fn hash(members: &[(Arc<str>, Query)], data: &Json, fuel: &Fuel) -> Result<Json, Fault> {
    fuel.charge(2 * members.len() as u64)?;
    let members: Result<BTreeMap<Arc<str>, Json>, Fault> =
        members.iter().map(|(name, member)| Ok((Arc::clone(name), search(member, data, fuel)?))).collect();
    Ok(Json::Object(Arc::new(members?)))
}
