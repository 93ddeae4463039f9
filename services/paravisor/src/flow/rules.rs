//! Which kernel command lines the volume key may be sealed to.
//!
//! The command line is what keeps the disk's own defences up: it makes the initramfs unseal without a prompt, measure the
//! volume's key, refuse credentials of the host, and power off instead of giving a shell. The image's own options must
//! have all of this. A later entry, which the guest wrote, may add or drop other words; every *guarded* word must be there
//! exactly as in the image's options, none more and none less.

use uuid::Uuid;

use crate::failure::Stop;

const RULE: &str =
    "the entry that boots keeps the words that guard the disk: volume, measurement, no credentials, no shell";

/// Keys (before `=`) of guarded words, with `-` for `_` as the kernel and systemd read them. A trailing `*` guards
/// everything that begins so.
const GUARDED: &[&str] = &[
    "--",
    "-b",
    "-s",
    "1",
    "2",
    "3",
    "4",
    "5",
    "efi",
    "emergency",
    "init",
    "init-on-*",
    "initrd",
    "luks*",
    "lsm",
    "module.sig-enforce",
    "lockdown",
    "rd*",
    "rescue",
    "root",
    "rootflags",
    "rootfstype",
    "roothash",
    "s",
    "single",
    "systemd.*",
    "udev.*",
    "usrhash",
];

/// Checks the options of the image's own entry.
pub fn approve(options: &str, uuid: Uuid, mapping: &str) -> Result<(), Stop> {
    let words: Vec<&str> = words(options)?;
    let has = |wanted: &str| words.contains(&wanted);
    let luks = format!("rd.luks.options={uuid}=");
    let crypt: Vec<&str> = words
        .iter()
        .find_map(|word| word.strip_prefix(&luks))
        .map(|list| list.split(',').collect())
        .unwrap_or_default();
    let required = [
        (has(&format!("rd.luks.name={uuid}={mapping}")), format!("rd.luks.name={uuid}={mapping}")),
        (crypt.contains(&"tpm2-device=auto"), format!("{luks}...tpm2-device=auto")),
        (crypt.contains(&"headless=true"), format!("{luks}...headless=true")),
        (crypt.contains(&"tpm2-measure-pcr=yes"), format!("{luks}...tpm2-measure-pcr=yes")),
        (has(&format!("root=/dev/mapper/{mapping}")), format!("root=/dev/mapper/{mapping}")),
        (has("systemd.setenv=SYSTEMD_FORCE_MEASURE=1"), "systemd.setenv=SYSTEMD_FORCE_MEASURE=1".to_owned()),
        (has("systemd.import_credentials=no"), "systemd.import_credentials=no".to_owned()),
        (has("rd.shell=0"), "rd.shell=0".to_owned()),
        (has("rd.emergency=poweroff"), "rd.emergency=poweroff".to_owned()),
    ];
    let missing: Vec<String> =
        required.into_iter().filter(|(there, _)| !there).map(|(_, word)| word).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(refused(&missing.join(" "), options, "use an image whose kernel options have these words"))
}

/// Checks the options of the entry that would boot next against those of the image.
pub fn check(options: &str, approved: &str) -> Result<(), Stop> {
    if options == approved {
        return Ok(());
    }
    let (found, wanted) = (guarded(options)?, guarded(approved)?);
    if found == wanted {
        return Ok(());
    }
    Err(refused(
        &wanted.join(" "),
        &found.join(" "),
        "put these words of the kernel options back (/etc/kernel/cmdline) before the next reboot; from outside, the \
         recovery key opens the disk",
    ))
}

fn refused(expected: &str, actual: &str, remedy: &str) -> Stop {
    Stop::refused(
        "KernelOptionsRefused",
        "kernel command line of the next boot",
        expected,
        actual,
        RULE,
        remedy,
    )
}

