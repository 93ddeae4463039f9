//! Version order of boot entries: `strverscmp_improved` of systemd, as the UAPI group's Version Format Specification
//! describes it.

use std::cmp::Ordering;

/// Compares two versions; `Greater` is newer. A missing version is the empty text.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip_separators(a);
        b = skip_separators(b);
        for sign in *b"~-^." {
            match (strip(a, sign), strip(b, sign)) {
                (Some(_), None) => return Ordering::Less,
                (None, Some(_)) => return Ordering::Greater,
                (Some(rest_a), Some(rest_b)) => (a, b) = (rest_a, rest_b),
                (None, None) => {}
            }
            if sign == b'~' && (a.is_empty() || b.is_empty()) {
                return a.is_empty().cmp(&b.is_empty()).reverse();
            }
        }
        let digits = first(a).is_ascii_digit() || first(b).is_ascii_digit();
        let (run_a, run_b);
        (run_a, a) = run(a, digits);
        (run_b, b) = run(b, digits);
        let order = if digits { compare_numbers(run_a, run_b) } else { compare_text(run_a, run_b) };
        if order.is_ne() {
            return order;
        }
    }
}

fn first(text: &[u8]) -> u8 {
    text.first().copied().unwrap_or(0)
}

fn strip(text: &[u8], sign: u8) -> Option<&[u8]> {
    text.strip_prefix(&[sign])
}

/// Characters that are neither letters, digits nor signs only separate.
fn skip_separators(text: &[u8]) -> &[u8] {
    let count =
        text.iter().take_while(|byte| !byte.is_ascii_alphanumeric() && !b"~-^.".contains(byte)).count();
    text.get(count..).unwrap_or_default()
}

fn run(text: &[u8], digits: bool) -> (&[u8], &[u8]) {
    let belongs = |byte: &&u8| if digits { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
    text.split_at_checked(text.iter().take_while(belongs).count()).unwrap_or_default()
}

/// A run of digits against another; having none is older.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let plain = |run: &[u8]| -> Vec<u8> { run.iter().copied().skip_while(|byte| *byte == b'0').collect() };
    let (plain_a, plain_b) = (plain(a), plain(b));
    (!a.is_empty())
        .cmp(&!b.is_empty())
        .then(plain_a.len().cmp(&plain_b.len()))
        .then_with(|| plain_a.cmp(&plain_b))
}

fn compare_text(a: &[u8], b: &[u8]) -> Ordering {
    a.cmp(b)
}

#[cfg(test)]
mod tests {
    use super::compare;

    /// The examples of the Version Format Specification (UAPI.10).
    #[test]
    fn examples_of_the_specification() {
        for example in [
            "11 = 11",
            "systemd-123 = systemd-123",
            "bar-123 < foo-123",
            "123a > 123",
            "123.a > 123",
            "123.a < 123.b",
            "123a > 123.a",
            "11α = 11β",
            "A < a",
            " < 0",
            "0. > 0",
            "0.0 > 0",
            "0 > ~",
            " > ~",
            "1_ = 1",
            "_1 = 1",
            "1_ < 1.2",
            "1_2_3 > 1.3.3",
            "1+ = 1",
            "+1 = 1",
            "1+ < 1.2",
            "1+2+3 > 1.3.3",
            "6.12.9 < 6.12.10",
            "6.12~rc1 < 6.12",
            "6.12-1 > 6.12",
            "6.12-1 < 6.12.1",
            "6.12^1 > 6.12",
            "010 = 10",
        ] {
            let (a, rest) = example.split_once(' ').unwrap();
            let (order, b) = rest.split_once(' ').unwrap();
            let seen = match compare(a, b) {
                std::cmp::Ordering::Less => "<",
                std::cmp::Ordering::Equal => "=",
                std::cmp::Ordering::Greater => ">",
            };
            assert_eq!(seen, order, "{example}");
            assert_eq!(compare(b, a), compare(a, b).reverse(), "{example}");
        }
    }

    proptest::proptest! {
        #[test]
        fn comparison_ends_and_is_antisymmetric(a in "[0-9a-z~^.+_-]{0,12}", b in "[0-9a-z~^.+_-]{0,12}") {
            assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }
}
