//! Formats told apart, on files that `qemu-img` made.

use std::path::PathBuf;
use std::process::Command;

use expect_test::{Expect, expect};

use super::*;

const MIB: u64 = 1 << 20;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A raw disk of 8 MiB whose first and last MiB have content.
    fn raw(&self) -> PathBuf {
        let path = self.0.path().join("disk.raw");
        let mut bytes = vec![0; 8 << 20];
        bytes[..1 << 20].fill(1);
        bytes[7 << 20..].fill(2);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn converted(&self, arguments: &str) -> PathBuf {
        let path = self.0.path().join("converted");
        let words = format!("convert -f raw {arguments}");
        qemu_img(words.split(' ').map(str::to_owned).chain([text(&self.raw()), text(&path)]));
        path
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn qemu_img(arguments: impl IntoIterator<Item = String>) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn edit(path: &Path, at: usize, bytes: &[u8]) {
    let mut content = std::fs::read(path).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, content).unwrap();
}

fn cut(path: &Path, by: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - by).unwrap();
}

fn fault(path: &Path) -> String {
    let file = File::open(path).unwrap();
    let image = Image { length: file.metadata().unwrap().len(), file };
    image.recognise().unwrap_err().found
}

fn refused(path: &Path, expected: Expect) {
    expected.assert_eq(&fault(path));
}

#[test]
fn every_form_that_qemu_img_writes_is_known_with_its_size() {
    let folder = Folder::new();
    let known = |path: &Path| recognise(path).unwrap();
    let disk_bytes = Some(8 * MIB);
    assert_eq!(known(&folder.raw()), Recognised { format: Format::Raw, disk_bytes });
    for options in [
        "-O qcow2",
        "-O qcow2 -c",
        "-O qcow2 -o compat=0.10",
        "-O qcow2 -o cluster_size=2M",
        "-O qcow2 -o cluster_size=512",
        "-O qcow2 -o extended_l2=on,cluster_size=128k",
        "-O qcow2 -c -o compression_type=zstd",
        "-O qcow2 -o preallocation=metadata",
    ] {
        let found = known(&folder.converted(options));
        assert_eq!(found, Recognised { format: Format::Qcow2, disk_bytes }, "{options}");
    }
    for options in ["-O vpc -o force_size=on", "-O vpc -o subformat=fixed,force_size=on"] {
        let found = known(&folder.converted(options));
        assert_eq!(found, Recognised { format: Format::Vhd, disk_bytes }, "{options}");
    }
    let found = known(&folder.converted("-O vhdx"));
    assert_eq!(found, Recognised { format: Format::Vhdx, disk_bytes: None });
}

