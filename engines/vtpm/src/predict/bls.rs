//! systemd-boot's menu: Boot Loader Specification type #1 entries, `loader.conf`, their order and the default.

use std::cmp::Ordering;
use std::io::{Read, Seek};

use super::{PredictError, unsupported, version};
use crate::esp::Esp;
use crate::vars::LoaderVars;

const ENTRIES: &str = "loader/entries";
/// `loader/loader.conf`.
pub(super) const LOADER_CONF: &str = "loader/loader.conf";

/// A boot entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BootEntry {
    /// File name in lower case, without boot counters.
    pub id: String,
    pub sort_key: Option<String>,
    pub machine_id: String,
    pub version: String,
    /// Options of all `options` lines, joined by blanks.
    pub options: String,
    pub linux: Option<String>,
    pub initrds: Vec<String>,
    /// Keys that would change the boot in ways that are not modelled.
    pub other_keys: Vec<String>,
    tries_left: Option<u64>,
    tries_done: u64,
}

/// Reads all entries in systemd-boot's order.
pub(super) fn entries<D: Read + Seek>(esp: &Esp<'_, D>) -> Result<Vec<BootEntry>, PredictError> {
    refuse_unified_images(esp)?;
    let mut entries = Vec::new();
    for file in esp.list(ENTRIES)?.unwrap_or_default() {
        let name = file.name.to_ascii_lowercase();
        if file.directory || name.starts_with('.') || name.starts_with("auto-") || !name.ends_with(".conf") {
            continue;
        }
        let content = esp.read(&format!("{ENTRIES}/{}", file.name))?.unwrap_or_default();
        let entry = parse_entry(&name, &text(&content, &name)?)?;
        let Some(linux) = entry.linux.as_ref().filter(|_| runs_here(&entry)) else { continue };
        if esp.exists(linux)? {
            entries.push(entry);
        }
    }
    entries.sort_by(order);
    Ok(entries)
}

/// `architecture` lines of other machines hide an entry.
fn runs_here(entry: &BootEntry) -> bool {
    !entry.other_keys.iter().any(|key| key == "architecture of another machine")
}

/// Type #2 entries join the menu by themselves, whatever `loader.conf` says.
fn refuse_unified_images<D: Read + Seek>(esp: &Esp<'_, D>) -> Result<(), PredictError> {
    let files = esp.list("EFI/Linux")?.unwrap_or_default();
    match files.iter().find(|file| file.name.to_ascii_lowercase().ends_with(".efi")) {
        Some(file) => Err(PredictError::UnifiedImage(format!("EFI/Linux/{}", file.name))),
        None => Ok(()),
    }
}

fn text(content: &[u8], name: &str) -> Result<String, PredictError> {
    let content = std::str::from_utf8(content).ok().filter(|text| text.is_ascii());
    let content = content.ok_or_else(|| unsupported(format!("{name} is not plain ascii text")))?;
    // systemd-boot reads a file up to its first NUL.
    Ok(content.split('\0').next().unwrap_or_default().to_owned())
}

/// Key and value of each line, as `line_get_key_value` takes them apart.
fn lines<'a>(text: &'a str, separators: &'a [char]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let blank = [' ', '\t'];
    text.split(['\n', '\r']).map(move |line| line.trim_matches(blank)).filter_map(move |line| {
        if line.starts_with('#') {
            return None;
        }
        let (key, value) = line.split_once(separators)?;
        let value = value.trim_start_matches(separators);
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some((key, unquoted.unwrap_or(value)))
    })
}

