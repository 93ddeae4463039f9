//! What an initramfs needs to unlock a LUKS2 root by TPM on a Casemate VM, and the Debian package that brings it.
//!
//! The list was made by reading systemd 257's `cryptsetup.c` and `tpm2-util.c` and an initramfs that unlocks: the
//! generator reads `rd.luks.name=`, `systemd-cryptsetup` links libcryptsetup and loads libtss2's esys, rc, mu and device
//! transport by `dlopen`, so that no dependency pulls these in. The token plug-in of libcryptsetup
//! (`libcryptsetup-token-systemd-tpm2.so`) is not among them: systemd passes it by when `tpm2-measure-pcr=` is set.
//! Libraries that those link are not looked for; every maker of an initramfs copies them along.

use std::fmt;

use super::contents::Contents;

const PROGRAMS: [(&str, &[&str], &str); 3] = [
    ("init", &["init"], "dracut"),
    (
        "systemd-cryptsetup",
        &["usr/bin/systemd-cryptsetup", "usr/lib/systemd/systemd-cryptsetup"],
        "systemd-cryptsetup",
    ),
    (
        "systemd-cryptsetup-generator",
        &["usr/lib/systemd/system-generators/systemd-cryptsetup-generator"],
        "systemd-cryptsetup",
    ),
];

const FOLDERS: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"];
const LIBRARIES: [(&str, &str); 5] = [
    ("libcryptsetup.so.12", "libcryptsetup12"),
    ("libtss2-esys.so.0", "libtss2-esys-3.0.2-0t64"),
    ("libtss2-mu.so.0", "libtss2-mu-4.0.1-0t64"),
    ("libtss2-rc.so.0", "libtss2-rc0t64"),
    ("libtss2-tcti-device.so.0", "libtss2-tcti-device0t64"),
];

/// Any one of each row: device mapper, the volume's cipher, the VM's TPM, its disk, its root file system.
const MODULES: [&[&str]; 7] = [
    &["dm-mod"],
    &["dm-crypt"],
    &["xts", "aesni-intel"],
    &["tpm-crb"],
    &["virtio-pci"],
    &["virtio-blk"],
    &["ext4"],
];

/// Something that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A program or library.
    File {
        /// Its name.
        name: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// A module of the kernel, neither as a file nor built in.
    Module {
        /// Its name.
        name: &'static str,
        /// The kernel's release.
        release: String,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, package } => write!(f, "{name} (Debian package {package})"),
            Self::Module { name, release } => {
                write!(
                    f,
                    "kernel module {name} (Debian package linux-image-{release}; dracut: drivers+=\" {name} \")"
                )
            }
        }
    }
}

/// One line of all that is missing.
pub(super) fn list(missing: &[Missing]) -> String {
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let verb = if missing.len() == 1 { "is" } else { "are" };
    format!("{} {verb} missing", all.join(", "))
}

/// What is not there, of all that is needed.
pub(super) fn missing(contents: &Contents, release: &str) -> Vec<Missing> {
    let programs = PROGRAMS
        .into_iter()
        .filter(|(_, paths, _)| !paths.iter().any(|path| contents.has_file(path)))
        .map(|(name, _, package)| Missing::File { name, package });
    let libraries = LIBRARIES
        .into_iter()
        .filter(|(name, _)| !FOLDERS.iter().any(|folder| contents.has_file(&format!("{folder}/{name}"))))
        .map(|(name, package)| Missing::File { name, package });
    let modules = MODULES
        .into_iter()
        .filter(|any| !any.iter().any(|name| contents.has_module(release, name)))
        .filter_map(|any| any.first())
        .map(|name| Missing::Module { name, release: release.to_owned() });
    programs.chain(libraries).chain(modules).collect()
}
