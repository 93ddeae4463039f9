//! What an event log proves about a boot, once it has replayed to quoted PCRs.
//!
//! Then its digests are genuine and in order. Nothing else is: the guest hands in the log, so it can write what it likes
//! into an event's data and type, and it can extend PCRs and append events after the boot. So
//! - data counts only as far as the digest covers it ([`proven`]);
//! - an event's type decides nothing;
//! - Secure Boot's variables are read from the events of PCR 7 before its first separator, which firmware extends before
//!   it starts anything ([`secure_boot`]).

use thiserror::Error;

use crate::bytes::Cursor;
use crate::event_log::{Event, EventLog};
use crate::guid::{GLOBAL, Guid, IMAGE_SECURITY};
use crate::pcr::{Digest, sha256};
use crate::vars::SecureBootState;

/// The PCR of Secure Boot.
const PCR_SECURE_BOOT: u8 = 7;
/// The PCR of started programs.
const PCR_PROGRAMS: u8 = 4;
/// Prefixes that GRUB writes in front of what it hashed.
const GRUB_PREFIXES: [&[u8]; 3] = [b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: "];
/// The longest text that is taken for one.
const MAX_TEXT: usize = 8192;

/// UEFI_VARIABLE_DATA (TCG PC Client Platform Firmware Profile, section 10.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EfiVariable<'a> {
    /// Vendor GUID.
    pub guid: Guid,
    /// UTF-16LE, as measured.
    name: &'a [u8],
    /// Content.
    pub data: &'a [u8],
}

impl<'a> EfiVariable<'a> {
    /// Parses a whole structure; `None` where it has another length than it states.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let guid = Guid(cursor.array()?);
        let (characters, length) = (cursor.le64()?, cursor.le64()?);
        let name = cursor.take(usize::try_from(characters).ok()?.checked_mul(2)?)?;
        let data = cursor.take(usize::try_from(length).ok()?)?;
        cursor.is_empty().then_some(Self { guid, name, data })
    }

    /// Its name; `None` where that is no UTF-16.
    pub fn name(&self) -> Option<String> {
        crate::bytes::utf16le(self.name)
    }

    fn is(&self, guid: &Guid, name: &str) -> bool {
        self.guid == *guid && self.name == crate::bytes::to_utf16le(name)
    }
}

