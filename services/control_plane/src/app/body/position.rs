//! Where in a JSON text a path stands: Azure's serialiser says line and position, and people look there.

/// `, line 3, position 14` for a path such as `properties.disks[0].name`, or nothing if it is not there.
pub(super) fn describe(text: &[u8], path: &str) -> String {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.find(&steps(path)) {
        Some(end) => {
            let before = &text[..end];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = end - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
            format!(", line {line}, position {column}")
        }
        None => String::new(),
    }
}

enum Step<'a> {
    Member(&'a str),
    Index(usize),
}

fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !name.is_empty() {
            steps.push(Step::Member(name));
        }
        let indexes = indexes.split(['[', ']']).filter_map(|text| text.parse().ok());
        steps.extend(indexes.map(Step::Index));
    }
    steps
}

/// Walks over text that was parsed before, so that it need not be checked again; gives up on anything odd.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn find(&mut self, steps: &[Step<'_>]) -> Option<usize> {
        let Some((first, rest)) = steps.split_first() else {
            self.skip_value()?;
            return Some(self.at);
        };
        match first {
            Step::Member(name) => self.enter_member(name, rest),
            Step::Index(index) => self.enter_element(*index, rest),
        }
    }

    fn enter_member(&mut self, name: &str, rest: &[Step<'_>]) -> Option<usize> {
        self.expect(b'{')?;
        loop {
            let key = self.string()?;
            let after_key = self.at;
            self.expect(b':')?;
            if key.eq_ignore_ascii_case(name) {
                return if rest.is_empty() && !self.is_scalar() { Some(after_key) } else { self.find(rest) };
            }
            self.skip_value()?;
            self.expect(b',')?;
        }
    }

    fn enter_element(&mut self, index: usize, rest: &[Step<'_>]) -> Option<usize> {
        self.expect(b'[')?;
        for _ in 0..index {
            self.skip_value()?;
            self.expect(b',')?;
        }
        self.find(rest)
    }

    fn is_scalar(&mut self) -> bool {
        self.skip_space();
        !matches!(self.text.get(self.at), Some(b'{' | b'['))
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.text.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn string(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.text.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let raw = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
        self.at += 1;
        Some(raw)
    }

    fn skip_value(&mut self) -> Option<()> {
        self.skip_space();
        match self.text.get(self.at)? {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.skip_nested(),
            _ => {
                while self.text.get(self.at).is_some_and(|byte| !b",]} \t\r\n".contains(byte)) {
                    self.at += 1;
                }
                Some(())
            }
        }
    }

    fn skip_nested(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.text.get(self.at)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_value_is_named() {
        let text = br#"{"location": "x",
 "properties": {"a": [1, {"b": "c]\"}"}, {"wrong": true}], "o": {}}}"#;
        assert_eq!(describe(text, "location"), ", line 1, position 16");
        assert_eq!(describe(text, "Properties.a[0]"), ", line 2, position 23");
        assert_eq!(describe(text, "properties.a[1].b"), ", line 2, position 38");
        assert_eq!(describe(text, "properties.a[2].wrong"), ", line 2, position 55");
        assert_eq!(describe(text, "properties.o"), ", line 2, position 62");
        assert_eq!(describe(text, "properties.missing"), "");
        assert_eq!(describe(text, "properties.a[7]"), "");
    }

    #[test]
    fn no_text_makes_it_fall_over() {
        for text in [&b""[..], b"{", b"{\"a", b"{\"a\\", b"[[[", b"{\"a\":}", b"}}}", b"]"] {
            for path in ["a", "a.b", "a[0]", "", "[3]", "a[99999999999999999999]"] {
                let _ = describe(text, path);
            }
        }
    }
}
