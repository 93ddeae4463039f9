//! Guest state: what a host can do to the file, and what a crash can.

use std::sync::LazyLock;

use proptest::prelude::*;
use sealed_disk::guest_state::{Changes, FileId, GuestState, Kek, LockedState, StateError};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::crash_disk::CrashDisk;

const VM: Uuid = Uuid::from_u128(0xA);
const OTHER_VM: Uuid = Uuid::from_u128(0xB);
const BLOCK: usize = 4096;

fn new_kek() -> Kek {
    use aws_lc_rs::encoding::AsDer as _;
    let key = aws_lc_rs::rsa::PrivateDecryptingKey::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
    Kek::from_pkcs8(der.as_ref()).unwrap()
}

static KEK: LazyLock<Kek> = LazyLock::new(new_kek);

fn changes(files: &[(FileId, &[u8])]) -> Changes {
    files.iter().map(|(file, content)| (*file, Zeroizing::new(content.to_vec()))).collect()
}

/// Everything a caller can see of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    generation: u64,
    tpm: Option<Vec<u8>>,
    table: Option<Vec<u8>>,
    record: Option<Vec<u8>>,
}

fn seen(state: &GuestState<CrashDisk>) -> Seen {
    let file = |file| state.read(file).map(<[u8]>::to_vec);
    Seen {
        generation: state.generation(),
        tpm: file(FileId::TpmNvram),
        table: file(FileId::BootRegionTable),
        record: file(FileId::Record),
    }
}

fn open(bytes: Vec<u8>, vm: Uuid, kek: &Kek) -> Result<GuestState<CrashDisk>, StateError> {
    LockedState::open(CrashDisk::holding(bytes), vm)?.unlock(kek)
}

fn create(vm: Uuid, generation: u64) -> (CrashDisk, GuestState<CrashDisk>) {
    let disk = CrashDisk::default();
    let files = changes(&[
        (FileId::TpmNvram, &[1; 9000]),
        (FileId::BootRegionTable, &[2; 20_000]),
        (FileId::Record, b"{\"r\":1}"),
    ]);
    let state = GuestState::create(disk.clone(), vm, &KEK, files, generation).unwrap();
    (disk, state)
}

#[test]
fn a_state_survives_reopening_commits_and_generations() {
    let (disk, mut state) = create(VM, 0);
    state.commit(changes(&[(FileId::TpmNvram, &[3; 12_000])])).unwrap();
    state.advance(changes(&[(FileId::Record, b"new")]), 1).unwrap();
    state.commit(changes(&[(FileId::SecureBoot, b"{}")])).unwrap();
    let back = open(disk.durable(), VM, &KEK).unwrap();
    assert_eq!(seen(&back), seen(&state));
    assert_eq!(back.read(FileId::SecureBoot), Some(b"{}".as_slice()));
    assert_eq!(back.read(FileId::Attest), None);
    assert_eq!(seen(&back).tpm, Some(vec![3; 12_000]));
}

#[test]
fn many_commits_reuse_blocks() {
    let (disk, mut state) = create(VM, 0);
    let mut lengths = Vec::new();
    for round in 0..200u8 {
        state
            .commit(changes(&[(FileId::TpmNvram, &[round; 9000]), (FileId::Record, &[round; 5000])]))
            .unwrap();
        lengths.push(disk.durable().len());
    }
    assert_eq!(lengths[199], 4 << 20, "the default capacity is enough");
    assert_eq!(seen(&open(disk.durable(), VM, &KEK).unwrap()), seen(&state));
}

#[test]
fn a_file_larger_than_the_capacity_makes_it_grow() {
    let (disk, mut state) = create(VM, 0);
    state.commit(changes(&[(FileId::BootRegionTable, &vec![7; 6 << 20])])).unwrap();
    assert!(disk.durable().len() > 6 << 20);
    assert_eq!(seen(&open(disk.durable(), VM, &KEK).unwrap()), seen(&state));
}

#[test]
fn nothing_of_the_contents_is_in_clear() {
    let disk = CrashDisk::default();
    let needle = b"the quick brown volume key";
    GuestState::create(disk.clone(), VM, &KEK, changes(&[(FileId::Record, needle)]), 0).unwrap();
    assert!(!disk.durable().windows(needle.len()).any(|window| window == needle));
}

