//! The TCG event log in its crypto-agile form (TCG PC Client Platform Firmware Profile, section 10), as Linux shows it
//! in `binary_bios_measurements`. Fails closed: a truncated log, an algorithm whose size is not known, or a missing
//! Spec ID event is an error, never a shorter log.

use thiserror::Error;

use crate::bytes::{Cursor, size};
use crate::command::alg;
use crate::pcr::{Digest, PcrBank, to_digest};

/// EV_NO_ACTION: informative, not extended.
pub const EV_NO_ACTION: u32 = 3;
/// EV_SEPARATOR.
pub const EV_SEPARATOR: u32 = 4;
/// EV_ACTION.
pub const EV_ACTION: u32 = 5;
/// EV_EVENT_TAG.
pub const EV_EVENT_TAG: u32 = 6;
/// EV_IPL: measured by boot loaders.
pub const EV_IPL: u32 = 0xD;
/// EV_EFI_VARIABLE_DRIVER_CONFIG: Secure Boot variables.
pub const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
/// EV_EFI_VARIABLE_BOOT: boot options.
pub const EV_EFI_VARIABLE_BOOT: u32 = 0x8000_0002;
/// EV_EFI_BOOT_SERVICES_APPLICATION: a started image.
pub const EV_EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
/// EV_EFI_VARIABLE_AUTHORITY: what authorised a started image.
pub const EV_EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00E0;

const MAX_EVENT: usize = 1 << 20;
const MAX_EVENTS: usize = 1 << 14;
const SPEC_ID_SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
const STARTUP_LOCALITY_SIGNATURE: &[u8; 16] = b"StartupLocality\0";

/// Why a log is not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EventLogError {
    /// The log ends inside the event of that number.
    #[error("the event log is truncated in event {0}")]
    Truncated(usize),
    /// The first event is not a Spec ID event of the crypto-agile format.
    #[error("the event log does not begin with a spec id event: {0}")]
    SpecId(&'static str),
    /// A digest of an algorithm that the log's header does not list.
    #[error("event {event} of the log has a digest of the algorithm {algorithm:#06x}")]
    Algorithm {
        /// Number of the event.
        event: usize,
        /// TPM_ALG_ID.
        algorithm: u16,
    },
    /// An event without, or with two, SHA-256 digests.
    #[error("event {0} of the log has not exactly one sha-256 digest")]
    Digest(usize),
    /// A PCR that does not exist, or an event of impossible size.
    #[error("event {0} of the log has an impossible pcr or size")]
    Impossible(usize),
}

/// One event of the SHA-256 bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log, events that were not extended counted too; the header is number 0.
    pub number: usize,
    /// The PCR that was extended.
    pub pcr: u8,
    /// Event type.
    pub kind: u32,
    /// The digest that was extended.
    pub digest: Digest,
    /// What the measurer wrote about it; not authenticated unless it is what was hashed.
    pub data: Vec<u8>,
}

/// A parsed log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventLog {
    /// The events in order, without those that were not extended.
    pub events: Vec<Event>,
    /// The locality from which the platform started the TPM, where the log states it: PCR 0 begins with it.
    pub startup_locality: Option<u8>,
}

impl EventLog {
    /// The PCR values that the log amounts to. PCRs without an event are not in it.
    pub fn replay(&self) -> PcrBank {
        let mut bank = PcrBank::default();
        for event in &self.events {
            bank.0.entry(event.pcr).or_insert_with(|| self.initial(event.pcr));
            bank.extend(event.pcr, &event.digest);
        }
        bank
    }

    /// A PCR's value before its first event: all ones for the PCRs of a dynamic launch (17 to 22), the startup locality
    /// for PCR 0, else zero (TCG PC Client Platform TPM Profile, section 4.6.2).
    pub fn initial(&self, pcr: u8) -> Digest {
        match pcr {
            0 => {
                let mut value = [0; 32];
                if let Some(last) = value.last_mut() {
                    *last = self.startup_locality.unwrap_or_default();
                }
                value
            }
            17..=22 => [0xFF; 32],
            _ => [0; 32],
        }
    }

    /// The events of one PCR.
    pub fn of_pcr(&self, pcr: u8) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.pcr == pcr)
    }
}

