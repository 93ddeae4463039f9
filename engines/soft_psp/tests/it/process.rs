//! The process: its configuration, its files, its end.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use snp::psp::{HostRequest, status};

use crate::processor::{POLICY, Processor, command, write_config};

#[test]
fn the_root_survives_a_restart_and_the_guests_do_not() {
    let mut processor = Processor::start();
    let guest = processor.launch(POLICY);
    let root = processor.root();
    let (_, before) = guest.evidence([5; 64]);
    processor.restart("");
    assert_eq!(processor.root(), root);
    assert!(UnixStream::connect(&guest.socket).is_err(), "the guest's socket is gone");
    let again = processor.launch(POLICY);
    assert_eq!(again.evidence([5; 64]).1, before, "the same certificates");
    assert_ne!(again.context, guest.context);
    let stale = HostRequest::Decommission { context: guest.context };
    assert_eq!(processor.refusal(&stale), status::INVALID_GUEST, "a context of before names no guest of now");
}

#[test]
fn secrets_are_readable_by_their_owner_only() {
    let processor = Processor::start();
    for name in ["state", "run"] {
        let mode = std::fs::metadata(processor.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    for name in ["state/seed", "state/ark.pk8", "state/ask.pk8", "host.sock"] {
        let mode = std::fs::metadata(processor.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn two_processors_cannot_share_a_state_directory() {
    let processor = Processor::start();
    let output = command(processor.dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("in use by another"), "{text}");
    processor.launch(POLICY); // the first one is not disturbed
}

#[test]
fn it_ends_cleanly_and_silently_when_asked_to() {
    let mut processor = Processor::start();
    processor.launch(POLICY);
    assert_eq!(processor.terminate(), (Some(0), String::new()));
}

#[test]
fn keys_that_do_not_belong_to_the_certificates_are_refused() {
    let processor = Processor::start();
    let stranger = Processor::fresh();
    for name in ["ark.pk8", "ask.pk8"] {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        for entry in std::fs::read_dir(processor.dir.path().join("state")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), state.join(entry.file_name())).unwrap();
        }
        std::fs::copy(stranger.dir.path().join("state").join(name), state.join(name)).unwrap();
        assert!(refusal(dir.path(), "").contains("is damaged"), "{name}");
    }
}

#[test]
fn configurations_that_cannot_be_are_refused_by_key() {
    let cases = [
        ("colour = 1", "colour"),
        ("product = \"Naples\"", "Naples"),
        ("chip_id = \"00\"", "chip_id"),
        ("chip_id = \"zz\"", "chip_id"),
        ("[tcb]\nsnp = 1", "boot_loader"),
        ("[tcb]\nboot_loader = 300\ntee = 0\nsnp = 0\nmicrocode = 0", "300"),
    ];
    for (line, word) in cases {
        let dir = tempfile::tempdir().unwrap();
        let text = refusal(dir.path(), line);
        assert!(text.contains(word), "{line}: {text}");
        assert!(!dir.path().join("state").exists(), "nothing is made for {line}");
    }
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), "0.0.0.0:1".parse().unwrap(), "");
    let output = command(dir.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("kds_listen"));
    let deep = dir.path().join("d".repeat(90));
    std::fs::create_dir(&deep).unwrap();
    assert!(refusal(&deep, "").contains("too long for a socket"));
}

/// What a processor with this configuration says before it gives up.
fn refusal(dir: &std::path::Path, config: &str) -> String {
    write_config(dir, "127.0.0.1:0".parse().unwrap(), config);
    let output = command(dir).output().unwrap();
    assert!(!output.status.success(), "{config}");
    String::from_utf8(output.stderr).unwrap()
}
