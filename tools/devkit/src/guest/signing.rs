//! Secure Boot without Microsoft: OVMF's variables with a throw-away authority enrolled, whose key Debian ships with them
//! (package ovmf), and `sbsign` (package sbsigntool).

use std::fs;
use std::path::{Path, PathBuf};

use super::image::run;

/// Firmware variables that accept the authority.
pub const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
const CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
const KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";

/// The authority; works in a folder.
pub struct Snakeoil {
    folder: PathBuf,
}

impl Snakeoil {
    /// Takes the key, whose passphrase is its name.
    pub fn new(folder: &Path) -> Self {
        let key = folder.join("snakeoil.key").display().to_string();
        run("openssl", &["rsa", "-in", KEY, "-passin", "pass:snakeoil", "-out", &key]);
        Self { folder: folder.to_owned() }
    }

    /// Signs a program.
    pub fn sign(&self, program: Vec<u8>) -> Vec<u8> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (plain, signed) = (path("unsigned.efi"), path("signed.efi"));
        fs::write(&plain, program).expect("written");
        run("sbsign", &["--key", &path("snakeoil.key"), "--cert", CERTIFICATE, "--output", &signed, &plain]);
        fs::read(signed).expect("signed")
    }
}
