//! Functions at their edges: null, arrays, read-only values, JMESPath's own functions and its errors.

use expect_test::{Expect, expect};
use policy::language::{Claim, Policy};

use super::decision;

/// What `JmesPath(json, query)` gives, as its JSON text, or the error.
fn queried(json: &str, query: &str) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!(
        "version=1.2; authorizationrules {{ => permit(); }}; issuancerules {{ c:[type==\"json\"] => issue(type=\"r\", value=JmesPath(c.value, \"{}\")); }};",
        escaped(query)
    );
    if let Err(error) = Policy::parse(&text) {
        return format!("refused: expected {}, found {}", error.expected, error.found);
    }
    let told = decision(&text, vec![Claim::of_service("json", json)]);
    match told.strip_prefix("permit\nr=") {
        Some(value) => serde_json::from_str(value).expect("a text"),
        None => told.split(" (rule").next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn every_function_of_the_specification() {
    let json = r#"{"n": [3, 1, 2], "f": [0.5, 1.5], "t": ["b", "a"], "o": {"b": 2, "a": 1}, "s": "abc",
                   "p": [{"k": 2, "v": "x"}, {"k": 1, "v": "y"}, {"k": 2, "v": "z"}], "z": null}"#;
    let cases = [
        ("abs(`-3`)", "3"),
        ("abs(`-0.5`)", "0.5"),
        ("avg(n)", "2"),
        ("avg(f)", "1"),
        ("avg(`[]`)", "null"),
        ("ceil(`1.2`)", "2"),
        ("contains(s, 'bc')", "true"),
        ("contains(n, `2`)", "true"),
        ("contains(n, 'x')", "false"),
        ("contains(s, `1`)", "false"),
        ("ends_with(s, 'bc')", "true"),
        ("equals_ignore_case(s, 'ABC')", "true"),
        ("equals_ignore_case(s, 'ABD')", "false"),
        ("equals_ignore_case(z, 'ABC')", "false"),
        ("equals_ignore_case('\u{212a}', 'k')", "false"),
        ("equals_ignore_case('\u{e9}', '\u{c9}')", "true"),
        ("floor(`-1.2`)", "-2"),
        ("join('-', t)", r#""b-a""#),
        ("keys(o)", r#"["a","b"]"#),
        ("length(s)", "3"),
        ("length(n)", "3"),
        ("length(o)", "2"),
        ("map(&k, p)", "[2,1,2]"),
        ("map(&nothing, p)", "[null,null,null]"),
        ("max(n)", "3"),
        ("max(t)", r#""b""#),
        ("max(`[]`)", "null"),
        ("max_by(p, &k).v", r#""x""#),
        ("merge(o, {a: `9`})", r#"{"a":9,"b":2}"#),
        ("min(n)", "1"),
        ("min_by(p, &k).v", r#""y""#),
        ("not_null(z, s)", r#""abc""#),
        ("not_null(z)", "null"),
        ("reverse(n)", "[2,1,3]"),
        ("reverse(s)", r#""cba""#),
        ("sort(n)", "[1,2,3]"),
        ("sort(t)", r#"["a","b"]"#),
        ("sort_by(p, &k)[*].v", r#"["y","x","z"]"#),
        ("starts_with(s, 'ab')", "true"),
        ("sum(n)", "6"),
        ("sum(`[]`)", "0"),
        ("to_array(s)", r#"["abc"]"#),
        ("to_array(t)", r#"["b","a"]"#),
        ("to_number('12')", "12"),
        ("to_number('1.5')", "1.5"),
        ("to_number('twelve')", "null"),
        ("to_number(o)", "null"),
        ("to_string(o)", r#""{\"a\":1,\"b\":2}""#),
        ("to_string(s)", r#""abc""#),
        ("type(z)", r#""null""#),
        ("type(f)", r#""array""#),
        ("values(o)", "[1,2]"),
        ("length(n) == `3` && n[-1]", "2"),
        ("n[::-1]", "[2,1,3]"),
        ("n[1:]", "[1,2]"),
        ("n[5]", "null"),
        ("n < `3`", "null"),
        ("p[?k > `1`].v | [1]", r#""z""#),
        ("o.*", "[1,2]"),
        ("[n, t][]", r#"[3,1,2,"b","a"]"#),
        ("p[].{key: k, v: v} | [0]", r#"{"key":2,"v":"x"}"#),
        ("!s || z", "null"),
        ("`1.0` == `1`", "true"),
        ("@ | type(@)", r#""object""#),
    ];
    for (query, expected) in cases {
        assert_eq!(queried(json, query), expected, "{query}");
    }
}

#[test]
fn what_jmespath_calls_an_error_is_one() {
    let check =
        |query: &str, expected: Expect| expected.assert_eq(&queried(r#"{"s": "abc", "n": [1, "a"]}"#, query));
    check(
        "length(`1`)",
        expect![
            "error policy line 1: JMESPath function length takes a string, an array or an object, not number"
        ],
    );
    check(
        "sum(n)",
        expect!["error policy line 1: JMESPath function sum takes an array of numbers, not string"],
    );
    check(
        "sort(n)",
        expect![
            "error policy line 1: JMESPath function sort takes numbers only or strings only to order by, not string"
        ],
    );
    check(
        "sort_by(n, &@)",
        expect![
            "error policy line 1: JMESPath function sort_by takes numbers only or strings only to order by, not string"
        ],
    );
    check("join(s, s)", expect!["error policy line 1: JMESPath function join takes an array, not string"]);
    check("keys(s)", expect!["error policy line 1: JMESPath function keys takes an object, not string"]);
    check(
        "starts_with(n, 'a')",
        expect!["error policy line 1: JMESPath function starts_with takes a string, not array"],
    );
    check(
        "nope(s)",
        expect![
            "refused: expected one of the functions abs, avg, ceil, contains, ends_with, equals_ignore_case, floor, join, keys, length, map, max, max_by, merge, min, min_by, not_null, reverse, sort, sort_by, starts_with, sum, to_array, to_number, to_string, type, values, found `nope`"
        ],
    );
    check("length(s, s)", expect!["refused: expected one argument of length, found 2"]);
    check("merge()", expect!["refused: expected at least one argument of merge, found 0"]);
    check(
        "sort_by(n, s)",
        expect!["refused: expected an expression reference (`&...`) as argument 2 of sort_by, found a value"],
    );
    check(
        "length(&s)",
        expect![
            "refused: expected an expression reference (`&`) only as an argument that takes one, found one elsewhere"
        ],
    );
    check("n[::0]", expect!["refused: expected a step other than 0, found 0"]);
    check(
        "n[",
        expect!["refused: expected a JMESPath expression, found its end (Expected number, ':', or '*')"],
    );
    check("", expect!["refused: expected a JMESPath expression, found an empty text"]);
    check(
        "a = b",
        expect![
            "refused: expected a JMESPath expression, found `= b` ('=' is not valid. Did you mean '=='?)"
        ],
    );
    check(
        "`{`",
        expect![
            "refused: expected a JMESPath expression, found ``{`` (Unable to parse literal JSON {: EOF while parsing an object at line 1 column 1)"
        ],
    );
    check(
        "sum(`[1e308, 1e308]`)",
        expect!["error policy line 1: JMESPath function sum gives a number that is too large"],
    );
}

#[test]
fn a_mistake_in_an_expression_has_its_place_in_the_policy() {
    let refused = |rule: &str, expected: Expect| {
        let text = format!("version=1.2;\nissuancerules {{\n{rule} }};");
        expected.assert_eq(&Policy::parse(&text).expect_err("must not parse").to_string());
    };
    refused(
        r#"c:[type=="j"] => add(type="x", value=JmesPath(c.value, "a[0] ]"));"#,
        expect![
            "line 3, column 62: expected a JMESPath expression, found `]` (Did not parse the complete expression)"
        ],
    );
    refused(
        r#"c:[type=="j"] => add(type="x", value=JmesPath(c.value, "\"\\u00e9\".ü.nope(@)"));"#,
        expect![
            "line 3, column 69: expected a JMESPath expression, found `ü.nope(@)` (Invalid character: ü)"
        ],
    );
    refused(
        r#"=> add(type="x", value=JmesPath("{\"a\": }", "a"));"#,
        expect![
            "line 3, column 33: expected a text that is JSON, found this is no JSON: expected value at line 1 column 7"
        ],
    );
    refused(
        r#"=> add(type="x", value=JmesPath("{}", 1));"#,
        expect!["line 3, column 39: expected a text with a JMESPath expression, found `1`"],
    );
    refused(
        r#"=> add(type="x", value=JmesPath(true, "a"));"#,
        expect!["line 3, column 33: expected a text that is JSON, found `true`"],
    );
    refused(
        r#"=> add(type="x", value=JsonToClaimValue("abc"));"#,
        expect![
            "line 3, column 41: expected a text that is JSON, found this is no JSON: expected value at line 1 column 1"
        ],
    );
    refused(
        r#"=> add(type="x", value=JsonToClaimValue("{\"a\":1,\"a\":2}"));"#,
        expect![[
            r#"line 3, column 41: expected a text that is JSON, found this is no JSON: member "a" stands there twice at line 1 column 13"#
        ]],
    );
    refused(
        r#"=> add(type="x", value=NegateBool("true"));"#,
        expect![[r#"line 3, column 35: expected true or false, found `"true"`"#]],
    );
    refused(
        r#"=> add(type="x", value=AppendString("true", 1));"#,
        expect!["line 3, column 45: expected a text, found `1`"],
    );
}

fn issued(rules: &str, claims: Vec<Claim>, expected: Expect) {
    let text = format!("version=1.2; authorizationrules {{ => permit(); }}; issuancerules {{\n{rules}\n}};");
    expected.assert_eq(&decision(&text, claims));
}

fn convert(json: &str, expected: Expect) {
    let rule = r#"c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value));"#;
    issued(rule, vec![Claim::of_service("json", json)], expected);
}

#[test]
fn json_becomes_claims_as_documented() {
    convert(
        "7",
        expect![[r#"
        permit
        r=7"#]],
    );
    convert(
        "7.0",
        expect![[r#"
        permit
        r=7"#]],
    );
    convert(
        "-9223372036854775808",
        expect![[r#"
        permit
        r=-9223372036854775808"#]],
    );
    convert(
        "9223372036854775808",
        expect![[
            r#"error policy line 2: JsonToClaimValue takes integers of 64 bits, not 9223372036854775808 (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
    convert(
        "7.5",
        expect![[
            r#"error policy line 2: JsonToClaimValue takes no fraction, and this is 7.5 (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
    convert("null", expect!["permit"]);
    convert("[]", expect!["permit"]);
    convert(
        "[1, null, \"a\", true, 1]",
        expect![[r#"
        permit
        r=1
        r="a"
        r=true
        r=1"#]],
    );
    convert(
        "[[1]]",
        expect![[
            r#"error policy line 2: JsonToClaimValue takes no array in an array (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
    convert(
        "[{}]",
        expect![[
            r#"error policy line 2: JsonToClaimValue takes no object (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
    convert(
        "{}",
        expect![[
            r#"error policy line 2: JsonToClaimValue takes no object (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
}

#[test]
fn what_is_no_json_becomes_no_claim() {
    convert(
        "abc",
        expect![[
            r#"error policy line 2: this is no JSON: expected value at line 1 column 1 (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
    convert(
        "",
        expect![[
            r#"error policy line 2: this is no JSON: EOF while parsing a value at line 1 column 0 (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
    convert(
        "1 2",
        expect![[
            r#"error policy line 2: this is no JSON: trailing characters at line 1 column 3 (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
    convert(
        &"[".repeat(200),
        expect![[
            r#"error policy line 2: this is no JSON: recursion limit exceeded at line 1 column 128 (rule: c:[type=="json"] => issue(type="r", value=JsonToClaimValue(c.value)))"#
        ]],
    );
}

#[test]
fn a_value_that_is_empty_or_a_set_is_no_single_value() {
    let json = || {
        vec![Claim::of_service("json", r#"{"n": null, "s": [1, 2], "o": [1]}"#), Claim::of_service("x", 1)]
    };
    let condition = |query: &str| {
        format!(
            r#"c:[type=="json"] && [type=="x", value==JsonToClaimValue(JmesPath(c.value, "{query}"))] => issue(type="r", value=true);"#
        )
    };
    issued(
        &condition("n"),
        json(),
        expect![[
            r#"error policy line 2: an empty value stands where one value is needed (rule: c:[type=="json"] && [type=="x", value==JsonToClaimValue(JmesPath(c.value, "n"))] => issue(type="r", value=true))"#
        ]],
    );
    issued(
        &condition("s"),
        json(),
        expect![[
            r#"error policy line 2: a set of 2 values stands where one value is needed (rule: c:[type=="json"] && [type=="x", value==JsonToClaimValue(JmesPath(c.value, "s"))] => issue(type="r", value=true))"#
        ]],
    );
    issued(
        &condition("o"),
        json(),
        expect![[r#"
        permit
        r=true"#]],
    );
    issued(
        r#"c:[type=="json"] => issue(type="r", value=ContainsOnlyValue(JsonToClaimValue(JmesPath(c.value, "s")), 1));
        c:[type=="json"] => issue(type="r", value=IsSubsetOf(JsonToClaimValue(JmesPath(c.value, "n")), 1));
        c:[type=="json"] => issue(type="r", value=ContainsOnlyValue(JsonToClaimValue(JmesPath(c.value, "n")), 1));"#,
        json(),
        expect![[r#"
            permit
            r=false
            r=true
            r=false"#]],
    );
}

#[test]
fn what_is_made_of_a_read_only_claim_is_read_only() {
    let claims = || {
        let pcrs = Claim::of_service("pcrs", r#"{"v": true, "q": "v", "t": "name"}"#).read_only();
        vec![pcrs, Claim::of_service("json", r#"{"v": 1}"#), Claim::of_service("query", "v").read_only()]
    };
    let rules = [
        (r#"c:[type=="pcrs"] => issue(type="r", value=JmesPath(c.value, "v"));"#, false),
        (
            r#"c:[type=="json"] && q:[type=="query"] => issue(type="r", value=JmesPath(c.value, q.value));"#,
            false,
        ),
        (r#"c:[type=="pcrs"] => issue(type="r", value=JsonToClaimValue(c.value));"#, false),
        (
            r#"c:[type=="pcrs"] => issue(type="r", value=NegateBool(JsonToClaimValue(JmesPath(c.value, "v"))));"#,
            false,
        ),
        (r#"c:[type=="pcrs"] => issue(type=JsonToClaimValue(JmesPath(c.value, "t")), value=1);"#, false),
        (
            r#"c:[type=="pcrs"] => add(type="r", value=JmesPath(c.value, "v")); c:[type=="r"] => issue(claim=c);"#,
            false,
        ),
        (
            r#"c:[type=="pcrs"] => add(type="r", value=c.value); c:[type=="r"] => issue(type="s", value=AppendString("", c.value));"#,
            false,
        ),
        (r#"c:[type=="pcrs"] => issue(type="r", value=ContainsOnlyValue(c.value, 1));"#, true),
        (r#"c:[type=="pcrs"] => issue(type="r", value=IsSubsetOf(c.value, 1));"#, true),
        (r#"c:[type=="pcrs"] && [type=="json"] => issue(type="r", value=1);"#, true),
    ];
    for (rule, allowed) in rules {
        let text = format!("version=1.2; authorizationrules {{ => permit(); }}; issuancerules {{ {rule} }};");
        let told = decision(&text, claims());
        assert_eq!(told.starts_with("permit"), allowed, "{rule}: {told}");
        // An object is no claim value, whatever its source; everything else that fails does so for being read-only.
        assert!(allowed || told.contains("read-only") || told.contains("takes no object"), "{rule}: {told}");
    }
}