fn parse_entry(file_name: &str, text: &str) -> Result<BootEntry, PredictError> {
    let (id, tries_left, tries_done) = boot_counters(file_name);
    let mut entry = BootEntry { id, tries_left, tries_done, ..BootEntry::default() };
    for (key, value) in lines(text, &[' ', '\t']) {
        let value = value.to_owned();
        match key {
            "title" => {}
            "sort-key" => entry.sort_key = Some(value),
            "machine-id" => entry.machine_id = value,
            "version" => entry.version = value,
            "options" if entry.options.is_empty() => entry.options = value,
            "options" => entry.options = format!("{} {value}", entry.options),
            "linux" => entry.linux = Some(efi_path(&value, file_name)?),
            "initrd" => entry.initrds.push(efi_path(&value, file_name)?),
            "architecture" if !value.eq_ignore_ascii_case("x64") => {
                entry.other_keys.push("architecture of another machine".to_owned());
            }
            "architecture" => {}
            "efi" | "uki" | "uki-url" | "profile" | "devicetree" | "devicetree-overlay" | "extra" => {
                entry.other_keys.push(key.to_owned());
            }
            _ => {}
        }
    }
    Ok(entry)
}

/// A path with single separators `/`.
fn efi_path(value: &str, file_name: &str) -> Result<String, PredictError> {
    if !value.starts_with(['/', '\\']) {
        return Err(unsupported(format!("{file_name} has the relative path {value}")));
    }
    let parts: Vec<&str> = value.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(unsupported(format!("{file_name} has the path {value}")));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Splits `name+LEFT-DONE.conf` into `name.conf` and the two counters.
fn boot_counters(file_name: &str) -> (String, Option<u64>, u64) {
    let plain = || (file_name.to_owned(), None, 0);
    let Some(stem) = file_name.strip_suffix(".conf") else { return plain() };
    let Some((name, counters)) = stem.rsplit_once('+') else { return plain() };
    let (left, done) = counters.split_once('-').unwrap_or((counters, "0"));
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match (number(left), number(done)) {
        (Some(left), Some(done)) => (format!("{name}.conf"), Some(left), done),
        _ => plain(),
    }
}

/// `boot_entry_compare`: the order of the menu.
fn order(a: &BootEntry, b: &BootEntry) -> Ordering {
    let spent = |entry: &BootEntry| entry.tries_left == Some(0);
    let by_key = || match (&a.sort_key, &b.sort_key) {
        (Some(key_a), Some(key_b)) => key_a
            .cmp(key_b)
            .then_with(|| a.machine_id.cmp(&b.machine_id))
            .then_with(|| version::compare(&b.version, &a.version)),
        _ => Ordering::Equal,
    };
    let by_tries = || match (a.tries_left, b.tries_left) {
        (Some(left_a), Some(left_b)) => left_b.cmp(&left_a).then(a.tries_done.cmp(&b.tries_done)),
        _ => Ordering::Equal,
    };
    spent(a)
        .cmp(&spent(b))
        .then(a.sort_key.is_none().cmp(&b.sort_key.is_none()))
        .then_with(by_key)
        .then_with(|| version::compare(&b.id, &a.id))
        .then_with(by_tries)
}

/// The entry that is started when nobody touches the menu.
pub(super) fn default_entry<D: Read + Seek>(
    esp: &Esp<'_, D>,
    vars: &LoaderVars,
) -> Result<BootEntry, PredictError> {
    if vars.entry_preferred.is_some() {
        return Err(unsupported("the variable LoaderEntryPreferred is set"));
    }
    let entries = entries(esp)?;
    let config = esp.read(LOADER_CONF)?.map(|content| text(&content, LOADER_CONF)).transpose()?;
    let configured = configured_default(config.as_deref().unwrap_or_default())?;
    let saved = |pattern: Option<String>| match pattern.as_deref() {
        Some("@saved") => vars.entry_last_booted.clone(),
        _ => pattern,
    };
    let patterns = [vars.entry_one_shot.clone(), saved(vars.entry_default.clone()), saved(configured)];
    let chosen = patterns.into_iter().flatten().find_map(|pattern| {
        let pattern = pattern.to_lowercase();
        entries.iter().find(|entry| matches(&pattern, &entry.id))
    });
    let entry = chosen.or(entries.first()).cloned().ok_or(PredictError::NoEntry)?;
    match entry.other_keys.first() {
        Some(key) => Err(unsupported(format!("{} uses the key {key}", entry.id))),
        None => Ok(entry),
    }
}

fn configured_default(config: &str) -> Result<Option<String>, PredictError> {
    let mut found = None;
    for (key, value) in lines(config, &[' ', '\t']) {
        match key {
            "default" if value.starts_with('@') && !value.eq_ignore_ascii_case("@saved") => {}
            "default" if value.starts_with('@') => found = Some("@saved".to_owned()),
            "default" => found = Some(value.to_owned()),
            "preferred" => return Err(unsupported("loader.conf uses the key preferred")),
            _ => {}
        }
    }
    Ok(found)
}

/// systemd-boot's `efi_fnmatch`: `*`, `?`, `[a-z]` and `\` as escape, over ASCII text.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // Where to go on when what follows the last star does not fit: behind the star, one byte later.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(behind) = pattern.strip_prefix(b"*") {
            pattern = behind;
            retry = Some((behind, text));
            continue;
        }
        let step = match text.split_first() {
            None if pattern.is_empty() => return true,
            None => return false,
            Some((byte, rest)) => one(pattern, *byte).map(|behind| (behind, rest)),
        };
        match (step, retry) {
            (Some(next), _) => (pattern, text) = next,
            (None, Some((behind, [_, later @ ..]))) => {
                (pattern, text) = (behind, later);
                retry = Some((behind, later));
            }
            (None, _) => return false,
        }
    }
}