#[test]
fn attack_another_vms_state_is_refused() {
    let (disk, _) = create(OTHER_VM, 0);
    let error = open(disk.durable(), VM, &KEK).err().unwrap();
    assert!(matches!(error, StateError::OtherVm { expected: VM, found: OTHER_VM }), "{error}");
}

/// The host edits the id in clear; both VMs are under one customer key, so that the state does unlock.
#[test]
fn attack_another_vms_state_with_the_id_rewritten_is_refused() {
    let (disk, _) = create(OTHER_VM, 0);
    let bytes = replace(disk.durable(), OTHER_VM.to_string().as_bytes(), VM.to_string().as_bytes());
    let error = open(bytes, VM, &KEK).err().unwrap();
    assert!(matches!(error, StateError::OtherVm { expected: VM, found: OTHER_VM }), "{error}");
}

#[test]
fn attack_a_state_under_another_key_is_refused() {
    let (disk, _) = create(VM, 0);
    let error = open(disk.durable(), VM, &new_kek()).err().unwrap();
    assert!(matches!(error, StateError::WrongKey), "{error}");
}

#[test]
fn attack_a_higher_generation_claimed_in_clear_is_refused() {
    let (disk, _) = create(VM, 4);
    let bytes = replace(disk.durable(), b"\"generation\":4}", b"\"generation\":5}");
    let error = open(bytes, VM, &KEK).err().unwrap();
    assert!(matches!(error, StateError::GenerationMismatch { clear: 5, sealed: 4 }), "{error}");
}

/// A whole older state is a valid state: the caller sees its generation before anything is unlocked.
#[test]
fn attack_an_older_state_names_its_older_generation() {
    let (disk, mut state) = create(VM, 4);
    let old = disk.durable();
    state.advance(Changes::new(), 5).unwrap();
    assert_eq!(LockedState::open(CrashDisk::holding(disk.durable()), VM).unwrap().generation(), 5);
    assert_eq!(LockedState::open(CrashDisk::holding(old), VM).unwrap().generation(), 4);
}

/// The header of the former generation is still there; damaging the newer one brings back the old state with its old
/// number, never the old content under the new number.
#[test]
fn attack_damaging_the_newer_header_shows_the_older_generation_or_nothing() {
    let (disk, mut state) = create(VM, 4);
    let old = seen(&state);
    state.advance(changes(&[(FileId::TpmNvram, &[9; 100])]), 5).unwrap();
    let good = disk.durable();
    let damaged = [0, BLOCK].map(|header| {
        let mut bytes = good.clone();
        bytes[header + 20] ^= 1;
        seen(&open(bytes, VM, &KEK).unwrap())
    });
    assert!(damaged.contains(&old) && damaged.contains(&seen(&state)), "{damaged:?}");
    // After two more commits the blocks of the old state hold other things: damage no longer shows it.
    for round in 0..2u8 {
        state
            .commit(changes(&[(FileId::TpmNvram, &[round; 20_000]), (FileId::Record, &[round; 9000])]))
            .unwrap();
    }
    for header in [0, BLOCK] {
        let mut bytes = disk.durable();
        bytes[header + 20] ^= 1;
        let back = open(bytes, VM, &KEK).map(|back| back.generation());
        assert!(!matches!(back, Ok(4)));
    }
}

/// One file's ciphertext and table entry put back to the former generation.
#[test]
fn attack_mixing_files_of_two_generations_is_refused() {
    let (disk, mut state) = create(VM, 4);
    let old = disk.durable();
    for round in 0..4u8 {
        state.advance(changes(&[(FileId::TpmNvram, &[round; 9000])]), 5 + u64::from(round)).unwrap();
    }
    let new = disk.durable();
    let (old_table, new_table) = (file_table(&old), file_table(&new));
    let entry = FileId::TpmNvram as usize * 64;
    let mut mixed = new.clone();
    mixed[new_table + entry..new_table + entry + 64]
        .copy_from_slice(&old[old_table + entry..old_table + entry + 64]);
    let block =
        u32::from_le_bytes(old[old_table + entry..old_table + entry + 4].try_into().unwrap()) as usize;
    mixed[block * BLOCK..block * BLOCK + 9000].copy_from_slice(&old[block * BLOCK..block * BLOCK + 9000]);
    let error = open(mixed, VM, &KEK).err().unwrap();
    assert!(matches!(error, StateError::Tampered { .. }), "{error}");
}

