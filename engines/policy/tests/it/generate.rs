//! Policies and claims made of numbers, over few types and values, so that rules often match and often fail.

use policy::language::{Claim, ClaimValue};
use proptest::prelude::*;

/// A row of choices; where it ends, the first alternative is taken.
pub struct Choices {
    numbers: Vec<u32>,
    next: usize,
}

pub fn choices() -> impl Strategy<Value = Choices> {
    prop::collection::vec(any::<u32>(), 8..240).prop_map(|numbers| Choices { numbers, next: 0 })
}

impl std::fmt::Debug for Choices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let policy = Choices { numbers: self.numbers.clone(), next: 0 }.policy();
        write!(formatter, "{policy}")
    }
}

const QUERIES: [&str; 12] = [
    "a",
    "a[0]",
    "a[]",
    "b",
    "c",
    "d",
    "length(a)",
    "a[?@ > `1`]",
    "[c, d]",
    "a[*] | [-1]",
    "e.f || c",
    "equals_ignore_case(c, 'X')",
];

const DOCUMENTS: [&str; 7] = [
    r#"{"a":[1,2],"b":null,"c":"x","d":true}"#,
    r#"{"a":[],"c":"t1","e":{"f":2}}"#,
    "[1,null,true]",
    "2",
    "null",
    r#""t0""#,
    "[[1]]",
];

