//! devkit's small image, made once for all tests.

use std::sync::OnceLock;

pub use devkit::guest::image::*;

/// The VM's disk is larger than the image.
pub const DISK_BYTES: u64 = 96 << 20;

/// The image of all tests.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| make_in(&crate::support::lasting_folder("image"), OPTIONS))
}
