//! What an error repeats of a request. A private key that was put in the wrong place must not come back in an answer,
//! which callers log: a text that is too long to be a slip of the pen is told by its length.

/// Longest text that is repeated: longer than any name of a type, curve, operation or number, and shorter than a key.
const LONGEST: usize = 16;

/// A text from a request, in quotes if it is short.
pub fn text(text: &str) -> String {
    if text.len() <= LONGEST { format!("{text:?}") } else { format!("a text of {} bytes", text.len()) }
}

/// How a JSON error quotes the text that it did not expect, and what it says in place of a long one.
const QUOTES: [(&str, &str, &str); 2] =
    [("string \"", "\", expected ", "a long string"), ("variant `", "`, expected ", "variant")];

/// The message of a JSON error, without a long text that it quotes.
pub fn message(message: &str) -> String {
    let shortened = QUOTES.iter().find_map(|quote| without(message, *quote));
    shortened.unwrap_or_else(|| message.to_owned())
}

fn without(message: &str, (before, after, instead): (&str, &str, &str)) -> Option<String> {
    let (start, end) = (message.find(before)?, message.rfind(after)?);
    let long = message.get(start + before.len()..end)?.len() > LONGEST;
    long.then(|| format!("{}{instead}{}", &message[..start], &message[end + 1..]))
}

#[cfg(test)]
mod tests {
    use public_api::keys::KeyEncryption;

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
        let error =
            |value: &str| serde_json::from_value::<KeyEncryption>(value.into()).unwrap_err().to_string();
        assert_eq!(message(&error("RSA")), error("RSA"));
        let told = message(&error(&"a".repeat(17)));
        assert!(told.starts_with("unknown variant, expected one of `CKM_RSA_AES_KEY_WRAP`"), "{told}");
    }
}
