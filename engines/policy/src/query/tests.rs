//! Our interpreter against that of the crate `jmespath`, on expressions and values made of few names, so that they meet.

use ::jmespath::Variable;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// JSON over the members `a` to `c`, at most three levels deep.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..4i64).prop_map(Value::from),
        prop::sample::select(vec![0.5, -1.5, 2.25]).prop_map(Value::from),
        prop::sample::select(vec!["", "a", "b", "ab", "A", "12"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let members = prop::collection::btree_map("[a-c]", inner.clone(), 0..4);
        prop_oneof![
            2 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
            3 => members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Expressions of every kind that the reader knows.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => "[a-c]",
        2 => Just("@".to_owned()),
        1 => prop::sample::select(vec!["`null`", "`true`", "`2`", "`0.5`", "`[1, 2]`", "`{\"a\": 1}`", "'a'", "'ab'", "''"])
            .prop_map(str::to_owned),
        1 => prop::sample::select(vec!["[0]", "[-1]", "[*]", "[]", "[::-1]", "[1:]", "[:-1:2]", "*", "[?@]", "[?a]"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        let operator = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">=", "&&", "||", "|"]);
        let suffix = prop::sample::select(vec![
            ".a", ".b", "[0]", "[-2]", "[*]", "[]", "[?a]", "[?@ > `1`]", "[1:]", "[::-2]", ".*", ".[a, b]", ".{x: a, y: @}",
            "[?b == a]",
        ]);
        let one = prop::sample::select(vec![
            "abs", "avg", "ceil", "floor", "keys", "length", "max", "min", "not_null", "reverse", "sort", "sum",
            "to_array", "to_number", "to_string", "type", "values", "merge",
        ]);
        let two = prop::sample::select(vec!["contains", "ends_with", "starts_with", "join", "not_null", "merge"]);
        let by = prop::sample::select(vec!["max_by", "min_by", "sort_by"]);
        prop_oneof![
            3 => (inner.clone(), suffix).prop_map(|(inner, suffix)| format!("({inner}){suffix}")),
            2 => ("[a-c]", inner.clone()).prop_map(|(name, inner)| format!("{name}[*].[{inner}]")),
            3 => (pair.clone(), operator).prop_map(|((left, right), operator)| format!("({left}) {operator} ({right})")),
            1 => inner.clone().prop_map(|inner| format!("!({inner})")),
            1 => pair.clone().prop_map(|(left, right)| format!("[{left}, {right}]")),
            1 => pair.clone().prop_map(|(left, right)| format!("{{a: {left}, z: {right}}}")),
            2 => (one, inner.clone()).prop_map(|(name, inner)| format!("{name}({inner})")),
            1 => (two, pair.clone()).prop_map(|(name, (left, right))| format!("{name}({left}, {right})")),
            1 => (by, pair.clone()).prop_map(|(name, (elements, key))| format!("{name}({elements}, &{key})")),
            1 => pair.prop_map(|(key, elements)| format!("map(&{key}, {elements})")),
        ]
    })
}

fn ours(query: &str, json: &str) -> Result<String, Fault> {
    let fuel = Fuel::new(1_000_000);
    let query = compile(query).map_err(|error| error.to_string())?;
    let found = search(&query, &parse_json(json, &fuel)?, &fuel)?;
    to_text(&found, &fuel)
}

fn theirs(query: &str, json: &str) -> Result<String, String> {
    let expression = ::jmespath::compile(query).map_err(|error| error.to_string())?;
    let json = Variable::from_json(json)?;
    let found = expression.search(json).map_err(|error| error.to_string())?;
    serde_json::to_string(&*found).map_err(|error| error.to_string())
}

/// The crate writes `1.0` where a function made a whole number, and we `1`.
fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(elements) => elements.into_iter().map(whole).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, whole(value))).collect())
        }
        other => other,
    }
}

fn makes_numbers(query: &str) -> bool {
    ["abs(", "avg(", "ceil(", "floor(", "sum(", "to_number("].iter().any(|name| query.contains(name))
}

fn normalized(text: &str) -> Value {
    whole(serde_json::from_str(text).expect("JSON"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn both_interpreters_agree(query in expression(), json in json()) {
        let json = json.to_string();
        match (ours(&query, &json), theirs(&query, &json)) {
            // The text of a whole number that a function made is `1.0` there, where no comparison can look into it.
            (Ok(_), Ok(_)) if query.contains("to_string(") && makes_numbers(&query) => {}
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(normalized(&ours), normalized(&theirs), "{} on {}", query, json),
            (Err(_), Err(_)) => {}
            // The specification has null for the average of nothing.
            (Ok(_), Err(theirs)) if query.contains("avg(") && theirs.contains("valid f64") => {}
            (ours, theirs) => prop_assert!(false, "{query} on {json}: {ours:?}, {theirs:?}"),
        }
    }
}

#[test]
fn exact_integers_stay_exact() {
    let large = "18446744073709551615";
    assert_eq!(ours("@ == `18446744073709551614`", large).as_deref(), Ok("false"));
    assert_eq!(ours("@", large).as_deref(), Ok(large));
    assert_eq!(ours("sum([@, `1`])", large).as_deref(), Ok("18446744073709551616"));
}

#[test]
fn what_is_shared_is_charged_when_it_is_copied() {
    let fuel = Fuel::new(10_000);
    let query = compile(&format!("@{}", " | [@,@]".repeat(30))).expect("an expression");
    let shared = search(&query, &Json::Null, &fuel).expect("sharing is cheap");
    assert_eq!(shared, Json::Null, "a list of null is null");
    let shared = search(&query, &Json::Boolean(true), &fuel).expect("sharing is cheap");
    let error = to_text(&shared, &fuel).expect_err("a copy is not");
    assert_eq!(error, "evaluation takes more than 10000 steps");
}
