//! `casemate image import` as people run it, on files that are refused before they are judged as images.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Refused as the user's matter, with these words and a hint; nothing stays behind.
    fn refused(&self, file: &Path, words: &str) {
        let data = self.file("data");
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
        command.arg("--data-dir").arg(&data).args(["image", "import"]).arg(file).args(["--name", "x"]);
        let Output { status, stderr, .. } = command.output().unwrap();
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains("\nhint: "), "{said}");
        let left = std::fs::read_dir(data.join("images")).into_iter().flatten().count();
        assert_eq!(left, 0, "nothing is left in the images' folder");
    }
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn attack_a_raw_image_that_begins_as_a_qcow2_with_a_backing_file() {
    let place = Place::new();
    let (secret, file) = (place.file("secret"), place.file("disk.raw"));
    std::fs::write(&secret, [b's'; 512]).unwrap();
    let (backing, path) = (secret.to_str().unwrap(), file.to_str().unwrap());
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, path, "1M"]);
    place.refused(&file, "has a backing file");
}

#[test]
fn a_cut_off_qcow2() {
    let place = Place::new();
    let (raw, file) = (place.file("raw"), place.file("disk.qcow2"));
    std::fs::write(&raw, vec![1; 1 << 20]).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), file.to_str().unwrap()]);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    place.refused(&file, "cut off: the cluster of the disk's byte");
}

#[test]
fn what_is_no_file() {
    let place = Place::new();
    place.refused(&place.file("missing"), "is no file");
    place.refused(place.0.path(), "is no file");
    place.refused(Path::new("nbd:localhost:1"), "is no file");
}