/// How much of an event's data its digest covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proven<'a> {
    /// All of it, and it is a variable.
    Variable(EfiVariable<'a>),
    /// All of it, or all behind a loader's prefix, and it is text.
    Text(String),
    /// All of it.
    Bytes(&'a [u8]),
    /// The content of a variable; its name is not covered.
    Content(&'a [u8]),
    /// Nothing.
    Nothing,
}

/// What an event's digest proves of its data. The event's type is not asked.
pub fn proven(event: &Event) -> Proven<'_> {
    let data = event.data.as_slice();
    if sha256(data) == event.digest {
        return EfiVariable::parse(data)
            .map(Proven::Variable)
            .or_else(|| text(data).map(Proven::Text))
            .unwrap_or(Proven::Bytes(data));
    }
    if let Some(variable) = EfiVariable::parse(data).filter(|found| sha256(found.data) == event.digest) {
        return Proven::Content(variable.data);
    }
    behind_prefix(event).map_or(Proven::Nothing, Proven::Text)
}

/// GRUB hashes the text behind its prefix, without the zero at its end.
fn behind_prefix(event: &Event) -> Option<String> {
    let behind = GRUB_PREFIXES.iter().find_map(|prefix| event.data.strip_prefix(*prefix))?;
    let behind = behind.strip_suffix(b"\0").unwrap_or(behind);
    if sha256(behind) == event.digest { text(behind) } else { None }
}

/// Printable text in UTF-8 or UTF-16LE of at least four characters, zeros at its end dropped.
fn text(data: &[u8]) -> Option<String> {
    if data.len() > MAX_TEXT {
        return None;
    }
    let narrow = std::str::from_utf8(data).ok().map(str::to_owned);
    let wide = || crate::bytes::utf16le(data);
    let readable = |text: String| {
        let text = text.trim_end_matches('\0');
        let good = text.len() >= 4 && !text.contains(|letter: char| letter.is_control());
        good.then(|| text.to_owned())
    };
    narrow.and_then(readable).or_else(|| wide().and_then(readable))
}

/// Whether an event is a separator (EV_SEPARATOR over four zeros), by its digest.
fn is_separator(event: &Event) -> bool {
    event.digest == sha256(&[0; 4])
}

/// Why Secure Boot's state cannot be told.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SecureBootUnknown {
    /// No separator in PCR 7: firmware did not finish measuring it.
    #[error("pcr 7 has no separator")]
    NoSeparator,
    /// An event whose data its digest does not cover.
    #[error("event {0} of the log, in pcr 7 before the separator, has data that its digest does not cover")]
    Unproven(usize),
    /// The variables are not those of the specification, in its order.
    #[error("pcr 7 begins with {found} where the variable {expected} is expected")]
    Order {
        /// The variable.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// `SecureBoot` is neither 0 nor 1.
    #[error("the variable SecureBoot has the value {0}")]
    Value(String),
}

/// The variables that firmware measures first, in their order (Firmware Profile, section 3.3.4.8).
const VARIABLES: [(&Guid, &str); 5] = [
    (&GLOBAL, "SecureBoot"),
    (&GLOBAL, "PK"),
    (&GLOBAL, "KEK"),
    (&IMAGE_SECURITY, "db"),
    (&IMAGE_SECURITY, "dbx"),
];

/// Secure Boot's state and databases as firmware measured them before it started anything.
///
/// The log must have replayed to a quoted PCR 7.
///
/// # Errors
/// [`SecureBootUnknown`].
pub fn secure_boot(log: &EventLog) -> Result<SecureBootState, SecureBootUnknown> {
    let events: Vec<&Event> = log.of_pcr(PCR_SECURE_BOOT).collect();
    let end = events.iter().position(|event| is_separator(event)).ok_or(SecureBootUnknown::NoSeparator)?;
    let mut variables = Vec::new();
    for event in events.iter().take(end) {
        match proven(event) {
            Proven::Variable(variable) => variables.push(variable),
            _ => return Err(SecureBootUnknown::Unproven(event.number)),
        }
    }
    check_order(&variables)?;
    let content = |name: &str| variables.iter().find(|found| found.name().as_deref() == Some(name));
    let bytes = |name: &str| content(name).map(|variable| variable.data.to_vec()).unwrap_or_default();
    let secure_boot = match bytes("SecureBoot").as_slice() {
        [0] => false,
        [1] => true,
        other => return Err(SecureBootUnknown::Value(hex::encode(other.get(..8).unwrap_or(other)))),
    };
    Ok(SecureBootState {
        secure_boot,
        pk: bytes("PK"),
        kek: bytes("KEK"),
        db: bytes("db"),
        dbx: bytes("dbx"),
        dbt: content("dbt").map(|variable| variable.data.to_vec()),
        dbr: content("dbr").map(|variable| variable.data.to_vec()),
    })
}

fn check_order(variables: &[EfiVariable<'_>]) -> Result<(), SecureBootUnknown> {
    for (place, (guid, expected)) in VARIABLES.iter().enumerate() {
        let found = variables.get(place);
        if !found.is_some_and(|variable| variable.is(guid, expected)) {
            let found = found.map_or("the separator".to_owned(), |variable| {
                format!("variable {}", variable.name().unwrap_or_default())
            });
            return Err(SecureBootUnknown::Order { expected, found });
        }
    }
    Ok(())
}

/// Who vouched for the programs that were started: the variables that PCR 7 got after its separator. What vouched for the
/// boot is among them; the guest can have added others later.
pub fn authorities(log: &EventLog) -> Vec<EfiVariable<'_>> {
    let behind = log.of_pcr(PCR_SECURE_BOOT).skip_while(|event| !is_separator(event));
    behind
        .filter_map(|event| match proven(event) {
            Proven::Variable(variable) => Some(variable),
            _ => None,
        })
        .collect()
}

/// Digests of the programs in PCR 4 (Authenticode), in the order of their start: its events whose data is not covered.
/// Which program a digest is, the log cannot prove.
pub fn programs(log: &EventLog) -> Vec<Digest> {
    let unproven = log.of_pcr(PCR_PROGRAMS).filter(|event| proven(event) == Proven::Nothing);
    unproven.map(|event| event.digest).collect()
}

/// The kernel's command line, where a loader measured it: GRUB's first `linux` command in PCR 8, or the first event of
/// PCR 12 by systemd-boot and its stub. `attested` are the PCRs to which the log replayed.
pub fn kernel_command_line(log: &EventLog, attested: &[u8]) -> Option<String> {
    let texts = |pcr: u8| {
        let events = log.of_pcr(pcr).filter(move |_| attested.contains(&pcr));
        events.map(|event| match proven(event) {
            Proven::Text(text) => Some(text),
            _ => None,
        })
    };
    let command = |text: &String| text.starts_with("linux ") || text.starts_with("linuxefi ");
    let by_grub = texts(8).flatten().find(command);
    let by_grub = by_grub.and_then(|text| text.split_once(' ').map(|(_, rest)| rest.to_owned()));
    by_grub.or_else(|| texts(12).next().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::to_utf16le;
    use crate::event_log::{EV_EFI_VARIABLE_DRIVER_CONFIG, EV_IPL, EV_SEPARATOR};

    const ZERO: Guid = Guid([0; 16]);

    fn variable(guid: &Guid, name: &str, data: &[u8]) -> Vec<u8> {
        let name = to_utf16le(name);
        let sizes = [name.len() as u64 / 2, data.len() as u64].map(u64::to_le_bytes).concat();
        [guid.as_bytes(), &sizes[..], &name, data].concat()
    }

    fn event(pcr: u8, kind: u32, hashed: &[u8], data: &[u8]) -> Event {
        Event { number: 7, pcr, kind, digest: sha256(hashed), data: data.to_vec() }
    }

    fn whole(pcr: u8, kind: u32, data: &[u8]) -> Event {
        event(pcr, kind, data, data)
    }

    fn boot(secure_boot: &[u8]) -> EventLog {
        let contents: [&[u8]; 5] = [secure_boot, b"pk", b"kek", b"db", b"dbx"];
        let mut events: Vec<Event> = VARIABLES
            .iter()
            .zip(contents)
            .map(|((guid, name), content)| {
                whole(7, EV_EFI_VARIABLE_DRIVER_CONFIG, &variable(guid, name, content))
            })
            .collect();
        events.push(whole(7, EV_SEPARATOR, &[0; 4]));
        EventLog { events, ..EventLog::default() }
    }

    #[test]
    fn secure_boot_is_read_from_what_firmware_measured_first() {
        let state = secure_boot(&boot(&[1])).unwrap();
        assert!(state.secure_boot);
        assert_eq!((state.pk.as_slice(), state.dbx.as_slice(), state.dbt), (&b"pk"[..], &b"dbx"[..], None));
        assert!(!secure_boot(&boot(&[0])).unwrap().secure_boot);
    }

    #[test]
    fn a_guest_that_measures_a_better_state_later_changes_nothing() {
        let mut log = boot(&[0]);
        log.events.push(whole(7, EV_EFI_VARIABLE_DRIVER_CONFIG, &variable(&GLOBAL, "SecureBoot", &[1])));
        assert!(!secure_boot(&log).unwrap().secure_boot);
        // Also not if it calls the true event something else.
        log.events[0].kind = EV_IPL;
        assert!(!secure_boot(&log).unwrap().secure_boot);
    }

    #[test]
    fn a_state_that_is_not_proven_is_unknown() {
        let mut rewritten = boot(&[0]);
        rewritten.events[0].data = variable(&GLOBAL, "SecureBoot", &[1]);
        assert_eq!(secure_boot(&rewritten), Err(SecureBootUnknown::Unproven(7)));
        let mut swapped = boot(&[1]);
        swapped.events.swap(0, 1);
        assert!(matches!(
            secure_boot(&swapped),
            Err(SecureBootUnknown::Order { expected: "SecureBoot", .. })
        ));
        let mut missing = boot(&[1]);
        missing.events.remove(4);
        let expected = SecureBootUnknown::Order { expected: "dbx", found: "the separator".to_owned() };
        assert_eq!(secure_boot(&missing), Err(expected));
        let mut foreign = boot(&[1]);
        foreign.events[0] = whole(7, 1, &variable(&ZERO, "SecureBoot", &[1]));
        assert!(secure_boot(&foreign).is_err());
        let mut endless = boot(&[1]);
        endless.events.pop();
        assert_eq!(secure_boot(&endless), Err(SecureBootUnknown::NoSeparator));
        assert_eq!(secure_boot(&boot(&[2])), Err(SecureBootUnknown::Value("02".to_owned())));
        assert_eq!(secure_boot(&EventLog::default()), Err(SecureBootUnknown::NoSeparator));
    }

    #[test]
    fn data_counts_as_far_as_it_is_hashed() {
        let boot_order = variable(&GLOBAL, "BootOrder", &[1, 0]);
        assert_eq!(proven(&event(1, 2, &[1, 0], &boot_order)), Proven::Content(&[1, 0]));
        assert_eq!(proven(&whole(4, 5, b"Calling EFI")), Proven::Text("Calling EFI".to_owned()));
        assert_eq!(proven(&whole(0, 8, &[0, 0])), Proven::Bytes(&[0, 0]));
        assert_eq!(proven(&event(4, 3, b"an image", b"\\EFI\\evil.efi")), Proven::Nothing);
        let grub = event(8, EV_IPL, b"linux /vmlinuz ro", b"grub_cmd: linux /vmlinuz ro\0");
        assert_eq!(proven(&grub), Proven::Text("linux /vmlinuz ro".to_owned()));
        let lie = event(8, EV_IPL, b"linux /vmlinuz init=/bin/sh", b"grub_cmd: linux /vmlinuz ro\0");
        assert_eq!(proven(&lie), Proven::Nothing);
    }

    #[test]
    fn the_command_line_is_the_first_that_a_loader_measured() {
        let mut log = EventLog::default();
        log.events.push(event(8, EV_IPL, b"set root=x", b"grub_cmd: set root=x\0"));
        log.events.push(event(8, EV_IPL, b"linux /v ro", b"grub_cmd: linux /v ro\0"));
        log.events.push(event(8, EV_IPL, b"linux /v rw", b"grub_cmd: linux /v rw\0"));
        assert_eq!(kernel_command_line(&log, &[8]).as_deref(), Some("/v ro"));
        assert_eq!(kernel_command_line(&log, &[0, 7]), None, "not attested");
        let wide = [to_utf16le("root=/dev/sda1"), vec![0, 0]].concat();
        let log = EventLog { events: vec![whole(12, EV_IPL, &wide)], ..EventLog::default() };
        assert_eq!(kernel_command_line(&log, &[12]).as_deref(), Some("root=/dev/sda1"));
        let log = EventLog {
            events: vec![event(12, EV_IPL, b"?", &wide), whole(12, EV_IPL, &wide)],
            ..EventLog::default()
        };
        assert_eq!(kernel_command_line(&log, &[12]), None, "the first is not proven");
    }

    proptest::proptest! {
        #[test]
        fn any_variable_data_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = EfiVariable::parse(&bytes);
            let _ = proven(&whole(7, 1, &bytes));
        }
    }
}
