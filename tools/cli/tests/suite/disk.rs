//! `casemate disk` as people run it, up to where the paravisor's binary takes over (its own tests go on there).

use std::process::Command;

fn refused(arguments: &[&str]) -> String {
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
    let output = command.arg("--data-dir").arg(data.path()).arg("disk").args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_export_is_of_a_vm_or_of_a_folder() {
    let rest = ["--key", "private.pem", "--to", "image.raw"];
    let neither = refused(&[&["export"], rest.as_slice()].concat());
    assert!(neither.contains("required arguments were not provided:\n  <NAME>"), "{neither}");
    let both = refused(&[&["export", "vm", "--host-folder", "dir"], rest.as_slice()].concat());
    assert!(both.contains("cannot be used with"), "{both}");
    let id = refused(&[&["export", "--host-folder", "dir", "--vm-id", "z"], rest.as_slice()].concat());
    assert!(id.contains("--vm-id <VM_ID>"), "{id}");
    let twice = ["--evidence", "e.json", "--fingerprint", "ab"];
    let twice = refused(&[&["export", "vm"], rest.as_slice(), &twice].concat());
    assert!(twice.contains("cannot be used with"), "{twice}");
}

#[test]
fn nothing_is_made_without_the_private_key_and_a_place() {
    assert!(refused(&["export", "vm", "--to", "image.raw"]).contains("--key <PEM>"));
    assert!(refused(&["export", "vm", "--key", "private.pem"]).contains("--to <FILE>"));
    assert!(refused(&["recovery-key", "file.json", "--key", "private.pem"]).contains("--to <FILE>"));
}
