//! What the targets share: the time, recorded files, inputs that begin with a mode.

use std::path::PathBuf;

use snp::UnixTime;

/// A time within the validity of AMD's recorded certificates and of those that are made here.
pub(crate) const NOW: UnixTime = UnixTime(1_770_000_000); // 2026-02-02

/// A file of another crate's test data.
pub(crate) fn data(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An input that is read in a certain way: its first byte says in which.
pub(crate) fn in_mode(mode: u8, bytes: &[u8]) -> Vec<u8> {
    [&[mode], bytes].concat()
}

/// The first DER element of `bytes` and what follows it.
pub(crate) fn first_element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    use der::Reader as _;
    let element = der::SliceReader::new(bytes).ok()?.tlv_bytes().ok()?;
    bytes.split_at_checked(element.len())
}

/// The content of a signed DER structure: what its signature covers.
pub(crate) fn signed_part(der: &[u8]) -> Option<&[u8]> {
    use der::{AnyRef, Decode as _};
    first_element(AnyRef::from_der(der).ok()?.value()).map(|(first, _)| first)
}
