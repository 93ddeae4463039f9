//! Firmware, shim, Debian's GRUB 2.12, and the kernel's own EFI stub.
//!
//! `grub.cfg` is a program, and each command that it executes is measured into PCR 8. Only configurations that are plain
//! data are predicted: `set`, `search` and `menuentry` with `linux` and `initrd`; no variables, conditions, functions or
//! modules.
//!
//! | PCR | events |
//! |---|---|
//! | 4, 5, 7, 14 | firmware and shim |
//! | 8 | each executed command; the kernel's path and arguments |
//! | 9 | `grub.cfg` twice, kernel file, initrd; then by the kernel's stub its load options (without a NUL) and the initrd |

use std::io::{Read, Seek};

use super::chain::{Chain, Image};
use super::{Context, Events, Initrd, Loader, PredictError, Prediction, firmware, systemd_boot, unsupported};
use crate::bytes::to_utf16le;
use crate::pcr::sha256;

/// The configuration that Debian's signed GRUB reads.
const CONFIG: &str = "EFI/debian/grub.cfg";

/// 8 pins the command line, 9 the configuration, kernel and initrd.
const SEAL: [u8; 5] = [4, 7, 8, 9, 15];

pub(super) fn predict<D: Read + Seek>(
    context: &Context<'_, D>,
    chain: &Chain,
) -> Result<Prediction, PredictError> {
    check_version(&chain.program)?;
    if !context.secure_boot.secure_boot || chain.shim.is_none() {
        return Err(unsupported("grub without secure boot or without shim"));
    }
    let source = context.esp.read(CONFIG)?.ok_or_else(|| PredictError::Missing(CONFIG.to_owned()))?;
    let text = std::str::from_utf8(&source).ok().filter(|text| text.is_ascii());
    let config =
        Config::parse(text.ok_or_else(|| unsupported(format!("{CONFIG} is not plain ascii text")))?)?;
    for search in &config.searches {
        check_search(context, search)?;
    }
    let entry = config.chosen()?;
    let kernel = Image::read(&context.esp, &entry.kernel)?;
    let release = systemd_boot::kernel_release(&kernel.data, &kernel.path)?;

    let mut events = Events::default();
    firmware::add_boot_events(&mut events, context, chain, Some(&kernel))?;
    firmware::add_partition_events(&mut events, context, None);
    for command in config.measured.iter().chain(&entry.measured()) {
        events.add(8, sha256(command.as_bytes()), format!("grub command: {command}"));
    }
    let file = sha256(&source);
    events.add(9, file, format!("{CONFIG}, opened"));
    events.add(9, file, format!("{CONFIG}, read"));
    events.add(9, sha256(&kernel.data), format!("kernel file {}", entry.kernel));
    let initrd =
        context.esp.sha256(&entry.initrd)?.ok_or_else(|| PredictError::Missing(entry.initrd.clone()))?;
    events.add(9, initrd, format!("initrd {}, by grub", entry.initrd));
    let options = format!("BOOT_IMAGE={}", entry.kernel_line());
    events.add(9, sha256(&to_utf16le(&options)), format!("load options by the kernel: {options}"));
    events.add(9, initrd, format!("initrd {}, by the kernel", entry.initrd));
    Ok(Prediction {
        loader: Loader::Grub,
        entry: entry.title.clone(),
        version: release.clone(),
        release,
        initrd: Initrd::Files(vec![entry.initrd.clone()]),
        options: entry.arguments.clone(),
        pcrs: events.values(&[15]),
        events: events.0,
        seal_pcrs: SEAL.to_vec(),
    })
}

/// The event model is that of Debian's GRUB 2.12.
fn check_version(program: &Image) -> Result<(), PredictError> {
    let pe = program.pe()?;
    let sbat = String::from_utf8_lossy(pe.section(".sbat").unwrap_or_default()).into_owned();
    let version = |component: &str| {
        let line = sbat.lines().find(|line| line.split(',').next() == Some(component))?;
        line.split(',').nth(4).map(str::to_owned)
    };
    match (version("grub"), version("grub.debian").or(version("grub.debian13"))) {
        (Some(version), Some(_)) if version == "2.12" => Ok(()),
        (version, _) => {
            let version = version.unwrap_or_default();
            Err(unsupported(format!("{} is not debian's grub 2.12 but {version}", program.path)))
        }
    }
}

