//! Firmware, shim, systemd-boot, and the kernel's own EFI stub.
//!
//! | PCR | events |
//! |---|---|
//! | 4, 5, 7, 14 | firmware and shim; systemd-boot adds `loader.conf` to PCR 5 |
//! | 12 | the kernel's load options, by systemd-boot |
//! | 9 | the same load options, then the initrd, by the kernel's stub |

use std::io::{Read, Seek};

use aws_lc_rs::digest::{Context as Hash, SHA256};

use super::bls::{self, BootEntry, LOADER_CONF};
use super::chain::{Chain, Image};
use super::{Context, Events, Initrd, Loader, PredictError, Prediction, firmware, unsupported};
use crate::bytes::{le16_at, to_utf16le};
use crate::esp::Esp;
use crate::pcr::{Digest, sha256, to_digest};

/// 4 pins the programs, 7 Secure Boot and who vouches, 9 initrd and command line, 12 the command line again by another
/// measurer; 15 is zero until the volume key is measured, so that nobody unseals twice.
const SEAL: [u8; 5] = [4, 7, 9, 12, 15];

/// The oldest kernel whose stub measures as modelled here.
const OLDEST_KERNEL: (u32, u32) = (6, 12);

pub(super) fn predict<D: Read + Seek>(
    context: &Context<'_, D>,
    chain: &Chain,
) -> Result<Prediction, PredictError> {
    if let Some(partition) =
        context.table.partitions.iter().find(|p| p.type_guid == crate::gpt::TYPE_XBOOTLDR)
    {
        return Err(unsupported(format!(
            "partition {} is an extended boot loader partition",
            partition.name
        )));
    }
    let entry = bls::default_entry(&context.esp, &context.loader_vars)?;
    let kernel = Image::read(&context.esp, entry.linux.as_deref().ok_or(PredictError::NoEntry)?)?;
    let release = kernel_release(&kernel.data, &kernel.path)?;
    let options = load_options(&entry)?;
    let config = context.esp.read(LOADER_CONF)?;

    let mut events = Events::default();
    firmware::add_boot_events(&mut events, context, chain, Some(&kernel))?;
    firmware::add_partition_events(&mut events, context, config.as_deref());
    let mut measured = to_utf16le(&options);
    measured.extend_from_slice(&[0, 0]);
    events.add(12, sha256(&measured), format!("load options by systemd-boot: {options}"));
    events.add(9, sha256(&measured), format!("load options by the kernel: {options}"));
    if !entry.initrds.is_empty() {
        events.add(
            9,
            initrd_digest(&context.esp, &entry.initrds)?,
            format!("initrd {}", entry.initrds.join(", ")),
        );
    }
    Ok(Prediction {
        loader: Loader::SystemdBoot,
        entry: entry.id,
        version: if entry.version.is_empty() { release.clone() } else { entry.version },
        release,
        initrd: Initrd::Files(entry.initrds),
        options: entry.options,
        pcrs: events.values(&[15]),
        events: events.0,
        seal_pcrs: SEAL.to_vec(),
    })
}

/// What systemd-boot hands to the kernel: `initrd=` for each initrd, then the entry's options.
fn load_options(entry: &BootEntry) -> Result<String, PredictError> {
    let initrds = entry.initrds.iter().map(|path| format!("initrd={}", path.replace('/', "\\")));
    let words: Vec<String> =
        initrds.chain((!entry.options.is_empty()).then(|| entry.options.clone())).collect();
    if words.is_empty() {
        return Err(unsupported(format!("{} has neither options nor an initrd", entry.id)));
    }
    Ok(words.join(" "))
}

/// SHA-256 of the initrds as one; each but the last is padded with zeros to a multiple of four bytes.
fn initrd_digest<D: Read + Seek>(esp: &Esp<'_, D>, paths: &[String]) -> Result<Digest, PredictError> {
    let mut hash = Hash::new(&SHA256);
    let mut padding = 0usize;
    for path in paths {
        hash.update([0; 3].get(..padding).unwrap_or_default());
        let length = esp.hash_into(path, &mut hash)?.ok_or_else(|| PredictError::Missing(path.clone()))?;
        padding = usize::try_from(length.wrapping_neg() % 4).unwrap_or_default();
    }
    Ok(to_digest(hash.finish().as_ref()))
}

/// The release in a bzImage's set-up header (Linux, `Documentation/arch/x86/boot.rst`), when it is one whose stub is
/// known to measure load options and initrd.
pub(super) fn kernel_release(kernel: &[u8], path: &str) -> Result<String, PredictError> {
    let release = (|| {
        (kernel.get(0x202..0x206)? == b"HdrS").then_some(())?;
        let at = usize::from(le16_at(kernel, 0x20E)?).checked_add(0x200)?;
        let text = kernel.get(at..)?.split(|byte| *byte == 0 || *byte == b' ').next()?;
        std::str::from_utf8(text).ok().filter(|text| text.len() < 128).map(str::to_owned)
    })();
    let release = release.ok_or_else(|| unsupported(format!("{path} is no x86 linux kernel")))?;
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        return Err(unsupported(format!(
            "linux {release} is older than {major}.{minor}, its measurements are not known"
        )));
    }
    Ok(release)
}
