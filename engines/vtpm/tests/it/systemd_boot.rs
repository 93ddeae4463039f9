//! Prediction of the chain shim, systemd-boot, kernel, and what each attack on it changes.

use expect_test::expect;
use vtpm::event_log::{Event, EventLog};
use vtpm::guid::SHIM;
use vtpm::pcr::sha256;
use vtpm::predict::{Loader, PredictError, Prediction, difference, difference_of};
use vtpm::vars::SecureBootState;

use super::fixture::{ENTRY, INITRD, KERNEL, LOADER, Machine, entry, shim, systemd_boot};
use super::image::{kernel, pe};
use super::signing::{PLATFORM, STRANGER, VENDOR};

/// The PCRs in which two boots differ.
fn changed(machine: &Machine) -> Vec<u8> {
    let (good, other) = (Machine::new().predict().unwrap(), machine.predict().unwrap());
    assert_eq!(good.pcrs.len(), other.pcrs.len());
    good.pcrs.iter().filter(|(pcr, value)| other.pcrs.get(pcr) != Some(value)).map(|(pcr, _)| *pcr).collect()
}

fn refusal(machine: &Machine) -> String {
    machine.predict().unwrap_err().to_string()
}

fn text(prediction: &Prediction) -> String {
    prediction.events.iter().map(|event| format!("{:2} {}\n", event.pcr, event.what)).collect()
}

