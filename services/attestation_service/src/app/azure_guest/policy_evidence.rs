//! The raw evidence as policies of version 1.2 query it with `JmesPath`: the claims `events` and `pcrs`, JSON in a
//! string.
//!
//! Form: the names that Azure's documented policies use (policy-version-1-2, tpm-attestation-sample-policies):
//! `Events[].{EventSeq, PcrIndex, EventType, EventTypeString, Digests.SHA256, ProcessedData}`, for variables
//! `ProcessedData.{VariableGuid, UnicodeName, VariableData}` with an upper-case GUID and base64url; and
//! `PCRs[].{Index, Digests.SHA256}` in hex. `ProcessedData` holds only what the event's digest covers, and only events
//! of PCRs that the log explains are there: a policy cannot be led by data that nobody vouches for. The claims are for
//! comparing; no token shows them.

use public_api::encoding::to_base64url;
use public_api::encoding::to_hex;
use serde_json::{Value, json};
use vtpm::PcrBank;
use vtpm::event_log::{Event, EventLog};
use vtpm::measured_boot::{EfiVariable, Proven, proven};

/// Name of the claim with the events.
pub const CLAIM_EVENTS: &str = "events";
/// Name of the claim with the PCRs.
pub const CLAIM_PCRS: &str = "pcrs";

/// The claim `events`: the events of the PCRs that the log explains.
pub fn events(log: &EventLog, replayed: &[u8]) -> Value {
    let counted = log.events.iter().filter(|event| replayed.contains(&event.pcr));
    json!({"Events": counted.map(event).collect::<Vec<Value>>()})
}

/// The claim `pcrs`.
pub fn pcrs(bank: &PcrBank) -> Value {
    let entries = bank.0.iter();
    let entry =
        |(index, value)| json!({"Index": index, "Digests": {"SHA256": hex::encode::<&[u8; 32]>(value)}});
    json!({"PCRs": entries.map(entry).collect::<Vec<Value>>()})
}

fn event(event: &Event) -> Value {
    json!({
        "EventSeq": event.number,
        "PcrIndex": event.pcr,
        "EventType": event.kind,
        "EventTypeString": type_name(event.kind),
        "Digests": {"SHA256": to_hex(event.digest)},
        "ProcessedData": processed(event),
    })
}

fn processed(event: &Event) -> Value {
    match proven(event) {
        Proven::Variable(variable) => of_variable(&variable),
        Proven::Text(text) => json!({"String": text, "RawData": to_base64url(&event.data)}),
        Proven::Bytes(data) => json!({"RawData": to_base64url(data)}),
        Proven::Content(data) => json!({"VariableData": to_base64url(data)}),
        Proven::Nothing => json!({}),
    }
}

fn of_variable(variable: &EfiVariable<'_>) -> Value {
    json!({
        "VariableGuid": variable.guid.to_string().to_ascii_uppercase(),
        "UnicodeName": variable.name(),
        "VariableData": to_base64url(variable.data),
    })
}

/// The specification's name of an event type.
fn type_name(kind: u32) -> String {
    let name = match kind {
        0x0000_0000 => "EV_PREBOOT_CERT",
        0x0000_0001 => "EV_POST_CODE",
        0x0000_0004 => "EV_SEPARATOR",
        0x0000_0005 => "EV_ACTION",
        0x0000_0006 => "EV_EVENT_TAG",
        0x0000_0007 => "EV_S_CRTM_CONTENTS",
        0x0000_0008 => "EV_S_CRTM_VERSION",
        0x0000_0009 => "EV_CPU_MICROCODE",
        0x0000_000A => "EV_PLATFORM_CONFIG_FLAGS",
        0x0000_000B => "EV_TABLE_OF_DEVICES",
        0x0000_000C => "EV_COMPACT_HASH",
        0x0000_000D => "EV_IPL",
        0x0000_000E => "EV_IPL_PARTITION_DATA",
        0x0000_000F => "EV_NONHOST_CODE",
        0x0000_0010 => "EV_NONHOST_CONFIG",
        0x0000_0011 => "EV_NONHOST_INFO",
        0x0000_0012 => "EV_OMIT_BOOT_DEVICE_EVENTS",
        0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
        0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
        0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
        0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
        0x8000_0005 => "EV_EFI_RUNTIME_SERVICES_DRIVER",
        0x8000_0006 => "EV_EFI_GPT_EVENT",
        0x8000_0007 => "EV_EFI_ACTION",
        0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
        0x8000_000A => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        0x8000_000B => "EV_EFI_HANDOFF_TABLES2",
        0x8000_000C => "EV_EFI_VARIABLE_BOOT2",
        0x8000_0010 => "EV_EFI_HCRTM_EVENT",
        0x8000_00E0 => "EV_EFI_VARIABLE_AUTHORITY",
        0x8000_00E1 => "EV_EFI_SPDM_FIRMWARE_BLOB",
        0x8000_00E2 => "EV_EFI_SPDM_FIRMWARE_CONFIG",
        other => return format!("{other:#010x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtpm::event_log;

    const LOG: &[u8] = include_bytes!("../../../../../engines/vtpm/tests/data/event-log-debian13.bin");

    /// What the documented policies ask for, in their words: `Events[?EventTypeString == 'EV_EFI_VARIABLE_DRIVER_CONFIG'
    /// && ProcessedData.VariableGuid == '8BE4DF61-…']`, then `[?ProcessedData.UnicodeName == 'SecureBoot'] | length(@) ==
    /// 1 && @[0].ProcessedData.VariableData == 'AQ'`.
    #[test]
    fn the_documented_query_for_secure_boot_finds_its_event() {
        let log = event_log::parse(LOG).expect("a log");
        let shown = events(&log, &[0, 1, 2, 3, 4, 5, 6, 7]);
        let events = shown["Events"].as_array().expect("events");
        let found: Vec<&Value> = events
            .iter()
            .filter(|event| {
                event["EventTypeString"] == "EV_EFI_VARIABLE_DRIVER_CONFIG"
                    && event["ProcessedData"]["VariableGuid"] == "8BE4DF61-93CA-11D2-AA0D-00E098032B8C"
                    && event["ProcessedData"]["UnicodeName"] == "SecureBoot"
            })
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["ProcessedData"]["VariableData"], "AQ");
        assert_eq!((&found[0]["PcrIndex"], &found[0]["EventSeq"]), (&json!(7), &json!(4)));
    }

    #[test]
    fn only_proven_data_of_explained_pcrs_is_shown() {
        let log = event_log::parse(LOG).expect("a log");
        let shown = events(&log, &[4]);
        let events = shown["Events"].as_array().expect("events");
        assert!(events.iter().all(|event| event["PcrIndex"] == 4));
        let programs =
            events.iter().filter(|event| event["EventTypeString"] == "EV_EFI_BOOT_SERVICES_APPLICATION");
        let paths: Vec<&Value> = programs.map(|event| &event["ProcessedData"]).collect();
        assert_eq!(paths, [&json!({}); 3], "device paths are not hashed");
    }

    #[test]
    fn pcrs_have_the_documented_form() {
        let mut bank = PcrBank::default();
        bank.0.insert(7, [0xAB; 32]);
        let expected = json!({"PCRs": [{"Index": 7, "Digests": {"SHA256": "ab".repeat(32)}}]});
        assert_eq!(pcrs(&bank), expected);
    }
}
