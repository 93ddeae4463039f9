//! The boot region: what a host can do to its file, and what a crash can.

use std::io::{Read as _, Seek as _, SeekFrom};

use proptest::prelude::*;
use sealed_disk::boot_region::{BootRegion, BootRegionError, CHUNK_BYTES, Spans};
use sealed_disk::luks2;
use sealed_disk::secret::Secret;
use uuid::Uuid;

use crate::crash_disk::CrashDisk;

const VM: Uuid = Uuid::from_u128(0xA);
const CHUNK: u64 = CHUNK_BYTES as u64;
/// Five and a half chunks, a data segment, one and a half chunks.
const SPANS: Spans = Spans { head: 5 * CHUNK + CHUNK / 2, tail: 40 * CHUNK, disk: 41 * CHUNK + CHUNK / 2 };

fn key() -> Secret<32> {
    Secret::from_bytes([5; 32])
}

fn create() -> (CrashDisk, BootRegion<CrashDisk>) {
    let disk = CrashDisk::default();
    let region = BootRegion::create(disk.clone(), VM, SPANS, &key()).unwrap();
    (disk, region)
}

fn open(bytes: Vec<u8>, table: &[u8]) -> BootRegion<CrashDisk> {
    BootRegion::open(CrashDisk::holding(bytes), VM, &key(), table).unwrap()
}

fn whole(region: &mut BootRegion<CrashDisk>) -> Result<Vec<u8>, BootRegionError> {
    let mut head = vec![0; SPANS.head as usize];
    let mut tail = vec![0; (SPANS.disk - SPANS.tail) as usize];
    region.read_at(0, &mut head)?;
    region.read_at(SPANS.tail, &mut tail)?;
    head.extend(tail);
    Ok(head)
}

fn commit(region: &mut BootRegion<CrashDisk>) -> Vec<u8> {
    let table = region.flush().unwrap();
    region.committed();
    table
}

#[test]
fn what_was_written_is_read_across_chunks_and_spans() {
    let (disk, mut region) = create();
    region.write_at(CHUNK - 3, b"across").unwrap();
    region.write_at(SPANS.disk - 4, b"last").unwrap();
    let table = commit(&mut region);
    let mut back = open(disk.durable(), &table);
    back.verify().unwrap();
    assert_eq!(whole(&mut back).unwrap(), whole(&mut region).unwrap());
    let mut bytes = [0; 6];
    back.read_at(CHUNK - 3, &mut bytes).unwrap();
    assert_eq!(&bytes, b"across");
    assert_eq!(disk.durable().len(), 3 * CHUNK_BYTES, "chunks of zeros take no space");
}

#[test]
fn more_chunks_than_the_cache_holds() {
    let disk = CrashDisk::default();
    let spans = Spans { head: 300 * CHUNK, tail: 300 * CHUNK, disk: 300 * CHUNK };
    let mut region = BootRegion::create(disk.clone(), VM, spans, &key()).unwrap();
    for chunk in 0..300u64 {
        region.write_at(chunk * CHUNK, &chunk.to_le_bytes()).unwrap();
    }
    let table = commit(&mut region);
    let mut back = open(disk.durable(), &table);
    for chunk in 0..300u64 {
        let mut bytes = [0; 8];
        back.read_at(chunk * CHUNK, &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), chunk);
    }
}

#[test]
fn the_data_segment_is_not_in_the_region() {
    let (_, mut region) = create();
    for (offset, bytes) in
        [(SPANS.head, 1), (SPANS.head - 1, 2), (SPANS.tail - 1, 2), (SPANS.disk - 1, 2), (u64::MAX, 2)]
    {
        assert!(!region.contains(offset, bytes));
        let error = region.write_at(offset, &vec![1; bytes as usize]).unwrap_err();
        assert!(matches!(error, BootRegionError::OutOfRegion { .. }), "{error}");
    }
    assert!(region.contains(SPANS.head - 1, 1) && region.contains(SPANS.tail, 1));
}