#[test]
fn events_of_a_good_boot() {
    let prediction = Machine::new().predict().unwrap();
    expect![[r#"
         7 variable SecureBoot = 1
         7 variable PK, 2 bytes
         7 variable KEK, 3 bytes
         7 variable db, 809 bytes
         7 variable dbx, 3 bytes
         7 separator
         7 authority of EFI/BOOT/BOOTX64.EFI: Platform CA in db
         7 variable SbatLevel = sbat,1,2025021800 shim,4 grub,5
        14 shim's MokList
        14 shim's MokListX
        14 shim's MokListTrusted
         7 authority of EFI/BOOT/grubx64.efi: Vendor CA in MokListRT
         4 start of a boot option
         4 separator
         4 program EFI/BOOT/BOOTX64.EFI
         4 program EFI/BOOT/grubx64.efi
         4 program /debian/6.12.2/linux
         5 separator
         5 partition table
         5 loader.conf
         5 end of boot services, begun
         5 end of boot services, done
        12 load options by systemd-boot: initrd=\debian\6.12.2\initrd.img rd.luks.name=u=root ro quiet
         9 load options by the kernel: initrd=\debian\6.12.2\initrd.img rd.luks.name=u=root ro quiet
         9 initrd /debian/6.12.2/initrd.img
    "#]]
    .assert_eq(&text(&prediction));
    assert_eq!(prediction.loader, Loader::SystemdBoot);
    assert_eq!(prediction.entry, "debian-6.12.2.conf");
    assert_eq!(prediction.version, "6.12.2");
    assert_eq!(prediction.options, "rd.luks.name=u=root ro quiet");
    assert_eq!(prediction.seal_pcrs, [4, 7, 9, 12, 15]);
    assert_eq!(prediction.seal_values()[&15], [0; 32]);
}

#[test]
fn digests_of_options_and_initrd_are_of_the_bytes_that_the_kernel_gets() {
    let prediction = Machine::new().predict().unwrap();
    let options = "initrd=\\debian\\6.12.2\\initrd.img rd.luks.name=u=root ro quiet\0";
    let options = sha256(&options.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    let of = |pcr| {
        prediction
            .events
            .iter()
            .filter(|event| event.pcr == pcr)
            .map(|event| event.digest)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(12), [options]);
    assert_eq!(of(9), [options, sha256(b"initrd")]);
}

#[test]
fn debian_layout_gives_the_same_pcrs_as_the_short_one() {
    let csv = "\u{feff}shimx64.efi,Debian,\\EFI\\systemd\\systemd-bootx64.efi \\0,comment\n";
    let csv: Vec<u8> = csv.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let machine = Machine::new()
        .without(LOADER)
        .with("EFI/BOOT/fbx64.efi", b"fallback".to_vec())
        .with("EFI/debian/shimx64.efi", shim())
        .with("EFI/debian/BOOTX64.CSV", csv)
        .with("EFI/systemd/systemd-bootx64.efi", systemd_boot(&VENDOR));
    assert_eq!(changed(&machine), [] as [u8; 0]);
}

#[test]
fn other_kernel_changes_pcr_4() {
    assert_eq!(changed(&Machine::new().with(KERNEL, VENDOR.sign(&kernel("6.12.2", b"other")))), [4]);
}

#[test]
fn other_loader_changes_pcr_4() {
    let loader = VENDOR.sign(&pe(&[(".text", b"older"), (".sdmagic", b"systemd-boot 256")]));
    assert_eq!(changed(&Machine::new().with(LOADER, loader)), [4]);
}

#[test]
fn other_initrd_changes_pcr_9() {
    assert_eq!(changed(&Machine::new().with(INITRD, b"initrd\0".to_vec())), [9]);
}

#[test]
fn shell_added_to_the_command_line_changes_pcrs_9_and_12() {
    let options = "rd.luks.name=u=root ro quiet init=/bin/sh";
    assert_eq!(changed(&Machine::new().with(ENTRY, entry("6.12.2", options))), [9, 12]);
}

#[test]
fn secure_boot_switched_off_changes_pcr_7() {
    let mut machine = Machine::new();
    machine.secure_boot.secure_boot = false;
    assert_eq!(changed(&machine), [7]);
    machine.secure_boot = SecureBootState::default();
    assert_eq!(changed(&machine), [7]);
}

#[test]
fn secure_boot_off_needs_no_signature_and_resets_the_revocation_level() {
    let mut machine = Machine::new().with(KERNEL, kernel("6.12.2", b"unsigned"));
    machine.secure_boot = SecureBootState::default();
    machine.sbat_level = Some(b"sbat,1,2030010100\nshim,9\n".to_vec());
    let text = text(&machine.predict().unwrap());
    assert!(text.contains("variable SbatLevel = sbat,1,2021030218\n"), "{text}");
    assert!(!text.contains("authority"), "{text}");
}

#[test]
fn foreign_revocation_list_changes_pcr_7() {
    let mut machine = Machine::new();
    machine.secure_boot.dbx = b"another".to_vec();
    assert_eq!(changed(&machine), [7]);
}

#[test]
fn newer_stored_revocation_level_counts_and_an_older_one_does_not() {
    let mut machine = Machine::new();
    machine.sbat_level = Some(b"sbat,1,2024010100\nshim,4\n".to_vec());
    assert_eq!(changed(&machine), [] as [u8; 0]);
    machine.sbat_level = Some(b"sbat,1,2025021800\nshim,4\ngrub,5\n".to_vec());
    assert_eq!(changed(&machine), [] as [u8; 0]);
    machine.sbat_level = Some(b"sbat,1,2026010100\nshim,5\n".to_vec());
    assert_eq!(changed(&machine), [7]);
}

#[test]
fn loader_conf_is_not_sealed_to() {
    let machine = Machine::new().with("loader/loader.conf", b"default debian-*.conf\neditor yes\n".to_vec());
    assert_eq!(changed(&machine), [5]);
}

#[test]
fn loader_signed_by_a_stranger_is_refused() {
    let machine = Machine::new().with(LOADER, systemd_boot(&STRANGER));
    assert_eq!(
        refusal(&machine),
        "EFI/BOOT/grubx64.efi has no signature that the firmware or shim would accept"
    );
}

#[test]
fn kernel_with_a_flipped_bit_under_a_genuine_signature_is_refused() {
    let mut machine = Machine::new();
    let kernel = machine.files.get_mut(KERNEL).unwrap();
    kernel[0x800] ^= 1;
    assert!(matches!(machine.predict(), Err(PredictError::NotAuthorised(path)) if path.contains("linux")));
}

#[test]
fn shim_of_an_authority_that_only_bears_the_name_is_refused() {
    let unsigned = pe(&[(".text", b"shim"), (".vendor_cert", &[0; 16])]);
    let machine = Machine::new().with("EFI/BOOT/BOOTX64.EFI", STRANGER.sign(&unsigned));
    assert!(machine.predict().is_err());
    let mut machine = Machine::new();
    machine.secure_boot.db = super::fixture::signature_list(&SHIM, &STRANGER.certificate);
    assert!(matches!(machine.predict(), Err(PredictError::NotAuthorised(path)) if path.contains("BOOTX64")));
}

#[test]
fn second_signature_counts_where_the_first_is_not_accepted() {
    let unsigned = kernel("6.12.2", b"kernel");
    let machine = Machine::new().with(KERNEL, VENDOR.sign(&STRANGER.sign(&unsigned)));
    assert_eq!(changed(&machine), [] as [u8; 0]);
}

#[test]
fn kernel_vouched_for_by_db_adds_that_authority() {
    let machine = Machine::new().with(KERNEL, PLATFORM.sign(&kernel("6.12.2", b"kernel")));
    assert_eq!(changed(&machine), [7]);
}

#[test]
fn unified_image_dropped_beside_the_entries_is_refused() {
    let machine = Machine::new().with("EFI/Linux/debian-999.EFI", b"evil".to_vec());
    assert!(matches!(machine.predict(), Err(PredictError::UnifiedImage(_))));
}

#[test]
fn kernel_whose_measurements_are_not_known_is_refused() {
    let machine = Machine::new().with(KERNEL, VENDOR.sign(&kernel("6.1.0-50-amd64", b"kernel")));
    assert!(refusal(&machine).contains("linux 6.1.0-50-amd64 is older than 6.12"));
}

#[test]
fn users_own_keys_in_shim_are_refused() {
    let mut machine = Machine::new();
    machine.loader_vars.mok_variables = vec!["MokSBState".to_owned()];
    assert!(refusal(&machine).contains("MokSBState"));
}

#[test]
fn missing_files_are_named() {
    assert!(refusal(&Machine::new().without(LOADER)).starts_with("EFI/BOOT/grubx64.efi is missing"));
    assert!(refusal(&Machine::new().without(INITRD)).starts_with("/debian/6.12.2/initrd.img is missing"));
    assert!(matches!(Machine::new().without(KERNEL).predict(), Err(PredictError::NoEntry)));
}

/// An older, genuine kernel that an update left on the boot partition.
fn with_older_kernel() -> Machine {
    Machine::new()
        .with("debian/6.12.1/linux", VENDOR.sign(&kernel("6.12.1", b"old kernel")))
        .with("debian/6.12.1/initrd.img", b"old".to_vec())
        .with("loader/entries/debian-6.12.1.conf", entry("6.12.1", "ro"))
}

#[test]
fn newest_entry_is_chosen() {
    assert_eq!(changed(&with_older_kernel()), [] as [u8; 0]);
}

#[test]
fn downgrade_by_a_firmware_variable_is_seen() {
    let mut machine = with_older_kernel();
    machine.loader_vars.entry_default = Some("Debian-6.12.1.conf".to_owned());
    let prediction = machine.predict().unwrap();
    assert_eq!((prediction.entry.as_str(), prediction.version.as_str()), ("debian-6.12.1.conf", "6.12.1"));
    assert_eq!(changed(&machine), [4, 9, 12]);
}

#[test]
fn one_shot_entry_goes_before_the_default() {
    let mut machine = with_older_kernel();
    machine.loader_vars.entry_default = Some("debian-6.12.2.conf".to_owned());
    machine.loader_vars.entry_one_shot = Some("debian-6.12.1.conf".to_owned());
    assert_eq!(machine.predict().unwrap().version, "6.12.1");
}

#[test]
fn saved_entry_is_the_last_booted_one() {
    let mut machine = with_older_kernel().with("loader/loader.conf", b"default @saved\n".to_vec());
    assert_eq!(machine.predict().unwrap().version, "6.12.2");
    machine.loader_vars.entry_last_booted = Some("debian-6.12.1.conf".to_owned());
    assert_eq!(machine.predict().unwrap().version, "6.12.1");
}

#[test]
fn entry_without_tries_left_is_passed_over() {
    let machine = with_older_kernel()
        .without(ENTRY)
        .with("loader/entries/debian-6.12.2+0-3.conf", entry("6.12.2", "rd.luks.name=u=root ro quiet"));
    assert_eq!(machine.predict().unwrap().version, "6.12.1");
    let machine = Machine::new()
        .without(ENTRY)
        .with("loader/entries/debian-6.12.2+3.conf", entry("6.12.2", "rd.luks.name=u=root ro quiet"));
    assert_eq!(changed(&machine), [] as [u8; 0]);
}

#[test]
fn several_initrds_are_padded_to_four_bytes_and_named_in_order() {
    let text = String::from_utf8(entry("6.12.2", "ro")).unwrap() + "initrd /microcode.img\n";
    let machine = Machine::new().with(ENTRY, text).with("debian/microcode.img", b"unused".to_vec());
    assert!(refusal(&machine).contains("/microcode.img is missing"));
    let text = String::from_utf8(entry("6.12.2", "ro")).unwrap() + "initrd /debian/microcode.img\n";
    let prediction =
        Machine::new().with(ENTRY, text).with("debian/microcode.img", b"more".to_vec()).predict().unwrap();
    assert_eq!(prediction.events.last().unwrap().digest, sha256(b"initrd\0\0more"));
}

#[test]
fn difference_names_the_event_that_an_attack_changed() {
    let good = Machine::new().predict().unwrap();
    let evil = Machine::new().with(INITRD, b"evil".to_vec()).predict().unwrap();
    let log = |prediction: &Prediction| EventLog {
        events: prediction
            .events
            .iter()
            .map(|event| Event {
                number: 1,
                pcr: event.pcr,
                kind: 0xD,
                digest: event.digest,
                data: Vec::new(),
            })
            .collect(),
        ..EventLog::default()
    };
    assert_eq!(difference(&good, &log(&good)), [] as [String; 0]);
    assert_eq!(log(&good).replay().value(9), good.pcrs.get(&9));
    let named = difference(&good, &log(&evil));
    assert_eq!(named.len(), 1);
    assert!(named[0].starts_with("PCR 9 event 2: expected initrd /debian/6.12.2/initrd.img ("), "{named:?}");
}

#[test]
fn difference_names_missing_and_unexpected_events() {
    let good = Machine::new().predict().unwrap();
    let mut extends: Vec<_> = good.events.iter().map(|event| (event.pcr, event.digest)).collect();
    extends.pop();
    extends.push((12, [7; 32]));
    let named = difference_of(&good, &extends);
    assert_eq!(
        named,
        [
            "PCR 9 event 2: initrd /debian/6.12.2/initrd.img was not measured".to_owned(),
            format!("PCR 12: unexpected event {}", "07".repeat(32)),
        ]
    );
}