#[test]
fn truncation_at_every_block_is_refused() {
    let (disk, mut state) = create(VM, 4);
    state.commit(Changes::new()).unwrap();
    let good = disk.durable();
    let end = good.len() - good.iter().rev().position(|&byte| byte != 0).unwrap();
    for blocks in 0..=end / BLOCK {
        let error = open(good[..blocks * BLOCK].to_vec(), VM, &KEK).err();
        assert!(
            matches!(error, Some(StateError::Truncated | StateError::NotGuestState)),
            "{blocks} blocks: {:?}",
            error.map(|error| error.to_string())
        );
    }
}

#[test]
fn an_empty_or_foreign_file_is_named_as_such() {
    for bytes in [vec![], vec![0; 100], vec![0xff; 5 << 20]] {
        assert!(matches!(open(bytes, VM, &KEK).err(), Some(StateError::NotGuestState)));
    }
}

#[test]
fn a_generation_cannot_be_written_twice() {
    let (_, mut state) = create(VM, 4);
    let error = state.advance(Changes::new(), 4).err().unwrap();
    assert!(matches!(error, StateError::NotNewer { current: 4, asked: 4 }));
}

#[test]
fn a_full_disk_leaves_the_old_state_and_the_next_commit_works() {
    let (disk, mut state) = create(VM, 4);
    let before = seen(&state);
    disk.crash_after(2);
    assert!(state.commit(changes(&[(FileId::Record, b"lost")])).is_err());
    disk.crash_after(usize::MAX);
    assert_eq!(seen(&state), before);
    state.commit(changes(&[(FileId::Record, b"kept")])).unwrap();
    assert_eq!(seen(&open(disk.durable(), VM, &KEK).unwrap()).record, Some(b"kept".to_vec()));
}

#[test]
fn a_crash_at_every_step_leaves_the_old_or_the_new_state() {
    let (disk, state) = create(VM, 4);
    let (start, old) = (disk.durable(), seen(&state));
    let (mut step, mut olds, mut news) = (0, 0, 0);
    loop {
        let disk = CrashDisk::holding(start.clone());
        let mut state = LockedState::open(disk.clone(), VM).unwrap().unlock(&KEK).unwrap();
        disk.crash_after(step);
        let change = changes(&[(FileId::TpmNvram, &[9; 5000]), (FileId::Record, b"{\"r\":2}")]);
        let result = state.advance(change, 5);
        let new = Seen {
            generation: 5,
            tpm: Some(vec![9; 5000]),
            record: Some(b"{\"r\":2}".to_vec()),
            ..old.clone()
        };
        if !disk.crashed() {
            assert_eq!(seen(&open(disk.durable(), VM, &KEK).unwrap()), new);
            break;
        }
        assert!(result.is_err());
        for image in disk.survivors() {
            let back = open(image, VM, &KEK).map(|back| seen(&back)).unwrap();
            assert!(back == old || back == new, "step {step}: {back:?}");
            (olds, news) = (olds + u32::from(back == old), news + u32::from(back == new));
        }
        step += 1;
    }
    assert!(step > 6 && olds > 0 && news > 0, "{step} steps, {olds} old, {news} new");
}

#[test]
fn a_crash_while_it_is_made_leaves_no_state() {
    for step in 0.. {
        let disk = CrashDisk::default();
        disk.crash_after(step);
        let files = changes(&[(FileId::Record, b"{}")]);
        if GuestState::create(disk.clone(), VM, &KEK, files, 0).is_ok() {
            break;
        }
        for image in disk.survivors() {
            match open(image, VM, &KEK) {
                Ok(state) => assert_eq!(seen(&state).record, Some(b"{}".to_vec())),
                Err(error) => assert!(matches!(error, StateError::NotGuestState), "{error}"),
            }
        }
    }
}

static GOOD: LazyLock<(Vec<u8>, Seen, Seen)> = LazyLock::new(|| {
    let (disk, mut state) = create(VM, 4);
    let old = seen(&state);
    state.advance(changes(&[(FileId::TpmNvram, &[9; 5000])]), 5).unwrap();
    (disk.durable(), old, seen(&state))
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_is_detected_or_harmless(place in 0usize..40 * BLOCK, bit in 0u8..8) {
        let (good, old, new) = &*GOOD;
        let mut bytes = good.clone();
        bytes[place] ^= 1 << bit;
        if let Ok(state) = open(bytes, VM, &KEK) {
            let back = seen(&state);
            prop_assert!(back == *new || back == *old, "byte {place}");
        }
    }

    #[test]
    fn rubbish_never_opens(bytes in proptest::collection::vec(any::<u8>(), 0..40_000)) {
        prop_assert!(open(bytes, VM, &KEK).is_err());
    }

    #[test]
    fn a_random_overwrite_is_detected_or_harmless(place in 0usize..40 * BLOCK, patch in proptest::collection::vec(any::<u8>(), 1..300)) {
        let (good, old, new) = &*GOOD;
        let mut bytes = good.clone();
        bytes[place..place + patch.len()].copy_from_slice(&patch);
        if let Ok(state) = open(bytes, VM, &KEK) {
            let back = seen(&state);
            prop_assert!(back == *new || back == *old, "byte {place}");
        }
    }
}

fn replace(bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes;
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "nothing to replace");
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to);
    }
    bytes
}

