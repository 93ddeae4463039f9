//! Policies that loop, nest or explode are cut at the stated bounds.

use policy::language::{
    Claim, MAX_CALL_DEPTH, MAX_CONDITIONS, MAX_JSON_BYTES, MAX_POLICY_BYTES, MAX_QUERY_BYTES,
    MAX_QUERY_DEPTH, MAX_QUERY_OPENINGS, MAX_QUERY_SYMBOLS, MAX_RULES, MAX_WORK, Policy,
};

/// A policy text of rules that run while authorizing.
fn authorizing(rules: &str) -> String {
    format!("version=1.2; authorizationrules {{ {rules} => permit(); }};")
}

/// A rule that asks an expression of the claim `json`.
fn asking(query: &str) -> String {
    let query = query.replace('\\', "\\\\").replace('"', "\\\"");
    authorizing(&format!(r#"c:[type=="json"] => add(type="r", value=JmesPath(c.value, "{query}"));"#))
}

fn claims() -> Vec<Claim> {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let mut claims: Vec<Claim> = (0..64).map(|value| Claim::of_service("set", value)).collect();
    claims.extend([
        Claim::of_service("json", "[1, 2, 3, 4, 5, 6, 7, 8]"),
        Claim::of_service("text", "x".repeat(1000)),
        Claim::of_service("deep", deep),
        Claim::of_service("large", format!("[{}1]", "1,".repeat(MAX_JSON_BYTES / 2 - 2))),
        Claim::of_service("larger", format!("\"{}\"", "x".repeat(MAX_JSON_BYTES))),
    ]);
    claims
}

/// Policies that parse and whose evaluation is cut, with a part of the reason.
fn exploding() -> Vec<(&'static str, String, String)> {
    let steps = format!("more than {MAX_WORK} steps");
    let set = r#"[type=="set"] && "#;
    let pairs: String = ('a'..='e').map(|name| format!("{name}:{set}")).collect();
    let uses =
        "[type==\"x\", value!=a.value, value!=b.value, value!=c.value, value!=d.value, value!=e.value]";
    vec![
        ("doubling a set", authorizing(&r#"a:[type=="set"] => add(type="set", value=a.value);"#.repeat(40)), steps.clone()),
        (
            "tripling a text",
            authorizing(
                &r#"a:[type=="text"] => add(type="text", value=AppendString(AppendString(a.value, a.value), a.value));"#
                    .repeat(60),
            ),
            steps.clone(),
        ),
        ("all combinations of five conditions", authorizing(&format!("{pairs}{uses} => deny();")), steps.clone()),
        ("a set that is a subset of itself, for each pair of a large one", {
            let grow = r#"a:[type=="set"] => add(type="set", value=a.value);"#.repeat(5);
            authorizing(&format!(r#"{grow} a:[type=="set"] => add(type="r", value=IsSubsetOf(a.value, a.value));"#))
        }, steps.clone()),
        ("doubling an array", asking(&format!("@{}", " | [@,@][]".repeat(40))), steps.clone()),
        ("doubling what is shared, without flattening", asking(&format!("@{}", " | [@,@]".repeat(60))), "JSON result is longer".to_owned()),
        ("the same as an object", asking(&format!("@{}", " | {a:@,b:@}".repeat(50))), "JSON result is longer".to_owned()),
        ("comparing what is shared", asking(&format!("@{} | @ == [@[0],@[1]]", " | [@,@]".repeat(60))), steps.clone()),
        ("searching in what is shared", asking(&format!("@{} | contains(@, @[0])", " | [@,@]".repeat(60))), steps.clone()),
        ("a projection in a projection", asking(&format!("map(&{}@{}, @)", "map(&[@,@,@,@,@,@,@,@], ".repeat(0), " | [@,@,@,@][]".repeat(12))), steps.clone()),
        ("sorting what was doubled", asking(&format!("@{} | sort(@)", " | [@,@][]".repeat(15))), steps.clone()),
        ("joining what was doubled", asking(&format!("[to_string(@)]{} | join('xxxxxxxxxxxxxxxx', @)", " | [@,@][]".repeat(17))), "join makes more than".to_owned()),
        ("text of text of text", asking(&format!("@{}", " | to_string([@,@,@])".repeat(30))), "JSON result is longer".to_owned()),
        ("merging and listing", asking(&format!("{{a:@}}{} | values(@)[]", " | {a:[a,a][]}".repeat(30))), steps.clone()),
        ("reading a megabyte of numbers", authorizing(r#"c:[type=="large"] => add(type="r", value=JmesPath(c.value, "length(@)"));"#), steps),
        ("JSON that is too deep", authorizing(r#"c:[type=="deep"] => add(type="r", value=JmesPath(c.value, "@"));"#), "recursion limit".to_owned()),
        ("JSON that is too long", authorizing(r#"c:[type=="larger"] => add(type="r", value=JmesPath(c.value, "@"));"#), "is longer than".to_owned()),
        (
            "an expression that grew too long",
            authorizing(&format!(
                r#"c:[type=="text"] => add(type="text", value=AppendString(c.value, c.value)); {} c:[type=="json"] && t:[type=="text"] => add(type="r", value=JmesPath(c.value, t.value));"#,
                r#"c:[type=="text"] => add(type="text", value=AppendString(c.value, c.value));"#.repeat(4)
            )),
            "bytes of expression".to_owned(),
        ),
    ]
}

#[test]
fn a_policy_that_explodes_is_cut_and_says_so() {
    let cases = exploding();
    assert!(cases.len() >= 12);
    for (name, text, reason) in cases {
        let policy = Policy::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let error = policy.evaluate(claims()).expect_err(name);
        assert!(error.reason.contains(&reason), "{name}: {error:.300}");
    }
}

/// Policies that do not parse, with a part of what would have been expected.
#[test]
fn a_policy_that_nests_is_refused_and_says_so() {
    let literal =
        |text: &str| authorizing(&format!("=> add(type=\"r\", value=JsonToClaimValue(\"{text}\"));"));
    let cases = [
        ("a long policy", " ".repeat(MAX_POLICY_BYTES + 1), format!("at most {MAX_POLICY_BYTES} bytes")),
        ("many rules", authorizing(&"=> permit();".repeat(MAX_RULES)), format!("at most {MAX_RULES} rules")),
        (
            "many conditions",
            authorizing(&format!("{} => permit();", vec!["[value==1]"; MAX_CONDITIONS + 1].join("&&"))),
            format!("at most {MAX_CONDITIONS} conditions"),
        ),
        (
            "nested calls",
            authorizing(&format!("[value=={}true => permit();", "NegateBool(".repeat(5000))),
            format!("at most {MAX_CALL_DEPTH} nested calls"),
        ),
        ("nested JSON", literal(&"[".repeat(50_000)), "a text that is JSON".to_owned()),
        (
            "a long expression",
            asking(&"a".repeat(MAX_QUERY_BYTES + 1)),
            format!("at most {MAX_QUERY_BYTES} bytes"),
        ),
        ("parentheses", asking(&"(".repeat(8000)), format!("at most {MAX_QUERY_SYMBOLS} symbols")),
        (
            "openings",
            asking(&"[".repeat(MAX_QUERY_OPENINGS + 1)),
            format!("at most {MAX_QUERY_OPENINGS} of the symbols"),
        ),
        (
            "negations",
            asking(&format!("{}@", "!".repeat(MAX_QUERY_OPENINGS))),
            format!("at most {MAX_QUERY_DEPTH} levels"),
        ),
        (
            "flattenings",
            asking(&format!("@{}", "[]".repeat(150))),
            format!("at most {MAX_QUERY_DEPTH} levels"),
        ),
        ("members", asking(&format!("a{}", ".a".repeat(500))), format!("at most {MAX_QUERY_DEPTH} levels")),
        (
            "lists",
            asking(&format!("{}@{}", "[".repeat(150), "]".repeat(150))),
            format!("at most {MAX_QUERY_DEPTH} levels"),
        ),
        (
            "filters",
            asking(&format!("{}@{}", "[?".repeat(130), "]".repeat(130))),
            format!("at most {MAX_QUERY_DEPTH} levels"),
        ),
        ("expression references", asking(&"&".repeat(150)), "a JMESPath expression".to_owned()),
        (
            "JSON in an expression",
            asking(&format!("`{}`", "[".repeat(150))),
            "a JMESPath expression".to_owned(),
        ),
    ];
    for (name, text, expected) in cases {
        let error = Policy::parse(&text).expect_err(name);
        assert!(error.expected.contains(&expected), "{name}: {error:.300}");
    }
}

/// The deepest expressions that are accepted, on a stack of a quarter of a thread's usual one.
#[test]
fn the_deepest_expression_needs_little_stack() {
    let deep =
        |open: &str, close: &str, levels: usize| format!("{}@{}", open.repeat(levels), close.repeat(levels));
    let levels = MAX_QUERY_DEPTH - 2;
    let texts = vec![
        asking(&deep("!", "", levels)),
        asking(&deep("[", "]", levels)),
        asking(&deep("(", ")", MAX_QUERY_OPENINGS)),
        asking(&deep("map(&", ", @)", 60)),
        asking(&format!("@{}", " | [0]".repeat(60))),
        asking(&"[".repeat(MAX_QUERY_OPENINGS)),
        asking(&"!".repeat(MAX_QUERY_OPENINGS)),
        asking(&"[?".repeat(MAX_QUERY_OPENINGS)),
        asking(&"{a:".repeat(MAX_QUERY_OPENINGS)),
        asking(&"a(".repeat(MAX_QUERY_OPENINGS)),
        asking(&format!("@{}", "[*]".repeat(MAX_QUERY_OPENINGS / 2))),
        asking(&format!("*{}", ".*".repeat(MAX_QUERY_OPENINGS - 1))),
        asking(&format!("{}a", "a.".repeat(MAX_QUERY_SYMBOLS - 1))),
        asking(&format!("{}a", "a|".repeat(MAX_QUERY_SYMBOLS - 1))),
    ];
    let run = move || {
        for text in texts {
            if let Ok(policy) = Policy::parse(&text) {
                let _ = policy.evaluate(claims());
            }
        }
    };
    std::thread::Builder::new()
        .stack_size(512 * 1024)
        .spawn(run)
        .expect("a thread")
        .join()
        .expect("no overflow");
}

/// A policy as large as may be, in which nothing explodes, stays far inside the bound.
#[test]
fn a_large_policy_in_which_nothing_explodes_is_evaluated() {
    let rules: String =
        (0..MAX_RULES - 1).map(|number| format!("[type==\"claim{number}\", value!=0] => deny();")).collect();
    let policy = Policy::parse(&authorizing(&rules)).expect("parses");
    let claims = (0..MAX_RULES).map(|number| Claim::of_service(format!("claim{number}"), 0)).collect();
    assert!(matches!(policy.evaluate(claims), Ok(policy::language::Decision::Permit(_))));
}