/// Kernel and initrd are looked up where `search` points to; that must be the ESP.
fn check_search<D: Read + Seek>(context: &Context<'_, D>, search: &[&str]) -> Result<(), PredictError> {
    let mut target = None;
    let mut words = search.iter();
    while let Some(word) = words.next() {
        match *word {
            "--no-floppy" | "--set=root" => {}
            "--set" => drop(words.next().filter(|name| **name == "root")),
            "--label" | "--fs-uuid" | "--file" | "-l" | "-u" | "-f" => {
                let value = words.next().copied().unwrap_or_default();
                let found = match word.trim_start_matches('-').chars().next() {
                    Some('l') => context.esp.volume_label() == value,
                    Some('f') if *word != "--fs-uuid" => context.esp.exists(value)?,
                    _ => context.esp.volume_id().eq_ignore_ascii_case(value),
                };
                target = Some(found);
            }
            other => return Err(unsupported(format!("{CONFIG} uses search with {other}"))),
        }
    }
    match target {
        Some(true) => Ok(()),
        _ => Err(unsupported(format!("{CONFIG} searches for another file system than the esp"))),
    }
}

struct MenuEntry {
    title: String,
    kernel: String,
    arguments: String,
    initrd: String,
}

impl MenuEntry {
    /// Path and arguments as the kernel line has them.
    fn kernel_line(&self) -> String {
        format!("{} {}", self.kernel, self.arguments).trim_end().to_owned()
    }

    /// What is measured when the entry is started.
    fn measured(&self) -> Vec<String> {
        let line = self.kernel_line();
        vec![
            format!("setparams {}", self.title),
            format!("linux {line}"),
            line,
            format!("initrd {}", self.initrd),
        ]
    }
}

/// A `grub.cfg` of plain data.
struct Config<'a> {
    /// Commands measured while the file is executed.
    measured: Vec<String>,
    searches: Vec<Vec<&'a str>>,
    default: &'a str,
    entries: Vec<MenuEntry>,
}

impl<'a> Config<'a> {
    fn parse(text: &'a str) -> Result<Self, PredictError> {
        let mut config =
            Self { measured: Vec::new(), searches: Vec::new(), default: "0", entries: Vec::new() };
        let mut rest = text;
        while !rest.is_empty() {
            let (line, behind) = rest.split_once('\n').unwrap_or((rest, ""));
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["menuentry", ..] => {
                    rest = config.menu_entry(rest)?;
                    continue;
                }
                ["set", assignment] => config.assignment(plain(assignment)?)?,
                ["search", arguments @ ..] => {
                    plain(line)?;
                    config.searches.push(arguments.to_vec());
                    config.measured.push(words.join(" "));
                }
                [command, ..] => return Err(unsupported(format!("{CONFIG} uses the command {command}"))),
            }
            rest = behind;
        }
        Ok(config)
    }

    fn assignment(&mut self, assignment: &'a str) -> Result<(), PredictError> {
        match assignment.split_once('=') {
            Some(("default", value)) => self.default = value,
            Some(("timeout" | "timeout_style", _)) => {}
            _ => return Err(unsupported(format!("{CONFIG} sets {assignment}"))),
        }
        self.measured.push(format!("set {assignment}"));
        Ok(())
    }

    /// Reads `menuentry 'title' {` and its body; returns what follows.
    fn menu_entry(&mut self, text: &'a str) -> Result<&'a str, PredictError> {
        let malformed = || unsupported(format!("{CONFIG} has a menuentry that is not plain"));
        let (head, behind) = text.split_once('{').ok_or_else(malformed)?;
        let (body, behind) = behind.split_once('}').ok_or_else(malformed)?;
        let (_, title) = head.trim().split_once(' ').ok_or_else(malformed)?;
        let title = title.trim();
        let quoted = [('\'', '\''), ('"', '"')]
            .into_iter()
            .find_map(|(open, close)| title.strip_prefix(open)?.strip_suffix(close));
        let title = plain(quoted.unwrap_or(title))?;
        if (quoted.is_none() && title.contains(' '))
            || !behind.starts_with(['\n', '\r']) && !behind.is_empty()
        {
            return Err(malformed());
        }
        let (mut kernel, mut initrd) = (None, None);
        for line in body.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, arguments) = line.split_once(' ').ok_or_else(malformed)?;
            let words: Vec<&str> = plain(arguments)?.split_ascii_whitespace().collect();
            match (command, words.as_slice()) {
                ("linux", [path, arguments @ ..]) if kernel.is_none() => {
                    kernel = Some((*path, arguments.join(" ")))
                }
                ("initrd", [path]) if kernel.is_some() && initrd.is_none() => initrd = Some(*path),
                _ => return Err(unsupported(format!("{CONFIG} has {command} in a menuentry"))),
            }
        }
        let ((kernel, arguments), initrd) = kernel.zip(initrd).ok_or_else(malformed)?;
        if ![kernel, initrd].iter().all(|path| path.starts_with('/') && !path.contains("..")) {
            return Err(malformed());
        }
        self.measured.push(format!("menuentry {title} {{{body}}}"));
        let (kernel, initrd) = (kernel.to_owned(), initrd.to_owned());
        self.entries.push(MenuEntry { title: title.to_owned(), kernel, arguments, initrd });
        Ok(behind)
    }

    fn chosen(&self) -> Result<&MenuEntry, PredictError> {
        let by_number = self.default.parse().ok().and_then(|number: usize| self.entries.get(number));
        let by_title = || self.entries.iter().find(|entry| entry.title == self.default);
        by_number.or_else(by_title).ok_or(PredictError::NoEntry)
    }
}

