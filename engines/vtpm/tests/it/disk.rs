//! Partition tables and boot partitions that are damaged or hostile.

use std::io::Cursor;

use vtpm::gpt::{Gpt, TYPE_ESP, TYPE_XBOOTLDR, crc32};

use super::fixture::{Machine, write_table};

#[test]
fn checksum_is_the_one_of_the_gpt() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

#[test]
fn partition_table_is_read() {
    let table = Gpt::read(&mut Machine::new().disk()).unwrap();
    let esp = table.only(TYPE_ESP).unwrap();
    assert_eq!((esp.start, esp.length), (1 << 20, 4 << 20));
    assert_eq!(table.measured_data().len(), 92 + 8 + 128);
}

#[test]
fn changed_byte_in_header_or_entries_is_refused() {
    let machine = Machine::new();
    for at in [0x1C2, 511, 512, 512 + 24, 512 + 72, 512 + 88, 1024, 1024 + 33, 1024 + 127 * 128] {
        let mut disk = machine.disk();
        disk.get_mut()[at] ^= 1;
        assert!(Gpt::read(&mut disk).is_err(), "offset {at}");
    }
    let mut short = Cursor::new(machine.disk().into_inner()[..1100].to_vec());
    assert!(Gpt::read(&mut short).is_err());
}

#[test]
fn second_boot_partition_is_refused() {
    let machine = Machine::new();
    let mut disk = machine.disk();
    write_table(disk.get_mut(), &[(TYPE_ESP, 1 << 20, 4 << 20), (TYPE_ESP, 5 << 20, 1 << 19)]);
    assert!(machine.predict_on(&mut disk).is_err());
    write_table(disk.get_mut(), &[(TYPE_ESP, 1 << 20, 4 << 20), (TYPE_XBOOTLDR, 5 << 20, 1 << 19)]);
    let refusal = machine.predict_on(&mut disk).unwrap_err().to_string();
    assert!(refusal.contains("extended boot loader partition"), "{refusal}");
}

#[test]
fn partition_beyond_the_disk_is_refused() {
    let machine = Machine::new();
    let mut disk = machine.disk();
    disk.get_mut().truncate((1 << 20) + 8192);
    assert!(machine.predict_on(&mut disk).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(60))]
    #[test]
    fn damaged_file_systems_never_panic(changes in proptest::collection::vec((0usize..60_000, proptest::num::u8::ANY), 1..12)) {
        let machine = Machine::new();
        let mut disk = machine.disk();
        for (at, byte) in changes {
            disk.get_mut()[(1 << 20) + at] = byte;
        }
        let _ = machine.predict_on(&mut disk);
    }

    #[test]
    fn damaged_boot_sectors_never_panic(changes in proptest::collection::vec((0usize..96, proptest::num::u8::ANY), 1..6)) {
        let machine = Machine::new();
        let mut disk = machine.disk();
        for (at, byte) in changes {
            disk.get_mut()[(1 << 20) + at] = byte;
        }
        let _ = machine.predict_on(&mut disk);
    }
}
