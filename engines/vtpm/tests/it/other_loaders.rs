//! Prediction of GRUB with a plain configuration and of unified kernel images, and what attacks on them change.

use expect_test::expect;
use vtpm::pcr::sha256;
use vtpm::predict::{Loader, PredictError, Prediction};
use vtpm::vars::SecureBootState;

use super::fixture::{ENTRY, LOADER, Machine};
use super::image::{kernel, pe};
use super::signing::{PLATFORM, STRANGER, VENDOR};

const CONFIG: &str = "EFI/debian/grub.cfg";
const REMOVABLE: &str = "EFI/BOOT/BOOTX64.EFI";

fn changed(good: &Machine, other: &Machine) -> Vec<u8> {
    let (good, other) = (good.predict().unwrap(), other.predict().unwrap());
    good.pcrs.iter().filter(|(pcr, value)| other.pcrs.get(pcr) != Some(value)).map(|(pcr, _)| *pcr).collect()
}

fn refusal(machine: &Machine) -> String {
    machine.predict().unwrap_err().to_string()
}

fn of_pcr(prediction: &Prediction, pcr: u8) -> String {
    prediction
        .events
        .iter()
        .filter(|event| event.pcr == pcr)
        .map(|event| format!("{}\n", event.what))
        .collect()
}

fn grub_program(version: &str) -> Vec<u8> {
    let sbat = format!(
        "sbat,1,SBAT Version,sbat,1,url\ngrub,5,Free Software Foundation,grub,{version},url\n\
         grub.debian,5,Debian,grub2,{version}-9,url\n"
    );
    VENDOR.sign(&pe(&[(".text", b"grub"), (".sbat", sbat.as_bytes())]))
}

fn config(arguments: &str) -> String {
    format!("set timeout=0\nmenuentry 'Debian' {{\n linux /vmlinuz {arguments}\n initrd /initrd.img\n}}\n")
}

fn grub() -> Machine {
    Machine::new()
        .without(ENTRY)
        .with(LOADER, grub_program("2.12"))
        .with(CONFIG, config("root=/dev/mapper/root ro"))
        .with("debian/unused", b"x".to_vec())
        .with_root("vmlinuz", VENDOR.sign(&kernel("6.12.2", b"kernel")))
        .with_root("initrd.img", b"initrd".to_vec())
}

