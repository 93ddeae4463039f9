//! `casemate-paravisor inspect-image`: each reason for which an image is refused at import.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use expect_test::{Expect, expect};
use internal_api::launch::sha256_hex;
use serde_json::{Value, json};

use crate::lab::image::{self, IMAGE_BYTES, OPTIONS, ROOT_BYTES, ROOT_START};
use crate::lab::{VARS, VARS_WITH_KEYS, initramfs};
use devkit::guest::disk::Esp;

const VERSION: &str = "6.12.115";

/// A copy of the good image, to be spoiled.
struct Copy {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        std::fs::copy(&image::image().path, &path).unwrap();
        Self { folder, path }
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    fn esp(&self) -> Esp {
        Esp::open(self.file())
    }

    fn with_initramfs(self, bytes: &[u8]) -> Self {
        self.esp().write(&format!("debian/{VERSION}/initrd.img-{VERSION}"), bytes);
        self
    }

    fn judge(&self, vars: &str) -> Output {
        judge(&self.path, &self.folder.path().join("manifest.json"), vars)
    }

    /// The refusal's text; nothing is written.
    fn refused(&self, expected: Expect) {
        self.refused_with(VARS, expected);
    }

    fn refused_with(&self, vars: &str, expected: Expect) {
        let output = self.judge(vars);
        expected.assert_eq(String::from_utf8_lossy(&output.stderr).trim());
        assert_eq!(output.status.code(), Some(3));
        assert!(!self.folder.path().join("manifest.json").exists());
    }
}

fn judge(image: &Path, manifest: &Path, vars: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-paravisor"));
    command.arg("inspect-image").arg("--image").arg(image).arg("--manifest").arg(manifest);
    command.args(["--vars", vars, "--name", "test"]).output().unwrap()
}

#[test]
fn a_good_image_gets_its_manifest() {
    let copy = Copy::new();
    let output = copy.judge(VARS);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let manifest = std::fs::read(copy.folder.path().join("manifest.json")).unwrap();
    assert_eq!(manifest, image::image().manifest);
    assert_eq!(said["digest"], sha256_hex(&manifest));
    assert_eq!((&said["diskEncrypted"], &said["loader"]), (&json!(true), &json!("systemd-boot")));
}

#[test]
fn a_command_line_that_lacks_a_guard_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weak = image::make_in(folder.path(), &OPTIONS.replace("headless=true,", ""));
    let output = judge(&weak.path, &folder.path().join("manifest.json"), VARS);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("headless=true"));
}

#[test]
fn no_partition_table() {
    let copy = Copy::new();
    copy.file().write_all_at(&[0; 512], 512).unwrap();
    copy.refused(expect!["the image's layout: the image has no usable GUID partition table: no header of revision 1.0 in the second block"]);
}

#[test]
fn no_efi_system_partition() {
    let copy = Copy::new();
    image::run("sgdisk", &["-t1:8300", copy.path.to_str().unwrap()]);
    copy.refused(expect!["the image's layout: the image needs exactly one EFI system partition, it has 0"]);
}

#[test]
fn no_loader() {
    let copy = Copy::new();
    copy.esp().remove("EFI/BOOT/BOOTX64.EFI");
    copy.refused(expect!["the boot chain: EFI/BOOT/BOOTX64.EFI is missing on the efi system partition"]);
}

#[test]
fn a_loader_that_nobody_signed() {
    Copy::new().refused_with(
        VARS_WITH_KEYS,
        expect![
            "the boot chain: EFI/BOOT/BOOTX64.EFI has no signature that the firmware or shim would accept"
        ],
    );
}

#[test]
fn no_boot_entry() {
    let copy = Copy::new();
    copy.esp().remove(&format!("loader/entries/debian-{VERSION}.conf"));
    copy.refused(expect!["the boot chain: loader/entries has no entry that can be booted"]);
}

#[test]
fn an_initramfs_without_tpm() {
    let mut files = initramfs::files(VERSION);
    files.retain(|(path, _)| !path.contains("tss2-tcti"));
    Copy::new().with_initramfs(&initramfs::archive(&files)).refused(expect!["the initramfs of debian-6.12.115.conf: it cannot unlock the disk by TPM: libtss2-tcti-device.so.0 (Debian package libtss2-tcti-device0t64) is missing"]);
}

#[test]
fn an_initramfs_of_an_unknown_compression() {
    Copy::new().with_initramfs(&[0x02, 0x21, 0x4c, 0x18, 1, 2, 3]).refused(expect!["the initramfs of debian-6.12.115.conf: it is compressed with lz4, which is not looked into; make it with zstd, gzip or xz"]);
}

#[test]
fn an_initramfs_cut_off() {
    let whole = initramfs::whole(VERSION);
    Copy::new().with_initramfs(&whole[..whole.len() / 2]).refused(expect!["the initramfs of debian-6.12.115.conf: it is cut off: a segment ends within a header, at its byte 1744"]);
}

#[test]
fn an_entry_without_initramfs() {
    let copy = Copy::new();
    let entry = format!("loader/entries/debian-{VERSION}.conf");
    let text = String::from_utf8(copy.esp().read(&entry)).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("initrd")).collect();
    copy.esp().write(&entry, format!("{}\n", kept.join("\n")).as_bytes());
    copy.refused(expect![
        "the initramfs of debian-6.12.115.conf: there is none; the kernel alone cannot unlock the disk"
    ]);
}

#[test]
fn the_initramfs_of_a_plain_image_is_not_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let plain = image::make_in(folder.path(), "root=PARTUUID=1 ro");
    Esp::open(File::options().read(true).write(true).open(&plain.path).unwrap())
        .write(&format!("debian/{VERSION}/initrd.img-{VERSION}"), b"whatever");
    let output = judge(&plain.path, &folder.path().join("manifest.json"), VARS);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["diskEncrypted"], json!(false));
}

#[test]
fn an_image_cut_off_behind_its_partitions() {
    let copy = Copy::new();
    copy.file().set_len(IMAGE_BYTES - 512).unwrap();
    copy.refused(expect!["the image's layout: the image is cut off, or its partition table damaged: AlternateLBA of the header is byte 67108863, the image has 67108352 bytes"]);
}

#[test]
fn an_image_cut_off_within_its_root() {
    let copy = Copy::new();
    copy.file().set_len(ROOT_START + ROOT_BYTES - 4096).unwrap();
    copy.refused(expect!["the image's layout: the image is cut off, or its partition table damaged: EndingLBA of partition 2 is byte 59768831, the image has 59764736 bytes"]);
}

#[test]
fn an_image_cut_off_within_its_table() {
    let copy = Copy::new();
    copy.file().set_len(1024).unwrap();
    copy.refused(expect![
        "the image's layout: the image has no usable GUID partition table: the image is too short for one"
    ]);
}
