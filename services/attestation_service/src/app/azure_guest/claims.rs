//! The claims of a guest token: those of Azure's guest attestation, and ours about the vTPM.
//!
//! Source of the names: recorded tokens (README of `aks-linux-sample` in
//! Azure/confidential-computing-cvm-guest-attestation). What the guest merely says of itself - type, distribution,
//! version and build of its system - is in the token as Azure has it, and named in [`CLAIM_GUEST_STATED`]. The claims
//! about Windows' boot settings are in the tokens of guests that say they are Linux, where there are none of these settings; for
//! Windows they would have to be read from its own measurements, which this service does not do.

use aws_lc_rs::digest::{SHA256, digest};
use public_api::attestation::{
    CLAIM_BOOT_REFERENCE, CLAIM_CHIP_ID, CLAIM_NONCE_SOURCE, CLAIM_PRODUCT, CLAIM_REFERENCE,
    CLAIM_TRUST_ROOT, CLAIM_TRUST_ROOT_ID, Claims,
};
use public_api::encoding::to_hex;
use serde_json::{Map, Value, json};
use vtpm::measured_boot;
use vtpm::vars::SecureBootState;

use super::request::PROTOCOL_VERSION;
use super::verify::VerifiedGuest;
use crate::app::appraise::VerifiedEvidence;
use crate::app::boot_reference;
use crate::app::claims::NonceSource;

/// Claim: `inside` when a report of VMPL 0 binds the vTPM's attestation key, else `outside`.
pub const CLAIM_VTPM_BOUNDARY: &str = "x-casemate-vtpm-boundary";
/// Claim: what ties the nonce to the evidence: `quote`, `report` or `sealed-token`.
pub const CLAIM_NONCE_BINDING: &str = "x-casemate-nonce-binding";
/// Claim: the certificate of the attestation key: `absent`, `untrusted` or `valid`.
pub const CLAIM_AIK_CERTIFICATE: &str = "x-casemate-aik-certificate";
/// Claim: the quoted PCRs that the event log explains.
pub const CLAIM_REPLAYED_PCRS: &str = "x-casemate-replayed-pcrs";
/// Claim: Secure Boot as measured: `enabled`, `disabled`, or `unknown`.
pub const CLAIM_SECURE_BOOT: &str = "x-casemate-secure-boot";
/// Claim: names of the claims that only repeat what the guest says of itself.
pub const CLAIM_GUEST_STATED: &str = "x-casemate-guest-stated";

/// Claims about the machine that are in every token, beside the nested claim set of its report.
const OF_MACHINE: [&str; 5] =
    [CLAIM_TRUST_ROOT, CLAIM_TRUST_ROOT_ID, CLAIM_PRODUCT, CLAIM_CHIP_ID, CLAIM_REFERENCE];
/// Claims of a report's set that belong to the token and not to the report.
const OF_TOKEN: [&str; 3] = ["x-ms-ver", "x-ms-policy-hash", CLAIM_NONCE_SOURCE];

/// What the guest says, without a prefix.
const GUEST_STATED: [&str; 5] = ["ostype", "osdistro", "osbuild", "osversion-major", "osversion-minor"];
/// Settings of Windows' boot that other systems do not have, and `is-windows`, which follows from the type.
const WINDOWS_SETTINGS: [&str; 6] = [
    "bootdebug-enabled",
    "elam-enabled",
    "flightsigning-enabled",
    "hypervisordebug-enabled",
    "kerneldebug-enabled",
    "testsigning-enabled",
];

/// All claims about guest evidence; times, ids and policy hash are the token's. `platform` is the claim set of the
/// hardware report, after its policy permitted it; `expected` is what firmware is known to enrol into Secure Boot's
/// databases, where that is known.
pub fn of_guest(
    guest: &VerifiedGuest,
    platform: Option<&Claims>,
    expected: Option<&SecureBootState>,
    nonce: NonceSource,
) -> Claims {
    let mut claims = Claims::new();
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put("x-ms-ver", json!("1.0"));
    put("x-ms-attestation-type", json!("azurevm"));
    put("x-ms-runtime", runtime(guest));
    put(CLAIM_NONCE_SOURCE, json!(nonce.name()));
    if let Some(binding) = guest.nonce_binding() {
        put(CLAIM_NONCE_BINDING, json!(binding.name()));
    }
    put(CLAIM_VTPM_BOUNDARY, json!(guest.boundary().name()));
    put(CLAIM_AIK_CERTIFICATE, json!(guest.aik_certificate().name()));
    of_platform(platform, &mut claims);
    of_boot_chain(guest, platform, &mut claims);
    of_vm(guest, &mut claims);
    of_system(guest, &mut claims);
    of_boot(guest, expected, &mut claims);
    claims
}

/// The client's payload and the key to which secrets for this guest are wrapped. Clients read `keys[0]`.
fn runtime(guest: &VerifiedGuest) -> Value {
    let key = guest.encryption_key();
    json!({
        "client-payload": guest.payload().shown,
        "keys": [{
            "kid": "TpmEphemeralEncryptionKey",
            "kty": "RSA",
            "key_ops": ["encrypt"],
            "e": key.jwk_e(),
            "n": key.jwk_n(),
        }],
    })
}