#[test]
fn events_of_a_good_grub_boot() {
    let prediction = grub().predict().unwrap();
    assert_eq!((prediction.loader, prediction.entry.as_str()), (Loader::Grub, "Debian"));
    assert_eq!(prediction.options, "root=/dev/mapper/root ro");
    assert_eq!(prediction.version, "6.12.2");
    assert_eq!(prediction.seal_pcrs, [4, 7, 8, 9, 15]);
    expect![[r#"
        grub command: set timeout=0
        grub command: menuentry Debian {
         linux /vmlinuz root=/dev/mapper/root ro
         initrd /initrd.img
        }
        grub command: setparams Debian
        grub command: linux /vmlinuz root=/dev/mapper/root ro
        grub command: /vmlinuz root=/dev/mapper/root ro
        grub command: initrd /initrd.img
    "#]]
    .assert_eq(&of_pcr(&prediction, 8));
    expect![[r#"
        EFI/debian/grub.cfg, opened
        EFI/debian/grub.cfg, read
        kernel file /vmlinuz
        initrd /initrd.img, by grub
        load options by the kernel: BOOT_IMAGE=/vmlinuz root=/dev/mapper/root ro
        initrd /initrd.img, by the kernel
    "#]]
    .assert_eq(&of_pcr(&prediction, 9));
}

#[test]
fn attacks_on_a_grub_boot_change_its_pcrs() {
    let good = grub();
    let shell = grub().with(CONFIG, config("root=/dev/mapper/root ro init=/bin/sh"));
    assert_eq!(changed(&good, &shell), [8, 9]);
    assert_eq!(changed(&good, &grub().with_root("initrd.img", b"evil".to_vec())), [9]);
    let other = VENDOR.sign(&kernel("6.12.2", b"other"));
    assert_eq!(changed(&good, &grub().with_root("vmlinuz", other)), [4, 9]);
    let comment = format!("# comment\n{}", config("root=/dev/mapper/root ro"));
    assert_eq!(changed(&good, &grub().with(CONFIG, comment)), [9]);
}

#[test]
fn grub_that_is_not_modelled_is_refused() {
    assert!(refusal(&grub().with(LOADER, grub_program("2.06"))).contains("grub 2.12 but 2.06"));
    let generated = format!("insmod part_gpt\n{}", config("ro"));
    assert!(refusal(&grub().with(CONFIG, generated)).contains("the command insmod"));
    let elsewhere = format!("search --label OTHER --set=root\n{}", config("ro"));
    assert!(refusal(&grub().with(CONFIG, elsewhere)).contains("another file system than the esp"));
    assert!(refusal(&grub().without(CONFIG)).starts_with("EFI/debian/grub.cfg is missing"));
    let mut off = grub();
    off.secure_boot = SecureBootState::default();
    assert!(refusal(&off).contains("without secure boot"));
}

#[test]
fn kernel_that_shim_would_not_let_grub_start_is_refused() {
    let machine = grub().with_root("vmlinuz", STRANGER.sign(&kernel("6.12.2", b"kernel")));
    assert!(matches!(machine.predict(), Err(PredictError::NotAuthorised(path)) if path == "/vmlinuz"));
}

fn unified(command_line: &[u8], initrd: &[u8], more: &[(&str, &[u8])]) -> Vec<u8> {
    let linux = kernel("6.12.2", b"kernel");
    let sections: [(&str, &[u8]); 6] = [
        (".sdmagic", b"#### LoaderInfo: systemd-stub 257.13 ####"),
        (".osrel", b"ID=debian\n"),
        (".cmdline", command_line),
        (".uname", b"6.12.2"),
        (".initrd", initrd),
        (".linux", &linux),
    ];
    pe(&[&sections, more].concat())
}

fn uki() -> Machine {
    Machine::new().with(REMOVABLE, PLATFORM.sign(&unified(b" root=/dev/mapper/root ro\n", b"initrd!", &[])))
}

#[test]
fn events_of_a_good_unified_boot() {
    let prediction = uki().predict().unwrap();
    assert_eq!((prediction.loader, prediction.version.as_str()), (Loader::Uki, "6.12.2"));
    assert_eq!(prediction.options, "root=/dev/mapper/root ro");
    assert_eq!(prediction.seal_pcrs, [4, 7, 11, 12, 15]);
    assert_eq!((prediction.pcrs[&12], prediction.pcrs[&13]), ([0; 32], [0; 32]));
    expect![[r#"
        section name .linux
        section .linux of EFI/BOOT/BOOTX64.EFI
        section name .osrel
        section .osrel of EFI/BOOT/BOOTX64.EFI
        section name .cmdline
        section .cmdline of EFI/BOOT/BOOTX64.EFI
        section name .initrd
        section .initrd of EFI/BOOT/BOOTX64.EFI
        section name .uname
        section .uname of EFI/BOOT/BOOTX64.EFI
        phase enter-initrd
    "#]]
    .assert_eq(&of_pcr(&prediction, 11));
    expect![[r#"
        start of a boot option
        separator
        program EFI/BOOT/BOOTX64.EFI
    "#]]
    .assert_eq(&of_pcr(&prediction, 4));
    assert!(!of_pcr(&prediction, 7).contains("SbatLevel"));
}

#[test]
fn initrd_of_a_unified_image_ends_with_the_os_release() {
    let prediction = uki().predict().unwrap();
    let header = |inode: u32, mode: u32, size: u32, name: &str| {
        let name_size = name.len() + 1;
        format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}{name}\0",
            0, 1
        )
    };
    let mut archive = b"initrd!\0".to_vec();
    let mut add = |text: &str| {
        archive.extend_from_slice(text.as_bytes());
        archive.resize(archive.len().next_multiple_of(4), 0);
    };
    add(&header(1, 0o40555, 0, ".extra"));
    add(&header(2, 0o100_444, 10, ".extra/os-release"));
    add("ID=debian\n");
    add(&header(0, 0, 0, "TRAILER!!!").replace("0000000b", "0000000B"));
    let digest = prediction.events.iter().rfind(|event| event.pcr == 9).unwrap().digest;
    assert_eq!(hex::encode(digest), hex::encode(sha256(&archive)));
}

#[test]
fn unified_image_behind_shim_is_authorised_by_the_vendor() {
    let image = VENDOR.sign(&unified(b"ro", b"initrd", &[]));
    let prediction = Machine::new().with(LOADER, image).predict().unwrap();
    assert_eq!(prediction.loader, Loader::Uki);
    assert!(of_pcr(&prediction, 7).contains("authority of EFI/BOOT/grubx64.efi: Vendor CA in MokListRT"));
}

#[test]
fn other_command_line_or_initrd_in_a_unified_image_changes_its_pcrs() {
    let other = |image: Vec<u8>| changed(&uki(), &Machine::new().with(REMOVABLE, PLATFORM.sign(&image)));
    assert_eq!(other(unified(b"root=/dev/mapper/root ro init=/bin/sh", b"initrd!", &[])), [4, 9, 11]);
    assert_eq!(other(unified(b" root=/dev/mapper/root ro\n", b"evil", &[])), [4, 9, 11]);
}

#[test]
fn unified_image_of_a_stranger_is_refused() {
    let machine = Machine::new().with(REMOVABLE, STRANGER.sign(&unified(b"ro", b"initrd", &[])));
    assert!(matches!(machine.predict(), Err(PredictError::NotAuthorised(_))));
}

#[test]
fn files_that_the_stub_would_add_are_refused() {
    let companion = uki().with("loader/addons/evil.addon.efi", b"x".to_vec());
    assert!(refusal(&companion).contains("loader/addons is not empty"));
    let companion = uki().with("EFI/BOOT/BOOTX64.EFI.extra.d/evil.cred", b"x".to_vec());
    assert!(refusal(&companion).contains("extra.d is not empty"));
    for section in [".pcrsig", ".profile", ".dtb"] {
        let image = PLATFORM.sign(&unified(b"ro", b"initrd", &[(section, b"x")]));
        assert!(refusal(&Machine::new().with(REMOVABLE, image)).contains(section));
    }
}

#[test]
fn unified_image_without_secure_boot_is_refused() {
    let mut machine = uki();
    machine.secure_boot = SecureBootState::default();
    assert!(refusal(&machine).contains("takes its command line from outside"));
}
