//! What an error repeats of a request. A private key that was put in the wrong place must not come back in an answer,
//! which callers log: a text that is too long to be a slip of the pen is told by its length.

/// Longest text that is repeated: longer than any name of a type, curve, operation or number, and shorter than a key.
const LONGEST: usize = 16;

/// A text from a request, in quotes if it is short.
pub fn text(text: &str) -> String {
    if text.len() <= LONGEST { format!("{text:?}") } else { format!("a text of {} bytes", text.len()) }
}

/// The message of a JSON error, which quotes the string that it did not expect.
pub fn message(message: &str) -> String {
    const BEFORE: &str = "string \"";
    const AFTER: &str = "\", expected ";
    let quoted = message.find(BEFORE).zip(message.rfind(AFTER));
    match quoted
        .map(|(start, end)| (&message[..start], message.get(start + BEFORE.len()..end), &message[end + 1..]))
    {
        Some((before, Some(long), after)) if long.len() > LONGEST => format!("{before}a long string{after}"),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_repeated_and_long_ones_are_not() {
        assert_eq!(text("RSA-"), "\"RSA-\"");
        assert_eq!(text(&"x".repeat(17)), "a text of 17 bytes");
        let error = |value: &str| serde_json::from_value::<u32>(value.into()).unwrap_err().to_string();
        assert_eq!(message(&error("2048")), error("2048"));
        for long in ["a".repeat(17), "\"quotes\", expected and so on".to_owned(), "\", expected ".repeat(4)] {
            assert_eq!(message(&error(&long)), "invalid type: a long string, expected u32");
        }
        assert_eq!(message("missing field `kty`"), "missing field `kty`");
    }
}
