//! Paths and queries: matched without regard to case, values kept as they were written.

use std::collections::BTreeMap;

/// The values of a pattern's `{names}`.
pub type Parameters = Vec<(&'static str, String)>;

/// Matches a path against a pattern such as `/subscriptions/{sub}/locations`; returns the values of its `{names}`.
pub fn matches(pattern: &'static str, path: &str) -> Option<Parameters> {
    let mut parameters = Vec::new();
    let mut given = path.trim_end_matches('/').split('/');
    for wanted in pattern.split('/') {
        let segment = given.next()?;
        match wanted.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(_) if segment.is_empty() => return None,
            Some(name) => parameters.push((name, decode(segment)?)),
            None if wanted.eq_ignore_ascii_case(segment) => {}
            None => return None,
        }
    }
    given.next().is_none().then_some(parameters)
}

/// Whether a path belongs to Resource Manager, so that even its mistakes are told to signed-in callers only.
pub fn is_resource_manager(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    ["subscriptions", "providers", "tenants"].iter().any(|word| word.eq_ignore_ascii_case(first))
}

/// Query parameters by their names in lower case; the first of a name counts.
pub fn query(text: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        parameters.entry(name.to_ascii_lowercase()).or_insert_with(|| value.into_owned());
    }
    parameters
}

/// Percent-decodes a segment; nothing if it is not UTF-8 or holds a control character or an encoded slash.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    let text = String::from_utf8(bytes).ok()?;
    let odd = |c: char| c.is_control() || c == '/' || c == '\\';
    (!text.chars().any(odd)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str =
        "/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{vm}";

    #[test]
    fn case_and_escapes_do_not_matter_but_values_are_kept() {
        let path =
            "/SUBSCRIPTIONS/0/resourcegroups/My%20Group/providers/microsoft.compute/VirtualMachines/Vm1/";
        let found = matches(VM, path).unwrap();
        assert_eq!(found, [("sub", "0".into()), ("group", "My Group".into()), ("vm", "Vm1".into())]);
    }

    #[test]
    fn other_lengths_and_bad_escapes_do_not_match() {
        let base = "/subscriptions/0/resourceGroups/g/providers/Microsoft.Compute/virtualMachines";
        for tail in ["", "/", "/a/b", "/%", "/%4", "/%zz", "/%00", "/a%2Fb", "/%ff", "//"] {
            assert_eq!(matches(VM, &format!("{base}{tail}")), None, "{tail}");
        }
    }

    #[test]
    fn the_first_of_a_query_name_counts() {
        let parameters = query("API-Version=1&api-version=2&$filter=a%20eq%20'b'");
        assert_eq!(parameters["api-version"], "1");
        assert_eq!(parameters["$filter"], "a eq 'b'");
    }
}
