//! The installation's certificate authority and the certificates of its services and host.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

/// The authority: its certificate and key lie in one directory.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
}

/// Paths of an issued certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM certificate.
    pub certificate: PathBuf,
    /// PEM private key (PKCS#8), mode 0600.
    pub key: PathBuf,
}

/// Parent domain of the vaults' hosts on one machine. Resolvers that know RFC 6761 take every name under `localhost` to it;
/// where that is not so, a line of `/etc/hosts` for each vault does. Azure's clients want `vault` as its first label.
pub const VAULT_DOMAIN: &str = "vault.localhost";

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A TLS server on loopback names.
    Server,
    /// The same, which also serves every vault by its own name under [`VAULT_DOMAIN`].
    Vaults,
    /// A host agent towards the control plane.
    Client,
}

impl Authority {
    /// The authority in `dir`; made at the first call.
    pub fn ensure(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let authority = Self { dir: dir.to_path_buf() };
        if !authority.certificate().exists() {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let certificate = authority_params().self_signed(&key)?;
            write_secret(&authority.key(), &key.serialize_pem())?;
            std::fs::write(authority.certificate(), certificate.pem())?;
        }
        Ok(authority)
    }

    /// PEM certificate of the authority.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    /// A leaf certificate named `name`; made at the first call.
    pub fn issue(&self, name: &str, usage: Usage) -> Result<Identity> {
        let identity = Identity {
            certificate: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
        };
        if identity.certificate.exists() && identity.key.exists() {
            return Ok(identity);
        }
        let signer = KeyPair::from_pem(&std::fs::read_to_string(self.key())?)?;
        let issuer = Issuer::new(authority_params(), signer);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = leaf_params(name, usage)?.signed_by(&key, &issuer)?;
        write_secret(&identity.key, &key.serialize_pem())?;
        std::fs::write(&identity.certificate, leaf.pem())?;
        Ok(identity)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Casemate installation authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2045, 1, 1);
    params
}

fn leaf_params(name: &str, usage: Usage) -> Result<CertificateParams> {
    let mut names = match usage {
        Usage::Server | Usage::Vaults => {
            vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]
        }
        Usage::Client => vec![name.to_owned()],
    };
    if usage == Usage::Vaults {
        names.push(format!("*.{VAULT_DOMAIN}"));
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match usage {
        Usage::Server | Usage::Vaults => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2045, 1, 1);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Writes a file that only its owner can read; fails if it exists.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn certificates_are_made_once_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::ensure(dir.path()).unwrap();
        let first = authority.issue("keys", Usage::Server).unwrap();
        let text = std::fs::read(&first.certificate).unwrap();
        let again = Authority::ensure(dir.path()).unwrap().issue("keys", Usage::Server).unwrap();
        assert_eq!(std::fs::read(again.certificate).unwrap(), text);
        assert_eq!(std::fs::metadata(first.key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
