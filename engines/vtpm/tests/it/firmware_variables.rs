//! OVMF's variable store: the templates that Debian ships, and stores that are damaged.

use vtpm::guid::{GLOBAL, Guid, IMAGE_SECURITY, LOADER, SHIM};
use vtpm::vars::{VarStore, VarsError};

const STORE_GUID: Guid = Guid::new(0xaaf3_2c78, 0x947b, 0x439a, 0xa180, 0x2e14_4ec3_7792);
const VOLUME_GUID: Guid = Guid::new(0xfff1_2b8d, 0x7696, 0x4c8b, 0xa985, 0x2747_075b_4f50);
const ADDED: u8 = 0x3F;
const IN_DELETED_TRANSITION: u8 = 0x3E;
const DELETED: u8 = 0x3C;

fn variable(state: u8, guid: &Guid, name: &str, data: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut out = vec![0xAA, 0x55, state, 0, 7, 0, 0, 0];
    out.resize(36, 0);
    out.extend_from_slice(&u32::try_from(name.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend_from_slice(guid.as_bytes());
    out.extend_from_slice(&name);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0xFF);
    out
}

fn flash(variables: &[Vec<u8>]) -> Vec<u8> {
    let mut volume = vec![0; 16];
    volume.extend_from_slice(VOLUME_GUID.as_bytes());
    volume.extend_from_slice(&0x2000u64.to_le_bytes());
    volume.extend_from_slice(b"_FVH\xFF\xFE\x04\0\x48\0\0\0\0\0\0\x02");
    volume.extend_from_slice(&[2, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let sum =
        volume.chunks(2).fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    volume[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    volume.extend_from_slice(STORE_GUID.as_bytes());
    volume.extend_from_slice(&0x1F00u32.to_le_bytes());
    volume.extend_from_slice(&[0x5A, 0xFE, 0, 0, 0, 0, 0, 0]);
    volume.extend_from_slice(&variables.concat());
    volume.resize(0x2000, 0xFF);
    volume
}

fn shipped(name: &str) -> Option<VarStore> {
    let path = format!("/usr/share/OVMF/{name}");
    match std::fs::read(&path) {
        Ok(bytes) => Some(VarStore::parse(&bytes).unwrap()),
        Err(_) => {
            eprintln!("skipped: {path} is not there (package ovmf)");
            None
        }
    }
}

#[test]
fn debians_template_with_microsofts_keys_has_secure_boot_on() {
    let Some(store) = shipped("OVMF_VARS_4M.ms.fd") else { return };
    let state = store.secure_boot_state();
    assert!(state.secure_boot);
    assert_eq!(&state.db, &store.get(&IMAGE_SECURITY, "db").unwrap().data);
    for (name, content) in [("PK", &state.pk), ("KEK", &state.kek), ("db", &state.db), ("dbx", &state.dbx)] {
        assert!(content.len() > 28, "{name}");
    }
    assert_eq!(store.sbat_level(), None);
    assert_eq!(store.loader_vars(), vtpm::vars::LoaderVars::default());
}

#[test]
fn debians_empty_template_has_secure_boot_off() {
    let Some(store) = shipped("OVMF_VARS_4M.fd") else { return };
    assert_eq!(store.secure_boot_state(), vtpm::vars::SecureBootState::default());
}

#[test]
fn variables_of_loaders_are_found() {
    let text: Vec<u8> = "debian-1.conf\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let store = VarStore::parse(&flash(&[
        variable(ADDED, &LOADER, "LoaderEntryDefault", &text),
        variable(ADDED, &SHIM, "SbatLevel", b"sbat,1,2025021800\n"),
        variable(ADDED, &SHIM, "MokList", b"keys"),
        variable(ADDED, &SHIM, "SbatPolicy", &[1]),
    ]))
    .unwrap();
    let vars = store.loader_vars();
    assert_eq!(vars.entry_default.as_deref(), Some("debian-1.conf"));
    assert_eq!((vars.sbat_policy, vars.mok_variables), (Some(1), vec!["MokList".to_owned()]));
    assert_eq!(store.sbat_level().as_deref(), Some(&b"sbat,1,2025021800\n"[..]));
}

#[test]
fn deleted_copies_do_not_count_and_one_in_transition_counts_only_alone() {
    let store = |variables: &[Vec<u8>]| VarStore::parse(&flash(variables)).unwrap();
    let pk = |state, data: &[u8]| variable(state, &GLOBAL, "PK", data);
    let value = |store: &VarStore| store.get(&GLOBAL, "PK").map(|variable| variable.data.clone());
    assert_eq!(value(&store(&[pk(DELETED, b"old")])), None);
    assert_eq!(value(&store(&[pk(IN_DELETED_TRANSITION, b"old")])), Some(b"old".to_vec()));
    let both = store(&[pk(IN_DELETED_TRANSITION, b"old"), pk(ADDED, b"new")]);
    assert_eq!(value(&both), Some(b"new".to_vec()));
}

#[test]
fn switching_secure_boot_off_in_the_store_is_seen() {
    let enable = |value: u8| variable(ADDED, &vtpm::guid::SECURE_BOOT_ENABLE, "SecureBootEnable", &[value]);
    let pk = variable(ADDED, &GLOBAL, "PK", b"pk");
    let on =
        |variables: &[Vec<u8>]| VarStore::parse(&flash(variables)).unwrap().secure_boot_state().secure_boot;
    assert!(on(&[pk.clone(), enable(1)]));
    assert!(on(std::slice::from_ref(&pk)));
    assert!(!on(&[pk, enable(0)]));
    assert!(!on(&[enable(1)]));
}

#[test]
fn damaged_stores_are_refused() {
    let good = flash(&[variable(ADDED, &GLOBAL, "PK", b"pk")]);
    let refused = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        VarStore::parse(&bad).unwrap_err()
    };
    assert!(matches!(refused(16, 0), VarsError::Volume(_)));
    assert!(matches!(refused(50, 0), VarsError::Volume(_)));
    assert!(matches!(refused(72, 0), VarsError::Store(_)));
    assert!(matches!(refused(92, 0), VarsError::Store(_)));
    assert_eq!(refused(100 + 43, 0x70), VarsError::Store("a variable exceeds the store"));
    assert_eq!(refused(100, 0), VarsError::Store("no variable and no free space where one is expected"));
    assert!(VarStore::parse(&good[..60]).is_err());
}

proptest::proptest! {
    #[test]
    fn any_change_never_panics(changes in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 1..8), cut in 0usize..0x2000) {
        let mut bytes = flash(&[variable(ADDED, &GLOBAL, "PK", b"pk"), variable(ADDED, &SHIM, "MokList", b"keys")]);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(0x2000 - cut);
        if let Ok(store) = VarStore::parse(&bytes) {
            let _ = (store.secure_boot_state(), store.loader_vars());
        }
    }
}