#[test]
fn attack_a_backing_file_is_never_followed() {
    let folder = Folder::new();
    let path = folder.0.path().join("disk.raw");
    let words = ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", &text(&path), "1M"];
    qemu_img(words.map(str::to_owned));
    refused(
        &path,
        expect![[r#"the qcow2 file has a backing file, "/etc/shadow"; it is not whole in itself"#]],
    );
}

#[test]
fn attack_an_external_data_file_is_never_followed() {
    let folder = Folder::new();
    let data = text(&folder.0.path().join("data"));
    let path = folder.converted(&format!("-O qcow2 -o data_file={data}"));
    refused(&path, expect!["the qcow2 file has an external data file; it is not whole in itself"]);
}

#[test]
fn an_encrypted_or_corrupt_or_unknown_qcow2_is_refused() {
    let folder = Folder::new();
    let path = folder.converted("-O qcow2");
    edit(&path, 35, &[2]);
    refused(&path, expect!["the qcow2 file is encrypted (crypt_method 2)"]);
    edit(&path, 35, &[0]);
    edit(&path, 79, &[2]);
    refused(&path, expect!["the qcow2 file is marked as corrupt"]);
    edit(&path, 79, &[0x20]);
    refused(&path, expect!["the qcow2 file has unknown incompatible_features (0x20)"]);
    edit(&path, 7, &[1]);
    refused(&path, expect!["this is a qcow file of version 1, not 2 or 3"]);
}

#[test]
fn a_cut_off_qcow2_is_refused_by_its_field() {
    let folder = Folder::new();
    for options in
        ["-O qcow2", "-O qcow2 -o cluster_size=512", "-O qcow2 -o extended_l2=on,cluster_size=128k"]
    {
        for by in [1, 512, MIB / 2, MIB] {
            let path = folder.converted(options);
            cut(&path, by);
            assert!(fault(&path).contains("cut off: the cluster of the disk's byte"), "{options} {by}");
        }
    }
    let path = folder.converted("-O qcow2 -c");
    cut(&path, 512);
    assert!(fault(&path).contains("cut off: the cluster of the disk's byte"));
    let path = folder.converted("-O qcow2");
    for (left, field) in [(60, "the header"), (100, "l1_table_offset")] {
        File::options().write(true).open(&path).unwrap().set_len(left).unwrap();
        let path = if left == 60 { path.clone() } else { folder.converted("-O qcow2") };
        File::options().write(true).open(&path).unwrap().set_len(left).unwrap();
        assert!(fault(&path).contains(&format!("cut off: {field} reaches")), "{left}: {}", fault(&path));
    }
}

#[test]
fn a_cut_off_vhd_is_refused_by_its_field() {
    let folder = Folder::new();
    let path = folder.converted("-O vpc -o force_size=on");
    cut(&path, 512);
    refused(
        &path,
        expect!["the VHD file is cut off: its footer is missing, only the copy at the start is there"],
    );
    let footer = std::fs::read(&path).unwrap()[..512].to_vec();
    cut(&path, MIB);
    let shorter = [std::fs::read(&path).unwrap(), footer].concat();
    std::fs::write(&path, shorter).unwrap();
    assert!(fault(&path).contains("cut off: block 3 of the allocation table reaches"), "{}", fault(&path));
    let path = folder.converted("-O vpc -o subformat=fixed,force_size=on");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[512..]).unwrap();
    refused(
        &path,
        expect![
            "the file is cut off: the current size in the footer reaches to byte 8389120, the file has 8388608"
        ],
    );
}

#[test]
fn a_differencing_or_damaged_vhd_is_refused() {
    let folder = Folder::new();
    let path = folder.converted("-O vpc -o subformat=fixed,force_size=on");
    let at = 8 << 20;
    edit(&path, at + 60, &[0, 0, 0, 4]);
    refused(&path, expect!["the file is damaged: the footer's checksum does not match"]);
    let content = std::fs::read(&path).unwrap();
    let sum: u32 = content[at..].iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = content[at + 64..at + 68].iter().map(|byte| u32::from(*byte)).sum();
    edit(&path, at + 64, &(!(sum - own)).to_be_bytes());
    refused(&path, expect!["this is a differencing VHD, which needs its parent; it is not whole in itself"]);
}

#[test]
fn other_formats_are_refused_by_name() {
    let folder = Folder::new();
    for (options, name) in [("-O vmdk", "a VMDK file"), ("-O vdi", "a VDI file"), ("-O qed", "a QED file")] {
        assert!(fault(&folder.converted(options)).contains(name), "{name}");
    }
    let path = folder.raw();
    edit(&path, 0, &[0x1f, 0x8b]);
    refused(&path, expect!["this is compressed with gzip; raw, qcow2 and VHD files can be imported"]);
    edit(&path, 0, &[0, 0]);
    cut(&path, 1);
    refused(&path, expect!["the file is cut off: 8388607 bytes are no whole number of 512-byte blocks"]);
    File::create(&path).unwrap();
    refused(&path, expect!["the file is empty"]);
}

#[test]
fn nothing_is_left_to_be_probed() {
    let vhd = Recognised { format: Format::Vhd, disk_bytes: None };
    let options = vhd.options(Path::new("/images/a,b.vhd")).unwrap();
    expect!["driver=vpc,force_size_calc=current_size,file.driver=file,file.filename=/images/a,,b.vhd"]
        .assert_eq(&options);
}

/// The judge's word on some bytes as a file.
fn judged(bytes: &[u8]) -> Result<Recognised, Fault> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    Image { length: bytes.len() as u64, file }.recognise()
}

proptest::proptest! {
    #[test]
    fn any_header_is_judged_without_a_panic(
        magic in proptest::sample::select(vec![qcow2::MAGIC, b"conectix", b"vhdxfile", b""]),
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..700),
    ) {
        let _ = judged(&[magic, &bytes].concat());
    }

    #[test]
    fn any_change_of_a_qcow2_is_judged_without_a_panic(at in 0..112usize, table in 0..16usize, byte: u8) {
        static WHOLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            std::fs::read(Folder::new().converted("-O qcow2 -o cluster_size=512")).unwrap()
        });
        let mut bytes = WHOLE.clone();
        bytes[at] = byte;
        let _ = judged(&bytes);
        let l1 = usize::try_from(number(&WHOLE, 40, 8)).unwrap();
        bytes[at] = WHOLE[at];
        bytes[l1 + table] = byte;
        let _ = judged(&bytes);
    }
}