/// The guarded words, in order of the text so that two lists can be compared whatever stands between.
fn guarded(options: &str) -> Result<Vec<&str>, Stop> {
    let mut found: Vec<&str> = words(options)?.into_iter().filter(|word| is_guarded(word)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Words by white space. Quotes would hide a word from this reader that the kernel sees, so there are none.
fn words(options: &str) -> Result<Vec<&str>, Stop> {
    if options.contains(['"', '\'', '\\']) || options.chars().any(|c| c.is_control()) {
        return Err(refused(
            "options without quotes and control characters",
            options,
            "write the options without them",
        ));
    }
    Ok(options.split_whitespace().collect())
}

fn is_guarded(word: &str) -> bool {
    let key = word.split('=').next().unwrap_or(word).replace('_', "-");
    GUARDED.iter().any(|guarded| match guarded.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == *guarded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "rd.luks.name=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee=root \
        rd.luks.options=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee=tpm2-device=auto,headless=true,tpm2-measure-pcr=yes \
        systemd.setenv=SYSTEMD_FORCE_MEASURE=1 systemd.import_credentials=no rd.shell=0 rd.emergency=poweroff \
        root=/dev/mapper/root ro console=ttyS0";

    fn uuid() -> Uuid {
        Uuid::parse_str("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee").unwrap()
    }

    #[test]
    fn the_images_own_options_are_approved() {
        approve(IMAGE, uuid(), "root").unwrap();
    }

    #[test]
    fn an_image_that_lacks_any_of_the_words_is_refused() {
        for word in [
            "rd.luks.name=",
            "tpm2-device=auto",
            "headless=true",
            "tpm2-measure-pcr=yes",
            "systemd.setenv",
            "systemd.import_credentials=no",
            "rd.shell=0",
            "rd.emergency=poweroff",
            "root=/dev",
        ] {
            let stop = approve(&IMAGE.replace(word, "x"), uuid(), "root").unwrap_err();
            assert_eq!(stop.failure().code, "KernelOptionsRefused", "{word}");
        }
        assert!(approve(IMAGE, Uuid::nil(), "root").is_err(), "another volume");
        assert!(approve(IMAGE, uuid(), "other").is_err(), "another mapping");
    }

    #[test]
    fn harmless_words_may_come_and_go() {
        for options in [
            format!("{IMAGE} quiet loglevel=3 mitigations=off"),
            IMAGE.replace(" console=ttyS0", ""),
            IMAGE.replace(" ro ", " rw "),
        ] {
            check(&options, IMAGE).unwrap();
        }
    }

    #[test]
    fn attack_words_that_open_the_guest_are_refused() {
        for word in [
            "init=/bin/sh",
            "rdinit=/bin/sh",
            "rd.break",
            "rd.shell=1",
            "rd.shell",
            "rd_shell",
            "rd.emergency=reboot",
            "systemd.import_credentials=yes",
            "systemd.import-credentials=yes",
            "systemd.debug_shell",
            "systemd.unit=rescue.target",
            "systemd.set_credential=x:y",
            "rd.systemd.unit=emergency.target",
            "rd.luks.name=11111111-2222-3333-4444-555555555555=root",
            "luks.name=11111111-2222-3333-4444-555555555555=root",
            "luks=no",
            "root=/dev/vda9",
            "single",
            "emergency",
            "1",
            "-b",
            "--",
            "\"init=/bin/sh\"",
            "i\\nit=/bin/sh",
        ] {
            let options = format!("{IMAGE} {word}");
            assert!(check(&options, IMAGE).is_err(), "{word}");
            assert!(check(&format!("{word} {IMAGE}"), IMAGE).is_err(), "{word} in front");
        }
    }

    #[test]
    fn attack_dropping_or_doubling_a_guard_is_refused() {
        for (from, to) in [
            (",tpm2-measure-pcr=yes", ""),
            (",headless=true", ""),
            ("rd.shell=0", ""),
            ("systemd.import_credentials=no", ""),
            ("rd.shell=0", "rd.shell=0 rd.shell=0"),
        ] {
            assert!(check(&IMAGE.replace(from, to), IMAGE).is_err(), "{from}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(options in ".{0,200}") {
            let _ = (check(&options, IMAGE), approve(&options, uuid(), "root"));
        }
    }
}
