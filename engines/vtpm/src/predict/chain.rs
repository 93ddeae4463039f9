//! Which EFI programs the firmware and shim start, up to the loader.

use std::io::{Read, Seek};

use super::{Loader, PredictError, unsupported};
use crate::authenticode::Pe;
use crate::bytes::utf16le;
use crate::esp::Esp;
use crate::pcr::Digest;

const REMOVABLE: &str = "EFI/BOOT/BOOTX64.EFI";
const FALLBACK: &str = "EFI/BOOT/fbx64.efi";
const SHIM_DEFAULT: &str = "EFI/BOOT/grubx64.efi";
const CSV: &str = "BOOTX64.CSV";

/// An EFI program of the chain.
pub(super) struct Image {
    pub path: String,
    pub data: Vec<u8>,
    /// Its Authenticode SHA-256.
    pub digest: Digest,
}

impl Image {
    pub fn read<D: Read + Seek>(esp: &Esp<'_, D>, path: &str) -> Result<Self, PredictError> {
        let data = esp.read(path)?.ok_or_else(|| PredictError::Missing(path.to_owned()))?;
        let failed = |source| PredictError::Image { path: path.to_owned(), source };
        let digest = Pe::parse(&data).and_then(|pe| pe.sha256()).map_err(failed)?;
        Ok(Self { path: path.to_owned(), data, digest })
    }

    pub fn pe(&self) -> Result<Pe<'_>, PredictError> {
        Pe::parse(&self.data).map_err(|source| PredictError::Image { path: self.path.clone(), source })
    }
}

/// The programs in front of the kernel.
pub(super) struct Chain {
    /// shim, where there is one.
    pub shim: Option<Image>,
    /// The loader: systemd-boot, GRUB or a unified kernel image.
    pub program: Image,
    pub loader: Loader,
}

/// Finds the chain of the boots to come. With Debian's layout the very first boot makes a detour through shim's fallback
/// program, which resets the machine; what counts is the boot after that.
pub(super) fn find<D: Read + Seek>(esp: &Esp<'_, D>) -> Result<Chain, PredictError> {
    let first = Image::read(esp, REMOVABLE)?;
    if first.pe()?.section(".vendor_cert").is_none() {
        let loader = kind_of(&first)?;
        return Ok(Chain { shim: None, program: first, loader });
    }
    let (shim, second) = if esp.exists(FALLBACK)? {
        let (shim, second) = registered(esp)?;
        (Image::read(esp, &shim)?, second)
    } else {
        (first, SHIM_DEFAULT.to_owned())
    };
    if shim.pe()?.section(".vendor_cert").is_none() {
        return Err(unsupported(format!("{} is not shim", shim.path)));
    }
    let program = Image::read(esp, &second)?;
    let loader = kind_of(&program)?;
    Ok(Chain { shim: Some(shim), program, loader })
}

/// The boot option that shim's fallback program makes of the one `BOOTX64.CSV`: shim's path, and the program that shim
/// is told to start.
fn registered<D: Read + Seek>(esp: &Esp<'_, D>) -> Result<(String, String), PredictError> {
    let mut found = Vec::new();
    for directory in esp.list("EFI")?.unwrap_or_default() {
        if !directory.directory || directory.name.eq_ignore_ascii_case("BOOT") {
            continue;
        }
        for csv in [CSV, "BOOT.CSV"] {
            if let Some(content) = esp.read(&format!("EFI/{}/{csv}", directory.name))? {
                found.push((directory.name.clone(), content));
                break;
            }
        }
    }
    match found.as_slice() {
        [(directory, content)] => parse_csv(directory, content),
        [] => Err(PredictError::Missing(format!("EFI/*/{CSV}"))),
        _ => Err(unsupported(format!("several directories have a {CSV}"))),
    }
}

fn parse_csv(directory: &str, content: &[u8]) -> Result<(String, String), PredictError> {
    let name = format!("EFI/{directory}/{CSV}");
    let text = utf16le(content).ok_or_else(|| unsupported(format!("{name} is not utf-16 text")))?;
    let text = text.trim_start_matches('\u{feff}');
    let lines: Vec<&str> =
        text.split(['\n', '\r', '\0']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let [line] = lines.as_slice() else { return Err(unsupported(format!("{name} has several lines"))) };
    let mut fields = line.split(',');
    let file = fields.next().unwrap_or_default().trim();
    let arguments = fields.nth(1).unwrap_or_default().trim();
    if file.is_empty() || file.contains(['/', '\\']) {
        return Err(unsupported(format!("{name} names the program {file}")));
    }
    let second = match arguments.split(' ').next().unwrap_or_default() {
        "" => format!("EFI/{directory}/grubx64.efi"),
        path if path.starts_with('\\') => path.trim_start_matches('\\').replace('\\', "/"),
        relative => format!("EFI/{directory}/{}", relative.replace('\\', "/")),
    };
    Ok((format!("EFI/{directory}/{file}"), second))
}

fn kind_of(image: &Image) -> Result<Loader, PredictError> {
    let pe = image.pe()?;
    let contains = |section: &str, text: &str| {
        let content = pe.section(section).unwrap_or_default();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    };
    if pe.section(".linux").is_some() {
        Ok(Loader::Uki)
    } else if contains(".sdmagic", "systemd-boot") {
        Ok(Loader::SystemdBoot)
    } else if contains(".sbat", "\ngrub,") {
        Ok(Loader::Grub)
    } else {
        Err(unsupported(format!(
            "{} is neither systemd-boot nor grub nor a unified kernel image",
            image.path
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::to_utf16le;

    #[test]
    fn csv_of_debian_names_shim_and_systemd_boot() {
        let text =
            "\u{feff}shimx64.efi,Debian,\\EFI\\systemd\\systemd-bootx64.efi \0,This is the boot entry\n";
        let parsed = parse_csv("debian", &to_utf16le(&text.replace('\0', ""))).unwrap();
        assert_eq!(parsed, ("EFI/debian/shimx64.efi".into(), "EFI/systemd/systemd-bootx64.efi".into()));
    }

    #[test]
    fn csv_without_arguments_means_grub() {
        let parsed = parse_csv("debian", &to_utf16le("shimx64.efi,debian,,comment\n")).unwrap();
        assert_eq!(parsed.1, "EFI/debian/grubx64.efi");
    }
}