#[test]
fn the_reader_seeks_like_a_disk() {
    let (_, mut region) = create();
    region.write_at(SPANS.tail, b"tail").unwrap();
    let mut reader = region.reader();
    assert_eq!(reader.seek(SeekFrom::End(0)).unwrap(), SPANS.disk);
    assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
    reader.seek(SeekFrom::Start(SPANS.tail)).unwrap();
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"tail");
    reader.seek(SeekFrom::Start(SPANS.head)).unwrap();
    assert_eq!(reader.read(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn only_changes_make_it_dirty() {
    let (disk, mut region) = create();
    region.write_at(0, b"a").unwrap();
    assert!(region.is_dirty());
    let table = commit(&mut region);
    assert!(!region.is_dirty());
    region.write_at(0, b"a").unwrap();
    assert!(!region.is_dirty());
    assert_eq!(commit(&mut region), table);
    assert_eq!(disk.durable().len(), CHUNK_BYTES);
}

#[test]
fn slots_are_used_again_after_their_table_is_superseded() {
    let (disk, mut region) = create();
    for round in 1..50u8 {
        region.write_at(0, &[round; 10]).unwrap();
        commit(&mut region);
    }
    assert!(disk.durable().len() <= 2 * CHUNK_BYTES, "{}", disk.durable().len());
}

#[test]
fn attack_a_changed_byte_is_refused() {
    let (disk, mut region) = create();
    region.write_at(2 * CHUNK, b"kernel").unwrap();
    let table = commit(&mut region);
    for place in [0, 1, 5, 1000, CHUNK_BYTES - 1] {
        let mut bytes = disk.durable();
        bytes[place] ^= 0x10;
        let error = whole(&mut open(bytes, &table)).unwrap_err();
        assert!(matches!(error, BootRegionError::Tampered { offset } if offset == 2 * CHUNK), "{error}");
    }
}

/// The LUKS2 header is checked, then the host puts a null cipher into the file before the guest reads: the guest gets the
/// bytes that were checked, or nothing.
#[test]
fn attack_a_header_changed_between_check_and_use_has_no_effect() {
    let key = sealed_disk::secret::VolumeKey::random();
    let keyslots = vec![sealed_disk::secret::Passphrase::from_text("a".into())];
    let (uuid, sector_size) = (VM, luks2::SectorSize::B4096);
    let header =
        luks2::Format { uuid, volume_key: &key, keyslots, tokens: vec![], sector_size }.write().unwrap();
    let (disk, mut region) = create();
    region.write_at(CHUNK, &header).unwrap();
    let table = commit(&mut region);
    let mut running = BootRegion::open(disk.clone(), VM, &self::key(), &table).unwrap();
    let mut checked = vec![0; header.len()];
    running.read_at(CHUNK, &mut checked).unwrap();
    luks2::check(&checked).unwrap();
    disk.tamper(0, &vec![0x11; disk.durable().len()]);
    let mut used = vec![0; header.len()];
    running.read_at(CHUNK, &mut used).unwrap();
    assert!(used == checked);
    let mut restarted = BootRegion::open(disk, VM, &self::key(), &table).unwrap();
    let error = restarted.read_at(CHUNK, &mut used).unwrap_err();
    assert!(matches!(error, BootRegionError::Tampered { offset } if offset == CHUNK), "{error}");
    assert!(matches!(restarted.verify(), Err(BootRegionError::Tampered { .. })));
    assert!(running.verify().is_err(), "verify reads the file, not the cache");
}

#[test]
fn attack_two_chunks_exchanged_is_refused() {
    let (disk, mut region) = create();
    region.write_at(0, b"one").unwrap();
    region.write_at(CHUNK, b"two").unwrap();
    let table = commit(&mut region);
    let mut bytes = disk.durable();
    let (first, second) = bytes.split_at_mut(CHUNK_BYTES);
    first.swap_with_slice(second);
    assert!(matches!(whole(&mut open(bytes, &table)), Err(BootRegionError::Tampered { offset: 0 })));
}

#[test]
fn attack_an_older_chunk_is_refused() {
    let (disk, mut region) = create();
    region.write_at(0, b"old").unwrap();
    commit(&mut region);
    let old = disk.durable();
    for text in [b"mid", b"new"] {
        region.write_at(0, text).unwrap();
        commit(&mut region);
    }
    let table = commit(&mut region);
    assert!(matches!(whole(&mut open(old, &table)), Err(BootRegionError::Tampered { offset: 0 })));
}

#[test]
fn attack_another_vms_region_is_refused() {
    let disk = CrashDisk::default();
    let mut region = BootRegion::create(disk.clone(), Uuid::from_u128(0xB), SPANS, &key()).unwrap();
    region.write_at(0, b"theirs").unwrap();
    let table = commit(&mut region);
    assert!(matches!(whole(&mut open(disk.durable(), &table)), Err(BootRegionError::Tampered { offset: 0 })));
}

#[test]
fn attack_truncation_is_named() {
    let (disk, mut region) = create();
    region.write_at(0, b"one").unwrap();
    region.write_at(CHUNK, b"two").unwrap();
    let table = commit(&mut region);
    for length in [0, CHUNK_BYTES, 2 * CHUNK_BYTES - 1] {
        let error = whole(&mut open(disk.durable()[..length].to_vec(), &table)).unwrap_err();
        assert!(matches!(error, BootRegionError::Truncated { .. }), "{error}");
    }
}

#[test]
fn a_malformed_table_is_refused() {
    let (disk, mut region) = create();
    region.write_at(0, b"one").unwrap();
    region.write_at(CHUNK, b"two").unwrap();
    let table = commit(&mut region);
    let refused =
        |table: &[u8]| BootRegion::open(CrashDisk::holding(disk.durable()), VM, &key(), table).is_err();
    assert!(!refused(&table));
    assert!(refused(&[]) && refused(&table[..table.len() - 1]) && refused(&[&table[..], &[0]].concat()));
    let mut twice = table.clone();
    twice.copy_within(32..64, 64);
    assert!(refused(&twice));
    for (at, value) in [(0, 0), (8, 0xff), (16, 0)] {
        let mut bad = table.clone();
        bad[at..at + 8].fill(value);
        assert!(refused(&bad), "{at}");
    }
}

/// Two commits; power is lost at every operation of the second. With the old table everything is old, with the new one
/// (which only exists if the flush returned) everything is new.
#[test]
fn a_crash_at_every_step_keeps_the_table_valid() {
    let (disk, mut region) = create();
    for (chunk, text) in [b"aaaa", b"bbbb", b"cccc"].into_iter().enumerate() {
        region.write_at(chunk as u64 * CHUNK, text).unwrap();
    }
    let old_table = commit(&mut region);
    let (start, old) = (disk.durable(), whole(&mut region).unwrap());
    let mut steps = 0;
    loop {
        let disk = CrashDisk::holding(start.clone());
        let mut region = BootRegion::open(disk.clone(), VM, &key(), &old_table).unwrap();
        disk.crash_after(steps);
        region.write_at(0, b"AAAA").unwrap();
        region.write_at(CHUNK, &[0; 4]).unwrap();
        region.write_at(SPANS.tail, b"DDDD").unwrap();
        let flushed = region.flush();
        for image in disk.survivors() {
            assert_eq!(whole(&mut open(image.clone(), &old_table)).unwrap(), old, "step {steps}");
            if let Ok(table) = &flushed {
                assert_eq!(whole(&mut open(image, table)).unwrap(), whole(&mut region).unwrap());
            }
        }
        if flushed.is_ok() {
            break;
        }
        steps += 1;
    }
    assert!(steps >= 3, "{steps}");
}

/// Between flush and commit of the table further writes may spill; the flushed table must stay valid, too.
#[test]
fn writes_after_a_flush_do_not_touch_what_it_stored() {
    let (disk, mut region) = create();
    region.write_at(0, b"one").unwrap();
    let first = region.flush().unwrap();
    let then = whole(&mut region).unwrap();
    region.write_at(0, b"two").unwrap();
    let second = region.flush().unwrap();
    assert_eq!(whole(&mut open(disk.durable(), &first)).unwrap(), then);
    region.committed();
    region.write_at(0, b"six").unwrap();
    region.flush().unwrap();
    let mut bytes = [0; 3];
    open(disk.durable(), &second).read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"two");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_plain_memory(
        writes in proptest::collection::vec((0..SPANS.head, 1usize..100_000, any::<u8>(), any::<bool>()), 1..20),
    ) {
        let (disk, mut region) = create();
        let mut model = vec![0; SPANS.head as usize];
        let mut table = commit(&mut region);
        let mut durable = model.clone();
        for (offset, length, value, flush) in writes {
            let (start, end) = (offset as usize, (offset as usize + length).min(model.len()));
            model[start..end].fill(value);
            region.write_at(offset, &model[start..end]).unwrap();
            if flush {
                table = commit(&mut region);
                durable.copy_from_slice(&model);
            }
        }
        let mut head = vec![0; model.len()];
        region.read_at(0, &mut head).unwrap();
        prop_assert!(head == model);
        open(disk.durable(), &table).read_at(0, &mut head).unwrap();
        prop_assert!(head == durable);
    }
}