fn of_platform(platform: Option<&Claims>, claims: &mut Claims) {
    let Some(platform) = platform else {
        // Every token names its root of trust; a TPM without hardware under it has none that this service knows.
        claims.insert(CLAIM_TRUST_ROOT.to_owned(), json!("none"));
        return;
    };
    for name in OF_MACHINE {
        if let Some(value) = platform.get(name) {
            claims.insert(name.to_owned(), value.clone());
        }
    }
    let mut nested: Map<String, Value> = platform.clone();
    nested.retain(|name, _| !OF_TOKEN.contains(&name.as_str()));
    claims.insert("x-ms-isolation-tee".to_owned(), Value::Object(nested));
}

/// The image whose boot chain the paravisor sealed to; what the guest quotes must agree with it.
fn of_boot_chain(guest: &VerifiedGuest, platform: Option<&Claims>, claims: &mut Claims) {
    let name = platform.and_then(|platform| platform.get(CLAIM_BOOT_REFERENCE)?.as_str());
    let stated = guest.platform().and_then(VerifiedEvidence::stated_boot_chain);
    let booted = stated.is_some_and(|chain| boot_reference::agrees(&chain, guest.pcrs()));
    boot_reference::add_claim(claims, name.filter(|_| booted).map(str::to_owned));
}

fn azure_vm(name: &str) -> String {
    format!("x-ms-azurevm-{name}")
}

fn of_vm(guest: &VerifiedGuest, claims: &mut Claims) {
    let mut put = |name: &str, value: Value| claims.insert(azure_vm(name), value);
    put("attestation-protocol-ver", json!(PROTOCOL_VERSION));
    put("attested-pcrs", guest.pcrs().0.keys().copied().collect());
    if let Some(vm_id) = guest.vm_id() {
        put("vmid", json!(vm_id));
    }
}

fn of_system(guest: &VerifiedGuest, claims: &mut Claims) {
    let os = guest.os();
    let is = |name: &str| os.os_type.eq_ignore_ascii_case(name);
    let stated = [json!(os.os_type), json!(os.distro), json!(os.build), json!(os.major), json!(os.minor)];
    let mut names: Vec<String> = GUEST_STATED.iter().map(|name| azure_vm(name)).collect();
    for (name, value) in names.iter().zip(stated) {
        claims.insert(name.clone(), value);
    }
    let mut derived = vec![("is-windows", json!(is("Windows")))];
    if is("Linux") {
        derived.extend(WINDOWS_SETTINGS.map(|name| (name, json!(false))));
        derived.extend([
            ("debuggersdisabled", json!(true)),
            ("signingdisabled", json!(true)),
            ("hvci-policy", json!(0)),
        ]);
    }
    for (name, value) in derived {
        names.push(azure_vm(name));
        claims.insert(azure_vm(name), value);
    }
    claims.insert(CLAIM_GUEST_STATED.to_owned(), json!(names));
}

fn of_boot(guest: &VerifiedGuest, expected: Option<&SecureBootState>, claims: &mut Claims) {
    let state = guest.secure_boot().and_then(|state| state.as_ref().ok());
    let enabled = state.is_some_and(|state| state.secure_boot);
    let (db, dbx, all) = match (state, expected) {
        (Some(state), Some(expected)) => {
            let (db, dbx) = (state.db == expected.db, state.dbx == expected.dbx);
            (db, dbx, db && dbx && state.pk == expected.pk && state.kek == expected.kek)
        }
        _ => (false, false, false),
    };
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put("secureboot", json!(enabled));
    put(CLAIM_SECURE_BOOT, json!(state.map_or("unknown", |_| if enabled { "enabled" } else { "disabled" })));
    put(&azure_vm("dbvalidated"), json!(db));
    put(&azure_vm("dbxvalidated"), json!(dbx));
    put(&azure_vm("default-securebootkeysvalidated"), json!(all));
    put(CLAIM_REPLAYED_PCRS, json!(guest.replayed()));
    if let Some(state) = state {
        let databases = [("pk", &state.pk), ("kek", &state.kek), ("db", &state.db), ("dbx", &state.dbx)];
        for (name, content) in databases {
            put(&format!("x-casemate-secure-boot-{name}"), json!(sha256_hex(content)));
        }
    }
    of_programs(guest, claims);
}

/// What was started, as far as quoted PCRs prove it.
fn of_programs(guest: &VerifiedGuest, claims: &mut Claims) {
    let (log, replayed) = (guest.log(), guest.replayed());
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    if replayed.contains(&4) {
        let programs: Vec<String> = measured_boot::programs(log).iter().map(hex::encode).collect();
        put("x-casemate-boot-programs", json!(programs));
    }
    if replayed.contains(&7) {
        let authorities: Vec<Value> = measured_boot::authorities(log)
            .iter()
            .map(|found| {
                let name = found.name().unwrap_or_default();
                json!({"variable": name, "guid": found.guid.to_string(), "sha256": sha256_hex(found.data)})
            })
            .collect();
        put("x-casemate-boot-authorities", json!(authorities));
    }
    if let Some(line) = measured_boot::kernel_command_line(log, replayed) {
        put("x-casemate-kernel-command-line", json!(line));
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(digest(&SHA256, bytes))
}
