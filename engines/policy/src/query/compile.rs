//! From an expression's text to a checked [`Query`]: functions are known, their arguments counted, the depth bounded.

use std::sync::Arc;

use ::jmespath::Variable;
use ::jmespath::ast::{Ast, Comparator};

use super::function::Function;
use super::json::{Json, Number};
use super::{MAX_QUERY_BYTES, MAX_QUERY_DEPTH, MAX_QUERY_OPENINGS, MAX_QUERY_SYMBOLS};

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Query {
    Current,
    Literal(Json),
    Field(String),
    Index(i32),
    Slice {
        start: Option<i32>,
        stop: Option<i32>,
        step: i32,
    },
    Then(Box<Query>, Box<Query>),
    Or(Box<Query>, Box<Query>),
    And(Box<Query>, Box<Query>),
    Not(Box<Query>),
    Compare(Comparator, Box<Query>, Box<Query>),
    /// The second query where the first one is true, else null.
    When(Box<Query>, Box<Query>),
    Project(Box<Query>, Box<Query>),
    Values(Box<Query>),
    Flatten(Box<Query>),
    List(Vec<Query>),
    Hash(Vec<(Arc<str>, Query)>),
    /// An argument that is an expression reference (`&name`) stands as its query.
    Call(Function, Vec<Query>),
}

/// Why a text is no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryError {
    /// In bytes of the expression.
    pub offset: usize,
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { offset, expected, found } = self;
        write!(formatter, "at byte {offset} of the JMESPath expression: expected {expected}, found {found}")
    }
}

/// Reads an expression.
pub(crate) fn compile(text: &str) -> Result<Query, QueryError> {
    let refused = |expected: String, found: String| Err(QueryError { offset: 0, expected, found });
    if text.trim().is_empty() {
        return refused("a JMESPath expression".to_owned(), "an empty text".to_owned());
    }
    if text.len() > MAX_QUERY_BYTES {
        let found = format!("{} bytes", text.len());
        return refused(format!("at most {MAX_QUERY_BYTES} bytes of expression"), found);
    }
    let symbols = text.chars().filter(|character| is_symbol(*character)).count();
    if symbols > MAX_QUERY_SYMBOLS {
        let expected = format!("at most {MAX_QUERY_SYMBOLS} symbols in an expression");
        return refused(expected, format!("{symbols} symbols"));
    }
    let openings = text.chars().filter(|character| "[({!&*".contains(*character)).count();
    if openings > MAX_QUERY_OPENINGS {
        let expected = format!("at most {MAX_QUERY_OPENINGS} of the symbols [ ( {{ ! & * in an expression");
        return refused(expected, format!("{openings} of them"));
    }
    let ast = ::jmespath::parse(text).map_err(|error| unreadable(text, &error))?;
    query(&ast, 0)
}

fn is_symbol(character: char) -> bool {
    !(character.is_alphanumeric() || character == '_' || character.is_whitespace())
}

/// The crate tells a place and a reason; what stands at the place is more use to a person than its token's name.
fn unreadable(text: &str, error: &::jmespath::JmespathError) -> QueryError {
    let reason = error.reason.to_string();
    let reason = reason.strip_prefix("Parse error: ").unwrap_or(&reason);
    let reason: String = reason.split(" -- found").next().unwrap_or(reason).chars().take(120).collect();
    let rest: String = text.get(error.offset..).unwrap_or_default().chars().take(24).collect();
    let found = if rest.is_empty() { "its end".to_owned() } else { format!("`{rest}`") };
    QueryError {
        offset: error.offset,
        expected: "a JMESPath expression".to_owned(),
        found: format!("{found} ({reason})"),
    }
}

