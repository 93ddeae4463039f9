//! The boot chains of the catalogue's images, told to the attestation service, so that its tokens name the image.
//!
//! The paravisor's binary predicts a chain when an image is imported. It is kept beside the image's manifest, and the
//! service hears of it at once if the platform runs, else at the next `casemate up`. A name holds for ever: it contains
//! the beginning of the image's digest, so that VMs of an older build of an image keep theirs.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use public_api::collateral::BootReference;
use reqwest::Method;
use serde_json::Value;

use super::{CatalogImage, dir, load};
use crate::printer::Printer;
use crate::profile::Profile;

const FILE: &str = "boot-chain.json";
/// Hex characters of a digest that a name shows.
const SHOWN: usize = 12;

/// Writes what an inspection predicted beside the image.
pub fn keep(folder: &Path, chain: &Value) -> Result<()> {
    let path = folder.join(FILE);
    std::fs::write(&path, chain.to_string()).with_context(|| format!("writing {}", path.display()))
}

/// Tells the service what it does not know yet. An image does not fail for it: that is only noted.
pub async fn announce(data_dir: &Path, profile: &Profile, printer: &Printer) {
    if let Err(error) = announce_all(data_dir, profile, printer).await {
        printer.note(&format!("the attestation service does not know the images' boot chains: {error:#}"));
    }
}

async fn announce_all(data_dir: &Path, profile: &Profile, printer: &Printer) -> Result<()> {
    let images = load(data_dir)?.images;
    let ours = images.iter().filter_map(|image| reference(image, data_dir).transpose());
    let ours: Vec<BootReference> = ours.collect::<Result<_>>()?;
    if ours.is_empty() {
        return Ok(());
    }
    let service = profile.attestation_client().await?.0;
    let known: Vec<BootReference> = service.get("/bootReferences").await?;
    let known: BTreeSet<String> = known.into_iter().map(|reference| reference.name).collect();
    for reference in ours.iter().filter(|reference| !known.contains(&reference.name)) {
        let body = serde_json::to_value(reference)?;
        service.send(Method::PUT, "/bootReferences", Some(&body)).await?;
        printer.note(&format!(
            "tokens of its first boot will say x-casemate-boot-reference: {}",
            reference.name
        ));
    }
    Ok(())
}

/// None for an image of before boot chains were kept.
fn reference(image: &CatalogImage, data_dir: &Path) -> Result<Option<BootReference>> {
    let path = dir(data_dir).join(&image.digest).join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let boot_chain =
        serde_json::from_slice(&text).with_context(|| format!("{} is no boot chain", path.display()))?;
    Ok(Some(BootReference { name: name(image), boot_chain, until: None }))
}

/// A catalogue takes any name; what the service does not take is a hyphen here.
fn name(image: &CatalogImage) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-._~".contains(c) { c } else { '-' };
    let text: String = format!("{}-{}", image.name, image.version).chars().map(allowed).take(80).collect();
    format!("{text}+{}", image.digest.get(..SHOWN).unwrap_or(&image.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_the_service_takes_and_tells_two_builds_apart() {
        let image = |name: &str, digest: &str| CatalogImage {
            name: name.to_owned(),
            digest: digest.to_owned(),
            publisher: String::new(),
            offer: String::new(),
            sku: String::new(),
            version: "13.0.0".to_owned(),
            size_bytes: 0,
            disk_encrypted: true,
        };
        assert_eq!(name(&image("debian-13", &"ab".repeat(32))), "debian-13-13.0.0+abababababab");
        assert_eq!(name(&image("my größe/1+2", &"cd".repeat(32))), "my-gr--e-1-2-13.0.0+cdcdcdcdcdcd");
        assert_eq!(name(&image(&"x".repeat(200), &"ef".repeat(32))).len(), 93);
    }
}