/// The pattern behind its first element, if that element accepts the byte.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => class(rest, byte).and_then(|(inside, rest)| inside.then_some(rest)),
        [b'\\', escaped, rest @ ..] if *escaped == byte => Some(rest),
        [b'\\', ..] => None,
        [literal, rest @ ..] if *literal == byte => Some(rest),
        _ => None,
    }
}

/// Whether a byte is in the class that begins here, and the pattern behind the class.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let close = pattern.iter().skip(1).position(|other| *other == b']')? + 1;
    let (members, rest) = pattern.split_at_checked(close)?;
    let mut members = members;
    let mut inside = false;
    while let Some((low, more)) = members.split_first() {
        match more {
            [b'-', high, after @ ..] => {
                inside |= (*low..=*high).contains(&byte);
                members = after;
            }
            _ => {
                inside |= *low == byte;
                members = more;
            }
        }
    }
    Some((inside, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_the_loader() {
        for (pattern, text, expected) in [
            ("debian-*.conf", "debian-6.12.conf", true),
            ("debian-*.conf", "debian-999.efi", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[0-9]c", "a5c", true),
            ("a[0-9]c", "axc", false),
            ("a[]b]c", "a]c", true),
            ("a[b", "ab", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_pattern_ends() {
        assert!(!matches(&"*a".repeat(30), &"a".repeat(29)));
    }

    #[test]
    fn boot_counters_are_taken_off() {
        assert_eq!(boot_counters("a+3.conf"), ("a.conf".into(), Some(3), 0));
        assert_eq!(boot_counters("a+2-1.conf"), ("a.conf".into(), Some(2), 1));
        assert_eq!(boot_counters("6.12+deb13-cloud.conf"), ("6.12+deb13-cloud.conf".into(), None, 0));
    }

    #[test]
    fn entry_lines_are_read_as_by_the_loader() {
        let text =
            "  title \"A\"\r\n#linux /no\nlinux\t/a//b\noptions one\noptions  \"two three\" \ninitrd \\c\n";
        let entry = parse_entry("x.conf", text).unwrap();
        assert_eq!(entry.linux.as_deref(), Some("/a/b"));
        assert_eq!(entry.options, "one two three");
        assert_eq!(entry.initrds, ["/c"]);
    }

    #[test]
    fn path_out_of_the_partition_is_refused() {
        assert!(parse_entry("x.conf", "linux /a/../b\n").is_err());
        assert!(parse_entry("x.conf", "linux a\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text in "[ -~\n\t]{0,200}", pattern in "[a-c*?\\[\\]\\\\-]{0,10}", id in "[a-c]{0,8}") {
            let _ = parse_entry("x.conf", &text);
            let _ = configured_default(&text);
            let _ = matches(&pattern, &id);
        }
    }
}
