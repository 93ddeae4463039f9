//! The identity that signs release answers: a root of its own, made at the first start, and a leaf for the vault's
//! host name. Both private keys are sealed in the database like any other; the leaf is renewed under the root.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use public_api::encoding::{to_base64, to_base64url};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::seal::{MasterKey, PrivateKey, SealBroken, Sealed};
use crate::store::{Committed, Store, StoreError, meta};

const ROOT_BINDING: &[u8] = b"casemate release signing root";
const LEAF_BINDING: &[u8] = b"casemate release signing leaf";
const ROOT_YEARS: i16 = 20;
const LEAF_YEARS: i16 = 2;
/// The leaf is renewed when it has less than this left.
const RENEW_BEFORE_SECONDS: i64 = 180 * 86_400;

/// Why there is no signing identity.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The database.
    #[error("could not load or store the release-signing identity")]
    Store(#[from] StoreError),
    /// The stored keys do not open.
    #[error("could not open the release-signing keys")]
    Seal(#[from] SealBroken),
    /// A certificate could not be made.
    #[error("could not make a release-signing certificate")]
    Certificate(#[from] rcgen::Error),
    /// The stored identity cannot be read.
    #[error("the stored release-signing identity cannot be read")]
    Corrupt,
}

/// As stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    host: String,
    root: StoredKey,
    leaf: StoredKey,
    leaf_expires: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    #[serde(with = "public_api::encoding::base64url")]
    certificate: Vec<u8>,
    #[serde(with = "public_api::encoding::base64url")]
    sealed_key: Vec<u8>,
}

/// Signs release answers.
pub struct Signer {
    leaf: RsaKey,
    header: String,
    root: Vec<u8>,
}

/// An RSA key pair that rcgen can sign certificates with, without the private bytes leaving the library.
struct RsaKey(KeyPair);

impl PublicKeyData for RsaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

impl SigningKey for RsaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.signature(message))
    }
}

impl RsaKey {
    fn generate(size: KeySize) -> Self {
        Self(KeyPair::generate(size).expect("key generation fails only without random numbers"))
    }

    fn open(master: &MasterKey, stored: &StoredKey, binding: &[u8]) -> Result<Self, SignerError> {
        let private = master.open(&Sealed::from_bytes(stored.sealed_key.clone()), binding)?;
        KeyPair::from_pkcs8(private.as_bytes()).map(Self).map_err(|_| SignerError::Corrupt)
    }

    fn sealed(&self, master: &MasterKey, binding: &[u8], certificate: &CertificateDer<'_>) -> StoredKey {
        let der: Pkcs8V1Der<'_> = self.0.as_der().expect("an RSA key has a PKCS#8 form");
        let private = PrivateKey::new(Zeroizing::new(der.as_ref().to_vec()));
        let sealed_key = master.seal(&private, binding).as_bytes().to_vec();
        StoredKey { certificate: certificate.to_vec(), sealed_key }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .expect("an RSA key of 2048 bits signs any message");
        signature
    }
}

impl Signer {
    /// Loads the identity for `host`, or makes or renews it.
    pub async fn load(store: &Store, master: &MasterKey, host: &str, now: i64) -> Result<Self, SignerError> {
        let mut seen = meta::read(store.readers(), meta::SIGNING_IDENTITY).await?;
        let stored = loop {
            let stored = seen.as_deref().map(parsed).transpose()?;
            let fresh =
                |stored: &Stored| stored.host == host && stored.leaf_expires - now > RENEW_BEFORE_SECONDS;
            let next = match stored {
                Some(stored) if fresh(&stored) => break stored,
                Some(stored) => renewed(master, stored.root, host, now)?,
                None => made(master, host, now)?,
            };
            // Another service may have made one meanwhile: then that one is looked at.
            seen = Some(save(store, seen, &next).await?);
        };
        let leaf = RsaKey::open(master, &stored.leaf, LEAF_BINDING)?;
        let header = header(&stored.leaf.certificate, &stored.root.certificate);
        Ok(Self { leaf, header, root: stored.root.certificate })
    }

    /// Whether both keys of a stored identity open and are RSA keys.
    pub fn prove(stored: &[u8], master: &MasterKey) -> Result<(), SignerError> {
        let stored = parsed(stored)?;
        RsaKey::open(master, &stored.root, ROOT_BINDING)?;
        RsaKey::open(master, &stored.leaf, LEAF_BINDING).map(drop)
    }

