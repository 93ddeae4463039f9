//! A unified kernel image: systemd-stub with kernel, initrd and command line in one signed file, started by the firmware
//! or by shim.
//!
//! | PCR | events |
//! |---|---|
//! | 4, 5, 7, 14 | firmware and shim; the kernel inside is not started as an image of its own |
//! | 9 | by the kernel's stub: the command line, and the initrd with what systemd-stub appends to it |
//! | 11 | each section's name and content, then the phase `enter-initrd` |
//! | 12, 13 | zero without credentials, add-ons and extension images, none of which are predicted |

use std::io::{Read, Seek};

use super::chain::Chain;
use super::{Context, Events, Initrd, Loader, PredictError, Prediction, firmware, systemd_boot, unsupported};
use crate::authenticode::Pe;
use crate::bytes::to_utf16le;
use crate::pcr::sha256;

/// PCR 11 at the phase of the initrd: once it is left, nobody unseals.
const SEAL: [u8; 5] = [4, 7, 11, 12, 15];

/// The sections that systemd-stub measures, in its order.
const MEASURED: [&str; 13] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".dtbauto", ".hwids", ".uname",
    ".sbat", ".pcrpkey", ".profile",
];
/// Sections that add files or choices which are not modelled.
const UNKNOWN: [&str; 7] = [".ucode", ".dtb", ".dtbauto", ".hwids", ".pcrpkey", ".pcrsig", ".profile"];
const OLDEST_STUB: u32 = 257;

pub(super) fn predict<D: Read + Seek>(
    context: &Context<'_, D>,
    chain: &Chain,
) -> Result<Prediction, PredictError> {
    let path = &chain.program.path;
    if !context.secure_boot.secure_boot {
        return Err(unsupported(
            "a unified kernel image without secure boot takes its command line from outside",
        ));
    }
    let pe = chain.program.pe()?;
    check_stub(&pe, path)?;
    refuse_companions(context, path)?;
    let section =
        |name: &str| pe.section(name).ok_or_else(|| unsupported(format!("{path} has no section {name}")));
    let release = systemd_boot::kernel_release(section(".linux")?, path)?;
    let options = command_line(section(".cmdline")?, path)?;

    let mut events = Events::default();
    firmware::add_boot_events(&mut events, context, chain, None)?;
    firmware::add_partition_events(&mut events, context, None);
    for name in MEASURED {
        if let Some(content) = pe.section(name) {
            let label = [name.as_bytes(), &[0]].concat();
            events.add(11, sha256(&label), format!("section name {name}"));
            events.add(11, sha256(content), format!("section {name} of {path}"));
        }
    }
    events.add(11, sha256(b"enter-initrd"), "phase enter-initrd");
    let mut measured = to_utf16le(&options);
    measured.extend_from_slice(&[0, 0]);
    events.add(9, sha256(&measured), format!("load options by the kernel: {options}"));
    let initrd = initrd(section(".initrd")?, pe.section(".osrel"));
    events.add(9, sha256(&initrd), format!("initrd of {path}"));
    Ok(Prediction {
        loader: Loader::Uki,
        entry: path.clone(),
        version: release.clone(),
        release,
        initrd: Initrd::Section(path.clone()),
        options,
        pcrs: events.values(&[12, 13, 15]),
        events: events.0,
        seal_pcrs: SEAL.to_vec(),
    })
}

fn check_stub(pe: &Pe<'_>, path: &str) -> Result<(), PredictError> {
    let magic = String::from_utf8_lossy(pe.section(".sdmagic").unwrap_or_default()).into_owned();
    let version = magic.split("systemd-stub ").nth(1).unwrap_or_default();
    let number = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    if number.parse::<u32>().unwrap_or(0) < OLDEST_STUB {
        return Err(unsupported(format!("{path} is not built with systemd-stub {OLDEST_STUB} or newer")));
    }
    if let Some(name) = UNKNOWN.into_iter().find(|name| pe.section(name).is_some()) {
        return Err(unsupported(format!("{path} has a section {name}")));
    }
    Ok(())
}

/// systemd-stub reads add-ons, credentials and extension images beside the image and for all images.
fn refuse_companions<D: Read + Seek>(context: &Context<'_, D>, path: &str) -> Result<(), PredictError> {
    for directory in [format!("{path}.extra.d"), "loader/addons".to_owned(), "loader/credentials".to_owned()]
    {
        if context.esp.list(&directory)?.is_some_and(|files| !files.is_empty()) {
            return Err(unsupported(format!("{directory} is not empty")));
        }
    }
    Ok(())
}

/// The embedded command line without white space around it.
fn command_line(section: &[u8], path: &str) -> Result<String, PredictError> {
    let text = section.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii());
    let text = text.ok_or_else(|| unsupported(format!("the command line of {path} is not plain ascii")))?;
    let text = text.trim_matches(|c: char| c <= ' ');
    if text.is_empty() || text.contains(|c: char| c < ' ') {
        return Err(unsupported(format!("the command line of {path} is empty or has control characters")));
    }
    Ok(text.to_owned())
}

/// What the kernel gets: the section, padded to four bytes, then an archive with `.extra/os-release`.
fn initrd(section: &[u8], os_release: Option<&[u8]>) -> Vec<u8> {
    let mut out = section.to_vec();
    if let Some(content) = os_release {
        pad(&mut out);
        cpio_entry(&mut out, (1, 0o040_555), ".extra", &[]);
        cpio_entry(&mut out, (2, 0o100_444), ".extra/os-release", content);
        out.extend_from_slice(b"070701");
        for field in [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0] {
            out.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        out.extend_from_slice(b"TRAILER!!!\0");
        pad(&mut out);
    }
    out
}

/// One entry of the "newc" cpio format as systemd-stub writes it.
fn cpio_entry(out: &mut Vec<u8>, (inode, mode): (u32, u32), name: &str, content: &[u8]) {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    out.extend_from_slice(b"070701");
    let fields = [inode, mode, 0, 0, 1, 0, length(content.len()), 0, 0, 0, 0, length(name.len() + 1), 0];
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}