fn query(ast: &Ast, depth: usize) -> Result<Query, QueryError> {
    if depth > MAX_QUERY_DEPTH {
        let expected = format!("at most {MAX_QUERY_DEPTH} levels of nesting");
        return Err(QueryError { offset: 0, expected, found: "more".to_owned() });
    }
    let inner = |ast: &Ast| query(ast, depth + 1).map(Box::new);
    Ok(match ast {
        Ast::Identity { .. } => Query::Current,
        Ast::Literal { value, .. } => Query::Literal(literal(value)),
        Ast::Field { name, .. } => Query::Field(name.clone()),
        Ast::Index { idx, .. } => Query::Index(*idx),
        Ast::Slice { offset, start, stop, step } => slice(*offset, *start, *stop, *step)?,
        Ast::Subexpr { lhs, rhs, .. } => Query::Then(inner(lhs)?, inner(rhs)?),
        Ast::Or { lhs, rhs, .. } => Query::Or(inner(lhs)?, inner(rhs)?),
        Ast::And { lhs, rhs, .. } => Query::And(inner(lhs)?, inner(rhs)?),
        Ast::Not { node, .. } => Query::Not(inner(node)?),
        Ast::Comparison { comparator, lhs, rhs, .. } => {
            Query::Compare(comparator.clone(), inner(lhs)?, inner(rhs)?)
        }
        Ast::Condition { predicate, then, .. } => Query::When(inner(predicate)?, inner(then)?),
        Ast::Projection { lhs, rhs, .. } => Query::Project(inner(lhs)?, inner(rhs)?),
        Ast::ObjectValues { node, .. } => Query::Values(inner(node)?),
        Ast::Flatten { node, .. } => Query::Flatten(inner(node)?),
        Ast::MultiList { elements, .. } => {
            Query::List(elements.iter().map(|element| query(element, depth + 1)).collect::<Result<_, _>>()?)
        }
        Ast::MultiHash { elements, .. } => {
            let members =
                elements.iter().map(|pair| Ok((pair.key.as_str().into(), query(&pair.value, depth + 1)?)));
            Query::Hash(members.collect::<Result<_, _>>()?)
        }
        Ast::Function { offset, name, args } => call(*offset, name, args, depth)?,
        Ast::Expref { offset, .. } => {
            let expected = "an expression reference (`&`) only as an argument that takes one".to_owned();
            return Err(QueryError { offset: *offset, expected, found: "one elsewhere".to_owned() });
        }
    })
}

fn slice(offset: usize, start: Option<i32>, stop: Option<i32>, step: i32) -> Result<Query, QueryError> {
    if step == 0 {
        let (expected, found) = ("a step other than 0".to_owned(), "0".to_owned());
        return Err(QueryError { offset, expected, found });
    }
    Ok(Query::Slice { start, stop, step })
}

fn call(offset: usize, name: &str, arguments: &[Ast], depth: usize) -> Result<Query, QueryError> {
    let Some(function) = Function::named(name) else {
        let names: Vec<&str> = Function::ALL.iter().map(|function| function.name()).collect();
        let expected = format!("one of the functions {}", names.join(", "));
        return Err(QueryError { offset, expected, found: format!("`{name}`") });
    };
    let (least, most) = function.arity();
    if !(least..=most).contains(&arguments.len()) {
        let expected = match (least, most) {
            (1, usize::MAX) => format!("at least one argument of {name}"),
            (1, _) => format!("one argument of {name}"),
            _ => format!("{least} arguments of {name}"),
        };
        return Err(QueryError { offset, expected, found: arguments.len().to_string() });
    }
    let mut queries = Vec::new();
    for (position, argument) in arguments.iter().enumerate() {
        let argument = match (argument, function.reference() == Some(position)) {
            (Ast::Expref { ast, .. }, true) => ast,
            (_, true) => {
                let expected =
                    format!("an expression reference (`&...`) as argument {} of {name}", position + 1);
                return Err(QueryError { offset, expected, found: "a value".to_owned() });
            }
            (argument, false) => argument,
        };
        queries.push(query(argument, depth + 1)?);
    }
    Ok(Query::Call(function, queries))
}

/// Literals nest at most as deep as `serde_json` reads, which is 127 levels.
fn literal(value: &Variable) -> Json {
    match value {
        Variable::Null | Variable::Expref(_) => Json::Null,
        Variable::Bool(value) => Json::Boolean(*value),
        Variable::String(text) => Json::text(text),
        Variable::Number(number) => Json::Number(match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Number::Integer(value.into()),
            (None, Some(value)) => Number::Integer(value.into()),
            (None, None) => Number::of(number.as_f64().unwrap_or_default()),
        }),
        Variable::Array(elements) => Json::array(elements.iter().map(|element| literal(element)).collect()),
        Variable::Object(members) => {
            let members = members.iter().map(|(name, member)| (name.as_str().into(), literal(member)));
            Json::Object(Arc::new(members.collect()))
        }
    }
}