    /// A stored identity as another master key seals it; the certificates stay.
    pub fn sealed_anew(stored: &[u8], from: &MasterKey, to: &MasterKey) -> Result<Vec<u8>, SignerError> {
        let mut stored = parsed(stored)?;
        for (key, binding) in [(&mut stored.root, ROOT_BINDING), (&mut stored.leaf, LEAF_BINDING)] {
            let private = from.open(&Sealed::from_bytes(std::mem::take(&mut key.sealed_key)), binding)?;
            key.sealed_key = to.seal(&private, binding).as_bytes().to_vec();
        }
        Ok(serde_json::to_vec(&stored).expect("the identity has only string keys"))
    }

    /// SHA-256 of the root certificate, hex: what a client pins.
    pub fn root_id(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, &self.root))
    }

    /// The root certificate, PEM.
    pub fn root_pem(&self) -> String {
        let base64 = to_base64(&self.root);
        let lines: Vec<&str> = base64.as_bytes().chunks(64).map(ascii).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// A compact JWS (RFC 7515, RS256) over the JSON of `payload`, which must be on record before.
    pub fn sign<T>(&self, payload: &impl Serialize, _recorded: &Committed<T>) -> String {
        let payload = serde_json::to_vec(payload).expect("answers have only string keys");
        let message = format!("{}.{}", self.header, to_base64url(&payload));
        let signature = to_base64url(&self.leaf.signature(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn ascii(line: &[u8]) -> &str {
    std::str::from_utf8(line).expect("base64 is ASCII")
}

/// The protected header, encoded: Key Vault's members in its order.
fn header(leaf: &[u8], root: &[u8]) -> String {
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf);
    let sha256 = digest::digest(&digest::SHA256, leaf);
    let header = serde_json::json!({
        "alg": "RS256",
        "kid": hex::encode_upper(sha1),
        "x5t": to_base64url(sha1.as_ref()),
        "typ": "JWT",
        "x5t#S256": to_base64url(sha256.as_ref()),
        "x5c": [to_base64(leaf), to_base64(root)],
    });
    to_base64url(header.to_string().as_bytes())
}

fn parsed(stored: &[u8]) -> Result<Stored, SignerError> {
    serde_json::from_slice(stored).map_err(|_| SignerError::Corrupt)
}

/// Puts an identity in place of the one that was seen; returns what is there now.
async fn save(store: &Store, seen: Option<Vec<u8>>, next: &Stored) -> Result<Vec<u8>, SignerError> {
    let bytes = serde_json::to_vec(next).expect("the identity has only string keys");
    let saved = store.write(move |connection| {
        Box::pin(
            async move { meta::replace(connection, meta::SIGNING_IDENTITY, seen.as_deref(), bytes).await },
        )
    });
    Ok(saved.await?.into_inner())
}

fn made(master: &MasterKey, host: &str, now: i64) -> Result<Stored, SignerError> {
    let key = RsaKey::generate(KeySize::Rsa3072);
    let mut params = CertificateParams::default();
    let name = format!("Casemate key release root of {host}");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    validity(&mut params, now, ROOT_YEARS);
    let certificate = params.self_signed(&key)?;
    renewed(master, key.sealed(master, ROOT_BINDING, certificate.der()), host, now)
}

fn renewed(master: &MasterKey, root: StoredKey, host: &str, now: i64) -> Result<Stored, SignerError> {
    let issuer_key = RsaKey::open(master, &root, ROOT_BINDING)?;
    let issuer = Issuer::from_ca_cert_der(&CertificateDer::from_slice(&root.certificate), &issuer_key)?;
    let key = RsaKey::generate(KeySize::Rsa2048);
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, host);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let leaf_expires = validity(&mut params, now, LEAF_YEARS);
    let certificate = params.signed_by(&key, &issuer)?;
    let leaf = key.sealed(master, LEAF_BINDING, certificate.der());
    Ok(Stored { host: host.to_owned(), root, leaf, leaf_expires })
}

/// Valid from the day before `now` for `years`; returns the end.
fn validity(params: &mut CertificateParams, now: i64, years: i16) -> i64 {
    let today = TimeZone::UTC
        .to_datetime(jiff::Timestamp::from_second(now).expect("the clock is within its range"))
        .date();
    let from = today.yesterday().expect("the clock is within its range");
    let until = Date::new(today.year() + years, 1, 1).expect("a first of January exists");
    let day = |date: Date| {
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(from);
    params.not_after = day(until);
    params.not_after.unix_timestamp()
}