impl Choices {
    fn pick(&mut self, alternatives: usize) -> usize {
        let number = self.numbers.get(self.next).copied().unwrap_or_default();
        self.next += 1;
        number as usize % alternatives
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.pick(of.len())]
    }

    pub fn claims(&mut self) -> Vec<Claim> {
        (0..self.pick(7) + 1)
            .map(|_| {
                let claim = Claim::of_service(self.one(&["t0", "t1", "t2", "j"]), 0);
                let value = match self.pick(6) {
                    0 | 1 => ClaimValue::Integer(self.pick(3) as i64),
                    2 => ClaimValue::Boolean(self.pick(2) == 0),
                    3 => ClaimValue::from(self.one(&["x", "t1", "a"])),
                    _ => ClaimValue::from(self.one(&DOCUMENTS)),
                };
                let claim = Claim { value, ..claim };
                match self.pick(6) {
                    0 => claim.read_only(),
                    1 | 2 => Claim::of_client(claim.claim_type, claim.value),
                    _ => claim,
                }
            })
            .collect()
    }

    /// A policy with one rule a line.
    pub fn policy(&mut self) -> String {
        let mut text = "version=1.2; authorizationrules {\n".to_owned();
        for _ in 0..self.pick(6) {
            text += &self.rule(true);
        }
        text += "=> permit();\n}; issuancerules {\n";
        for _ in 0..self.pick(6) {
            text += &self.rule(false);
        }
        text + "};"
    }

    fn rule(&mut self, authorizing: bool) -> String {
        let mut names: Vec<&str> = Vec::new();
        let mut conditions = Vec::new();
        for name in ["a", "b", "c"].into_iter().take(self.pick(4)) {
            let kind = self.pick(4);
            let terms = self.terms(&names);
            conditions.push(match kind {
                0 => format!("![{terms}]"),
                1 => format!("[{terms}]"),
                _ => {
                    names.push(name);
                    format!("{name}:[{terms}]")
                }
            });
        }
        let action = self.action(authorizing, &names);
        format!("{} => {action};\n", conditions.join(" && "))
    }

    fn terms(&mut self, names: &[&str]) -> String {
        let mut terms = Vec::new();
        if self.pick(6) > 0 {
            terms.push(format!(
                "type{}\"{}\"",
                self.one(&["==", "=", "==", "!="]),
                self.one(&["t0", "t1", "t2", "j", "m"])
            ));
        }
        if terms.is_empty() || self.pick(2) == 0 {
            terms.push(match self.pick(5) {
                0 => format!("value{}{}", self.one(&["<", "<=", ">", ">="]), self.pick(3)),
                1 => format!(
                    "issuer{}\"{}\"",
                    self.one(&["==", "!="]),
                    self.one(&["AttestationService", "AttestationPolicy", "CustomClaim"])
                ),
                2 => format!("valueType=={}", self.one(&["\"Integer\"", "\"Boolean\"", "\"String\""])),
                _ => format!("value{}{}", self.one(&["==", "!="]), self.expression(names, 2)),
            });
        }
        terms.join(", ")
    }

    fn expression(&mut self, names: &[&str], depth: usize) -> String {
        let property = |choices: &mut Self, names: &[&str]| {
            let name = choices.one(names);
            let property = choices.one(&["value", "value", "value", "value", "type", "issuer", "valueType"]);
            format!("{name}.{property}")
        };
        match self.pick(if depth == 0 { 4 } else { 12 }) {
            0 => format!("{}", self.pick(3)),
            1 => self.one(&["true", "false"]).to_owned(),
            2 => self.one(&["\"x\"", "\"t1\"", "\"\""]).to_owned(),
            3..=5 if !names.is_empty() => property(self, names),
            6 => format!("AppendString({}, {})", self.text(names, depth), self.text(names, depth)),
            7 => format!("NegateBool({})", self.boolean(names, depth)),
            8 => format!(
                "IsSubsetOf({}, {})",
                self.expression(names, depth - 1),
                self.expression(names, depth - 1)
            ),
            9 => format!(
                "ContainsOnlyValue({}, {})",
                self.expression(names, depth - 1),
                self.expression(names, depth - 1)
            ),
            10 => format!("JsonToClaimValue({})", self.document(names)),
            11 => self.query(names),
            _ => "1".to_owned(),
        }
    }

    fn text(&mut self, names: &[&str], depth: usize) -> String {
        let expression = self.expression(names, depth.saturating_sub(1));
        let literal = expression.starts_with(|first: char| first.is_ascii_digit() || "tf".contains(first));
        if literal { "\"x\"".to_owned() } else { expression }
    }

    fn boolean(&mut self, names: &[&str], depth: usize) -> String {
        let expression = self.expression(names, depth.saturating_sub(1));
        let literal = expression.starts_with(|first: char| first.is_ascii_digit() || first == '"');
        if literal { "true".to_owned() } else { expression }
    }

    fn document(&mut self, names: &[&str]) -> String {
        match self.pick(4) {
            0 => format!("\"{}\"", self.one(&DOCUMENTS).replace('"', "\\\"")),
            1 => self.query(names),
            _ if !names.is_empty() => format!("{}.value", self.one(names)),
            _ => "\"[1,2]\"".to_owned(),
        }
    }

    fn query(&mut self, names: &[&str]) -> String {
        let document = match names {
            [] => format!("\"{}\"", self.one(&DOCUMENTS).replace('"', "\\\"")),
            names => format!("{}.value", self.one(names)),
        };
        match (self.pick(5), names) {
            (0, [_, ..]) => format!("JmesPath({document}, {}.value)", self.one(names)),
            _ => format!("JmesPath({document}, \"{}\")", self.one(&QUERIES)),
        }
    }

    fn action(&mut self, authorizing: bool, names: &[&str]) -> String {
        let claim_type = match self.pick(5) {
            0 => self.text(names, 1),
            _ => format!("\"{}\"", self.one(&["t0", "t1", "m"])),
        };
        let value = self.expression(names, 3);
        match (self.pick(6), authorizing) {
            (0, true) => "deny()".to_owned(),
            (1, true) => "permit()".to_owned(),
            (0, false) => "issueproperty(type=\"report_validity_in_minutes\", value=10)".to_owned(),
            (1 | 2, false) if !names.is_empty() => format!("issue(claim={})", self.one(names)),
            (3 | 4, false) => format!("issue(value={value}, type={claim_type})"),
            _ => format!("add(type={claim_type}, value={value})"),
        }
    }
}
