//! Images: `catalog.json` of the image directory, read anew at each look-up, and the digests that it vouches for.
//!
//! The control plane never opens an image. It knows names, sizes and manifest digests; the host fetches by digest and
//! the paravisor checks what it got.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::refusal::{Kind, Refusal};

/// The image directory.
#[derive(Clone, Debug)]
pub struct Catalogue {
    directory: PathBuf,
}

#[derive(Debug, Deserialize)]
struct File {
    images: Vec<Image>,
}

/// An image of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Name of its own resource.
    pub name: String,
    /// SHA-256 (hex) of its manifest.
    pub digest: String,
    /// Azure's four-part name.
    #[serde(default)]
    pub publisher: String,
    /// Second part.
    #[serde(default)]
    pub offer: String,
    /// Third part.
    #[serde(default)]
    pub sku: String,
    /// Fourth part.
    #[serde(default)]
    pub version: String,
    /// Size of the raw image.
    pub size_bytes: u64,
    /// Whether its OS disk can be encrypted before the first boot (`DiskWithVMGuestState`).
    #[serde(default = "yes")]
    pub disk_encrypted: bool,
}

fn yes() -> bool {
    true
}

impl Catalogue {
    /// The catalogue of a directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// All images. No catalogue is an empty one: the first image has yet to be built.
    pub fn images(&self) -> Result<Vec<Image>, Refusal> {
        let path = self.directory.join("catalog.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let file: File = serde_json::from_str(&text).map_err(|error| unreadable(&path, &error))?;
        match file.images.iter().find(|image| !is_digest(&image.digest)) {
            Some(image) => Err(unreadable(&path, &format!("image {} has no SHA-256 digest", image.name))),
            None => Ok(file.images),
        }
    }

    /// The image of that name.
    pub fn by_name(&self, name: &str) -> Result<Option<Image>, Refusal> {
        Ok(self.images()?.into_iter().find(|image| image.name.eq_ignore_ascii_case(name)))
    }

    /// The image of that manifest digest.
    pub fn by_digest(&self, digest: &str) -> Result<Option<Image>, Refusal> {
        Ok(self.images()?.into_iter().find(|image| image.digest.eq_ignore_ascii_case(digest)))
    }

    /// The image of a four-part name; `latest` is the greatest version.
    pub fn by_urn(
        &self,
        publisher: &str,
        offer: &str,
        sku: &str,
        version: &str,
    ) -> Result<Option<Image>, Refusal> {
        let same = |left: &str, right: &str| left.eq_ignore_ascii_case(right);
        let mut images = self.images()?;
        images.retain(|image| {
            same(&image.publisher, publisher) && same(&image.offer, offer) && same(&image.sku, sku)
        });
        if !same(version, "latest") {
            images.retain(|image| same(&image.version, version));
        }
        Ok(images.into_iter().max_by_key(|image| version_key(&image.version)))
    }
}

/// Orders versions by their numbers: 1.10.0 is newer than 1.9.0.
pub fn version_key(version: &str) -> Vec<(u64, String)> {
    version.split('.').map(|part| (part.parse().unwrap_or(0), part.to_owned())).collect()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Refusal {
    tracing::error!("cannot read {}: {why}", path.display());
    Refusal::new(
        Kind::Internal,
        "ImageCatalogueUnreadable",
        "the image catalogue cannot be read; the log says why",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(text: &str) -> (tempfile::TempDir, Catalogue) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("catalog.json"), text).unwrap();
        let catalogue = Catalogue::new(directory.path());
        (directory, catalogue)
    }

    fn entry(name: &str, version: &str) -> String {
        let digest = public_digest(name);
        format!(
            r#"{{"name":"{name}","digest":"{digest}","publisher":"P","offer":"o","sku":"s","version":"{version}","sizeBytes":1,"diskEncrypted":true}}"#
        )
    }

    fn public_digest(name: &str) -> String {
        internal_api::launch::sha256_hex(name.as_bytes())
    }

    #[test]
    fn latest_is_the_greatest_number_not_the_greatest_text() {
        let text = format!(r#"{{"images":[{},{}]}}"#, entry("a", "1.9.0"), entry("b", "1.10.0"));
        let (_directory, catalogue) = catalogue(&text);
        assert_eq!(catalogue.by_urn("p", "O", "S", "latest").unwrap().unwrap().name, "b");
        assert_eq!(catalogue.by_urn("p", "O", "S", "1.9.0").unwrap().unwrap().name, "a");
        assert_eq!(catalogue.by_urn("p", "O", "S", "2").unwrap(), None);
        assert_eq!(catalogue.by_name("A").unwrap().unwrap().name, "a");
        assert_eq!(catalogue.by_digest(&public_digest("b")).unwrap().unwrap().name, "b");
    }

    #[test]
    fn no_catalogue_is_empty_and_a_broken_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Catalogue::new(directory.path()).images().unwrap(), []);
        for text in ["", "{", r#"{"images":[{"name":"a","digest":"../../etc","sizeBytes":1}]}"#] {
            let (_directory, catalogue) = catalogue(text);
            assert_eq!(catalogue.images().unwrap_err().code, "ImageCatalogueUnreadable", "{text}");
        }
    }
}