/// Refuses everything that GRUB's shell would not take literally.
fn plain(text: &str) -> Result<&str, PredictError> {
    match text.chars().find(|c| "'\"\\$;|&<>{}()[]#*?".contains(*c)) {
        Some(character) => Err(unsupported(format!("{CONFIG} has the character {character}"))),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "set timeout=0\nset default=0\nsearch --no-floppy --label LABESP --set=root\n\
        menuentry 'Debian' {\n linux /vmlinuz root=/dev/vda2 ro\n initrd /initrd.img\n}\n";

    #[test]
    fn commands_are_measured_as_grub_prints_them() {
        let config = Config::parse(PLAIN).unwrap();
        let measured: Vec<String> =
            config.measured.iter().cloned().chain(config.chosen().unwrap().measured()).collect();
        assert_eq!(
            measured,
            [
                "set timeout=0",
                "set default=0",
                "search --no-floppy --label LABESP --set=root",
                "menuentry Debian {\n linux /vmlinuz root=/dev/vda2 ro\n initrd /initrd.img\n}",
                "setparams Debian",
                "linux /vmlinuz root=/dev/vda2 ro",
                "/vmlinuz root=/dev/vda2 ro",
                "initrd /initrd.img",
            ]
        );
    }

    #[test]
    fn configuration_that_is_a_program_is_refused() {
        for addition in [
            "insmod ext2\n",
            "if true; then\n",
            "set root=$prefix\n",
            "set pager=1\n",
            "source /other.cfg\n",
            "menuentry 'x' {\n linux /a $b\n initrd /c\n}\n",
            "menuentry 'x' {\n linux /a\n}\n",
            "menuentry 'x' {\n chainloader /a\n}\n",
            "menuentry 'x' {\n linux /../a\n initrd /c\n}\n",
            "menuentry 'x' {\n linux /a\n initrd /c\n} evil\n",
        ] {
            assert!(Config::parse(&format!("{PLAIN}{addition}")).is_err(), "{addition}");
        }
    }

    #[test]
    fn default_entry_is_taken_by_number_or_title() {
        let second = "menuentry 'Old' {\n linux /old\n initrd /old.img\n}\n";
        let chosen = |default: &str| {
            let text = format!("{PLAIN}{second}set default={default}\n");
            Config::parse(&text).unwrap().chosen().map(|entry| entry.title.clone()).ok()
        };
        assert_eq!(chosen("1").as_deref(), Some("Old"));
        assert_eq!(chosen("Old").as_deref(), Some("Old"));
        assert_eq!(chosen("2"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text in "[ -~\\n]{0,120}") {
            let _ = Config::parse(&text);
            let _ = Config::parse(&format!("menuentry {text}"));
        }
    }
}
