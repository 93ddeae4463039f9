//! Images by digest: `image_dir/<digest>/disk.raw` and `image_dir/<digest>/manifest.json`.
//!
//! The digest is SHA-256 of the manifest's bytes. The manifest holds the digests of the image's chunks; the paravisor
//! checks each chunk when it uses it, the host has no need to.

use std::path::{Path, PathBuf};

use internal_api::launch::sha256_hex;
use internal_api::paravisor::Failure;

use crate::failure;

/// An image whose manifest is the wanted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The raw disk.
    pub disk: PathBuf,
    /// Its manifest.
    pub manifest: PathBuf,
}

/// Finds the image `digest` below `image_dir`.
pub fn find(image_dir: &Path, digest: &str) -> Result<Image, Box<Failure>> {
    const CLAIM: &str = "get the image";
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let expected = "a SHA-256 digest in hexadecimal";
        return Err(failure::lasting("ImageDigestMalformed", CLAIM, expected, digest, "name another image"));
    }
    let folder = image_dir.join(digest);
    let image = Image { disk: folder.join("disk.raw"), manifest: folder.join("manifest.json") };
    let remedy = "import the image again (`casemate image import`), then start the VM again";
    if let Some(missing) = [&image.disk, &image.manifest].into_iter().find(|path| !path.is_file()) {
        let (expected, actual) =
            (format!("image {digest} on the host"), format!("{} is missing", missing.display()));
        return Err(failure::lasting("ImageNotFound", CLAIM, &expected, actual, remedy));
    }
    let manifest = std::fs::read(&image.manifest);
    let manifest = manifest.map_err(|error| failure::io(CLAIM, &image.manifest, &error))?;
    let actual = sha256_hex(&manifest);
    if actual != digest {
        let expected = format!("a manifest with SHA-256 {digest}");
        return Err(failure::lasting("ImageManifestDigest", CLAIM, &expected, actual, remedy));
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(manifest: &[u8]) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().expect("folder");
        let digest = sha256_hex(b"the manifest");
        let image = folder.path().join(&digest);
        std::fs::create_dir(&image).expect("image folder");
        std::fs::write(image.join("disk.raw"), b"disk").expect("disk");
        std::fs::write(image.join("manifest.json"), manifest).expect("manifest");
        (folder, digest)
    }

    #[test]
    fn an_image_is_found_by_its_digest() {
        let (folder, digest) = store(b"the manifest");
        assert!(find(folder.path(), &digest).expect("found").disk.ends_with("disk.raw"));
    }

    #[test]
    fn a_changed_manifest_is_refused() {
        let (folder, digest) = store(b"another manifest");
        let failure = find(folder.path(), &digest).expect_err("changed");
        assert_eq!((failure.code.as_str(), failure.transient), ("ImageManifestDigest", false));
    }

    #[test]
    fn a_missing_image_is_named() {
        let (folder, _) = store(b"");
        let digest = "0".repeat(64);
        let failure = find(folder.path(), &digest).expect_err("missing");
        assert_eq!(failure.code, "ImageNotFound");
        assert!(failure.expected.contains(&digest));
    }

    #[test]
    fn a_digest_that_is_a_path_is_refused() {
        let (folder, _) = store(b"");
        assert_eq!(find(folder.path(), "../../etc").expect_err("path").code, "ImageDigestMalformed");
    }
}