/// Parses a whole log.
///
/// # Errors
/// [`EventLogError`].
pub fn parse(log: &[u8]) -> Result<EventLog, EventLogError> {
    let mut cursor = Cursor::new(log);
    let algorithms = spec_id(&mut cursor)?;
    let mut log = EventLog::default();
    let mut number = 0;
    while !cursor.is_empty() {
        number += 1;
        if number > MAX_EVENTS {
            return Err(EventLogError::Impossible(number));
        }
        match event(&mut cursor, &algorithms, number)? {
            Logged::Event(event) => log.events.push(event),
            Logged::StartupLocality(locality) => log.startup_locality = Some(locality),
            Logged::Nothing => {}
        }
    }
    Ok(log)
}

/// An entry of the log.
enum Logged {
    /// It was extended.
    Event(Event),
    /// It tells where PCR 0 began.
    StartupLocality(u8),
    /// It tells nothing about PCRs.
    Nothing,
}

/// Reads the first event, in the old format; returns the digest sizes that the log uses.
fn spec_id(cursor: &mut Cursor<'_>) -> Result<Vec<(u16, usize)>, EventLogError> {
    let truncated = EventLogError::SpecId("truncated");
    let fields = (|| {
        let (pcr, kind, digest) = (cursor.le32()?, cursor.le32()?, cursor.array::<20>()?);
        let length = size(cursor.le32()?);
        Some((pcr, kind, digest, cursor.take(length)?))
    })();
    let (pcr, kind, digest, data) = fields.ok_or(truncated.clone())?;
    if pcr != 0 || kind != EV_NO_ACTION || digest != [0; 20] {
        return Err(EventLogError::SpecId("another event in its place"));
    }
    let mut data = Cursor::new(data);
    if data.take(16) != Some(SPEC_ID_SIGNATURE) {
        return Err(EventLogError::SpecId("signature"));
    }
    let count = (|| {
        data.take(8)?;
        data.le32()
    })();
    let count =
        count.filter(|count| (1..=8).contains(count)).ok_or(EventLogError::SpecId("algorithm count"))?;
    let mut algorithms = Vec::new();
    for _ in 0..count {
        let (Some(algorithm), Some(stated)) = (data.le16(), data.le16()) else { return Err(truncated) };
        let known = alg::digest_size(algorithm);
        if known.is_some_and(|known| known != usize::from(stated)) || stated == 0 || stated > 64 {
            return Err(EventLogError::SpecId("digest size"));
        }
        algorithms.push((algorithm, usize::from(stated)));
    }
    if !algorithms.iter().any(|(algorithm, _)| *algorithm == alg::SHA256) {
        return Err(EventLogError::SpecId("no sha-256 bank"));
    }
    let vendor = data.u8().ok_or(truncated.clone())?;
    data.take(usize::from(vendor)).ok_or(truncated)?;
    Ok(algorithms)
}

fn event(
    cursor: &mut Cursor<'_>,
    algorithms: &[(u16, usize)],
    number: usize,
) -> Result<Logged, EventLogError> {
    let truncated = || EventLogError::Truncated(number);
    let pcr = cursor.le32().ok_or_else(truncated)?;
    let kind = cursor.le32().ok_or_else(truncated)?;
    let count = cursor.le32().ok_or_else(truncated)?;
    if size(count) > algorithms.len() {
        return Err(EventLogError::Impossible(number));
    }
    let mut sha256 = Vec::new();
    for _ in 0..count {
        let algorithm = cursor.le16().ok_or_else(truncated)?;
        let known = algorithms.iter().find(|(listed, _)| *listed == algorithm);
        let (_, length) = known.ok_or(EventLogError::Algorithm { event: number, algorithm })?;
        let digest = cursor.take(*length).ok_or_else(truncated)?;
        if algorithm == alg::SHA256 {
            sha256.push(to_digest(digest));
        }
    }
    let length = size(cursor.le32().ok_or_else(truncated)?);
    if length > MAX_EVENT {
        return Err(EventLogError::Impossible(number));
    }
    let data = cursor.take(length).ok_or_else(truncated)?;
    if kind == EV_NO_ACTION {
        return Ok(match data.strip_prefix(STARTUP_LOCALITY_SIGNATURE) {
            Some([locality]) if pcr == 0 => Logged::StartupLocality(*locality),
            _ => Logged::Nothing,
        });
    }
    let pcr = u8::try_from(pcr).ok().filter(|pcr| *pcr < 24).ok_or(EventLogError::Impossible(number))?;
    match sha256.as_slice() {
        [digest] => Ok(Logged::Event(Event { number, pcr, kind, digest: *digest, data: data.to_vec() })),
        _ => Err(EventLogError::Digest(number)),
    }
}
