//! Programs: our own beside this one, and Debian's, named with their packages when they are missing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::failure::Failure;

/// What running VMs needs: program and Debian package.
const TO_RUN: [(&str, &str); 3] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("qemu-img", "qemu-utils"), ("ssh", "openssh-client")];

/// What building the guest image needs.
pub const TO_BUILD_IMAGE: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("sgdisk", "gdisk"),
    ("zstd", "zstd"),
];

/// A program of ours: it lies beside `casemate`.
pub fn ours(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding casemate's own path")?;
    let path = own.with_file_name(name);
    if !path.exists() {
        let message = format!("{name} is missing beside {}", own.display());
        return Err(Failure::you(message, "build the whole workspace: `make build`"));
    }
    Ok(path)
}

/// A program on PATH, or in the administrator's directories.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|dir| dir.join(name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Checks that all programs are there; names all that are not, with their packages.
pub fn check(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&(&str, &str)> = wanted.iter().filter(|(name, _)| find(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> =
        missing.iter().map(|(name, package)| format!("{name} (Debian package {package})")).collect();
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let hint = format!("apt-get install {}", packages.join(" "));
    Err(Failure::you(format!("missing programs: {}", names.join(", ")), hint))
}

/// Checks what running VMs needs.
pub fn check_to_run() -> Result<()> {
    check(&TO_RUN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = check(&[("sh", "dash"), ("no-such-program", "no-package")]).unwrap_err().to_string();
        assert_eq!(error, "missing programs: no-such-program (Debian package no-package)");
    }
}