fn file_table(bytes: &[u8]) -> usize {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let newest = if number(BLOCK + 16) > number(16) { BLOCK } else { 0 };
    number(newest + 24) as usize * BLOCK
}

#[test]
fn a_state_moves_to_another_key_and_names_the_one_it_is_under() {
    let (old, new) = (new_kek().named("old/1"), new_kek().named("new/1"));
    let disk = CrashDisk::default();
    let mut state =
        GuestState::create(disk.clone(), VM, &old, changes(&[(FileId::Record, b"kept")]), 3).unwrap();
    assert_eq!(state.key_id(), Some("old/1"));
    assert!(state.is_under(&old) && !state.is_under(&new));
    state.set_kek(&new);
    state.commit(changes(&[(FileId::TpmNvram, &[1; 100])])).unwrap();
    assert_eq!(state.key_id(), Some("old/1"), "the generation's key stays what it was");
    assert!(open(disk.durable(), VM, &old).is_ok());
    state.advance(changes(&[]), 4).unwrap();
    assert_eq!(state.key_id(), Some("new/1"));
    let locked = LockedState::open(CrashDisk::holding(disk.durable()), VM).unwrap();
    assert_eq!((locked.key_id(), locked.generation()), (Some("new/1"), 4));
    assert_eq!(locked.unlock(&new).unwrap().read(FileId::Record), Some(b"kept".as_slice()));
    let error = open(disk.durable(), VM, &old).err().unwrap();
    assert!(matches!(error, StateError::WrongKey), "{error}");
}

/// At every crash in the middle of a move, exactly one of the two keys opens the state, and it is the one that it names.
#[test]
fn a_crash_within_a_move_leaves_the_state_under_the_key_that_it_names() {
    let (old, new) = (new_kek().named("old/1"), new_kek().named("new/1"));
    let disk = CrashDisk::default();
    let mut state =
        GuestState::create(disk.clone(), VM, &old, changes(&[(FileId::Record, b"kept")]), 3).unwrap();
    let before = disk.durable();
    state.set_kek(&new);
    state.advance(changes(&[]), 4).unwrap();
    let after = disk.durable();
    let mut named = std::collections::BTreeSet::new();
    // The new blocks first, as far as the crash let them come, then the header that makes them count.
    let blocks = before.len().max(after.len()) / BLOCK;
    for cut in 0..=blocks {
        let mut bytes = before.clone();
        bytes.resize(blocks * BLOCK, 0);
        for block in (2..blocks).chain(0..2).take(cut) {
            let range = block * BLOCK..((block + 1) * BLOCK).min(after.len());
            bytes[range.clone()].copy_from_slice(&after[range]);
        }
        let locked = LockedState::open(CrashDisk::holding(bytes.clone()), VM).unwrap();
        let name = locked.key_id().unwrap().to_owned();
        let key = if name == "old/1" { &old } else { &new };
        assert_eq!(open(bytes, VM, key).unwrap().read(FileId::Record), Some(b"kept".as_slice()), "{cut}");
        named.insert(name);
    }
    assert_eq!(named.len(), 2, "the crashes met both");
}

#[test]
fn attack_another_keys_name_in_clear_is_refused() {
    let key = new_kek().named("old/1");
    let disk = CrashDisk::default();
    GuestState::create(disk.clone(), VM, &key, changes(&[(FileId::Record, b"kept")]), 3).unwrap();
    let bytes = replace(disk.durable(), b"\"keyId\":\"old/1\"", b"\"keyId\":\"old/2\"");
    let error = open(bytes, VM, &key).err().unwrap();
    assert!(matches!(error, StateError::Tampered { what: "identity" }), "{error}");
}
