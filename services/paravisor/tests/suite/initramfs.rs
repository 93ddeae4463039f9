//! Initramfs images as they are judged at import.

use std::io::Write as _;
use std::time::{Duration, Instant};

use expect_test::expect;
use paravisor::failure::chain;
use paravisor::inspect::initramfs::{InitramfsError, check};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::lab::initramfs::{archive, files, whole};

const RELEASE: &str = "6.12.1";

fn judge(bytes: &[u8]) -> Result<(), InitramfsError> {
    check(bytes, RELEASE, Instant::now() + Duration::from_secs(60))
}

fn refused(bytes: &[u8]) -> String {
    chain(&judge(bytes).unwrap_err())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// Microcode in front, as `early_cpio`, padded to blocks.
fn with_microcode(rest: &[u8]) -> Vec<u8> {
    let path = "kernel/x86/microcode/AuthenticAMD.bin".to_owned();
    let mut out = archive(&[("early_cpio".to_owned(), b"1".to_vec()), (path, vec![7; 1000])]);
    out.resize(out.len().next_multiple_of(512), 0);
    out.extend_from_slice(rest);
    out
}

#[test]
fn every_compression_and_row_of_segments_is_understood() {
    let plain = whole(RELEASE);
    for main in [plain.clone(), gzip(&plain), xz(&plain), zstd(&plain)] {
        judge(&main).unwrap();
        judge(&with_microcode(&main)).unwrap();
        judge(&with_microcode(&with_microcode(&[&main[..], &[0; 512]].concat()))).unwrap();
    }
}

#[test]
fn parts_in_several_compressed_segments_add_up() {
    let files = files(RELEASE);
    let (first, second) = files.split_at(files.len() / 2);
    for pack in [gzip, xz, zstd] {
        let mut both = pack(&archive(first));
        both.extend(pack(&archive(second)));
        judge(&both).unwrap();
    }
    let nested = [archive(first), vec![0; 8], archive(second)].concat();
    judge(&zstd(&nested)).unwrap();
}

#[test]
fn each_missing_file_is_named_with_its_package() {
    let all = files(RELEASE);
    for (path, _) in
        all.iter().filter(|(path, content)| !content.is_empty() && !path.ends_with("modules.builtin"))
    {
        let without: Vec<_> = all.iter().filter(|(other, _)| other != path).cloned().collect();
        let said = refused(&archive(&without));
        let file = path.rsplit('/').next().unwrap();
        let stem = file.split(".ko").next().unwrap().trim_end_matches(".0.1").replace('_', "-");
        let stem = if file == "systemd" { "init".to_owned() } else { stem };
        assert!(said.contains(&format!("{stem} (Debian package ")), "{path}: {said}");
    }
}

#[test]
fn an_initramfs_without_tpm_software_is_refused() {
    let without: Vec<_> = files(RELEASE).into_iter().filter(|(path, _)| !path.contains("tss2")).collect();
    expect![[r#"it cannot unlock the disk by TPM: libtss2-esys.so.0 (Debian package libtss2-esys-3.0.2-0t64), libtss2-mu.so.0 (Debian package libtss2-mu-4.0.1-0t64), libtss2-rc.so.0 (Debian package libtss2-rc0t64), libtss2-tcti-device.so.0 (Debian package libtss2-tcti-device0t64) are missing"#]]
    .assert_eq(&refused(&zstd(&archive(&without))));
}

#[test]
fn an_initramfs_of_another_kernel_is_refused() {
    let said = refused(&whole("6.12.2"));
    assert!(said.contains("kernel module dm-crypt (Debian package linux-image-6.12.1;"), "{said}");
}

#[test]
fn what_is_not_looked_into_is_refused_by_name() {
    for (magic, name) in [
        (&b"BZh91AY"[..], "bzip2"),
        (&[0x5d, 0, 0, 0x80], "lzma"),
        (b"\x89LZO\0", "lzo"),
        (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
        (b"PK\x03\x04", "zip"),
    ] {
        assert!(refused(magic).contains(&format!("compressed with {name},")), "{name}");
        assert!(refused(&with_microcode(magic)).contains(name), "{name} behind microcode");
    }
    expect!["at byte 0 stands neither a cpio archive nor a known compression"].assert_eq(&refused(b"MZ"));
    expect!["there is none; the kernel alone cannot unlock the disk"].assert_eq(&refused(b""));
}

#[test]
fn a_damaged_field_is_named() {
    let mut bytes = whole(RELEASE);
    bytes[54] = b'x';
    expect!["it is damaged: filesize at byte 0 of a segment"].assert_eq(&refused(&bytes));
    let mut bytes = whole(RELEASE);
    bytes[94..102].copy_from_slice(b"00000000");
    expect!["it is damaged: namesize at byte 0 of a segment"].assert_eq(&refused(&bytes));
    let old = [b"070707".to_vec(), vec![b'0'; 200]].concat();
    expect!["it is damaged: the magic of a cpio header at byte 0 of a segment"].assert_eq(&refused(&old));
}

#[test]
fn attack_an_initramfs_that_unpacks_without_end_is_refused() {
    let large = gzip(&archive(&[("large".to_owned(), vec![0; 64 << 20])]));
    assert!(refused(&large.repeat(16)).contains("more than 1 GiB unpacked"));
    let many = (0..65).flat_map(|_| gzip(b"")).collect::<Vec<u8>>();
    assert!(refused(&many).contains("more than 64 segments"));
}

#[test]
fn attack_a_window_of_gigabytes_is_refused() {
    // A zstd frame whose header asks for a window of 2 GiB.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
    assert!(refused(&frame).contains("its zstd segment cannot be unpacked"));
}

#[test]
fn unpacking_ends_at_its_deadline() {
    let noise = (0..4 << 20).scan(1u32, |state, _: u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(state.to_be_bytes()[0])
    });
    let large = archive(&[("large".to_owned(), noise.collect())]);
    for bytes in [large.clone(), xz(&large)] {
        let error = check(&bytes, RELEASE, Instant::now()).unwrap_err();
        assert!(chain(&error).contains("unpacking takes too long"), "{}", chain(&error));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(
        front in prop::sample::select(vec![&b""[..], b"070701", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        prop_assert!(judge(&[front, &bytes].concat()).is_err());
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0..4096usize, byte: u8, form in 0..4usize) {
        let plain = whole(RELEASE);
        let mut bytes = [plain.clone(), gzip(&plain), xz(&plain), zstd(&plain)][form].clone();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = judge(&bytes);
    }

    #[test]
    fn a_cut_off_initramfs_is_refused(cut in 1..8192usize, form in 0..4usize) {
        let plain = whole(RELEASE);
        let bytes = [plain.clone(), gzip(&plain), xz(&plain), zstd(&plain)][form].clone();
        let bytes = with_microcode(&bytes);
        // Behind the trailer's name (and, compressed, behind the stream) stands padding alone.
        let cut = 4 + cut % (bytes.len() - 4);
        prop_assert!(judge(&bytes[..bytes.len() - cut]).is_err());
    }
}
