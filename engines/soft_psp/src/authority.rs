//! The installation's root of trust: a seed, two RSA keys, and keys of the chip derived from the seed.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use aws_lc_rs::{digest, hmac, rand};
use snp::chain::der_to_pem;
use snp::{CertChain, Crls, Product, TcbBytes, TcbVersion, TrustAnchors, UnixTime};
use zeroize::Zeroizing;

use crate::certificates::{self, Owner, Role};
use crate::config::Identity;
use crate::der_write::{OCTET_STRING, explicit, integer, oid, sequence, tlv};

const SECP384R1: [u64; 5] = [1, 3, 132, 0, 34];

/// Why there is no root of trust.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the state directory.
    #[error("the file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that does not hold what it should.
    #[error("{path} is damaged; a new root of trust is made when the whole directory is removed")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// The cryptographic library refused.
    #[error("{0} failed")]
    Crypto(&'static str),
}

/// Keys and certificates of one installation.
pub struct Authority {
    product: Product,
    tcb: TcbVersion,
    seed: Zeroizing<Vec<u8>>,
    created: i64,
    ark: RsaKeyPair,
    ask: RsaKeyPair,
    ark_der: Vec<u8>,
    ask_der: Vec<u8>,
    vcek_der: Vec<u8>,
    chip_id: [u8; 64],
    vlek: Option<Vlek>,
}

/// A provider's key, loaded, and the authority that certified it.
struct Vlek {
    csp_id: String,
    der: Vec<u8>,
    asvk_der: Vec<u8>,
}

/// Which key signs reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endorsement {
    /// The chip's.
    Vcek,
    /// The provider's.
    Vlek,
}

impl Authority {
    /// Opens the state directory; makes keys and certificates at the first call.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn open(dir: &Path, identity: &Identity) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(file(dir))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(file(dir))?;
        let (product, tcb) = (identity.product, identity.tcb);
        let seed = ensure(&dir.join("seed"), || random_bytes(48))?;
        let created = created(&dir.join("created"))?;
        let ark = rsa_key(&dir.join("ark.pk8"))?;
        let ask = rsa_key(&dir.join("ask.pk8"))?;
        let name = |part: &str| dir.join(format!("{part}-{product}.der"));
        let ark_der = ensure(&name("ark"), || certificates::ark(product, &ark, created))?.to_vec();
        let ask_der =
            ensure(&name("ask"), || certificates::intermediate(product, Role::Ask, &ask, &ark, created))?
                .to_vec();
        let chip_id = match &identity.chip_id {
            Some(id) => padded(id),
            None => chip_id(&seed, product),
        };
        let mut authority = Self {
            product,
            tcb,
            seed,
            created,
            ark,
            ask,
            ark_der,
            ask_der,
            vcek_der: Vec::new(),
            chip_id,
            vlek: None,
        };
        let chip = hex::encode(&chip_id[..8]);
        let vcek = name(&format!("vcek-{chip}-{}", tcb.encode(product)));
        authority.vcek_der = ensure(&vcek, || authority.issue_vcek(tcb))?.to_vec();
        authority.check(dir)?;
        let root = dir.join("root.pem");
        fs::write(&root, der_to_pem(&authority.ark_der)).map_err(file(&root))?;
        Ok(authority)
    }

    /// Loads a provider's key and certifies it under an ASVK; makes the ASVK's key at the first call for a directory.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn load_vlek(&mut self, dir: &Path, csp_id: &str) -> Result<(), AuthorityError> {
        let (product, created) = (self.product, self.created);
        let asvk = rsa_key(&dir.join("asvk.pk8"))?;
        let asvk_der = ensure(&dir.join(format!("asvk-{product}.der")), || {
            certificates::intermediate(product, Role::Asvk, &asvk, &self.ark, created)
        })?;
        let key = self.key(Endorsement::Vlek, csp_id.as_bytes(), self.tcb)?;
        // A year from now, with an hour of grace: it is loaded anew at each start.
        let not_before = jiff::Timestamp::now().as_second() - 3600;
        let not_before = not_before.max(created);
        let der = certificates::leaf(product, &key, &asvk, not_before, Owner::Provider(csp_id), self.tcb)?;
        self.vlek = Some(Vlek { csp_id: csp_id.to_owned(), der, asvk_der: asvk_der.to_vec() });
        Ok(())
    }

    /// The key that signs where nobody asks for one in particular (ABI, MSG_REPORT_REQ, KEY_SEL 0).
    pub fn preferred(&self) -> Endorsement {
        if self.vlek.is_some() { Endorsement::Vlek } else { Endorsement::Vcek }
    }

    /// Whether keys and certificates belong together: those kept, and one made now.
    fn check(&self, dir: &Path) -> Result<(), AuthorityError> {
        let damaged = || AuthorityError::Damaged { path: dir.to_owned() };
        let anchors = TrustAnchors::amd().with_development_root(&self.ark_der).map_err(|_| damaged())?;
        let now = jiff::Timestamp::now().as_second();
        let mut crls = Crls::default();
        crls.add(&self.crl(now)?, &anchors).map_err(|_| damaged())?;
        for leaf in [&self.vcek_der, &self.issue_vcek(self.tcb)?] {
            let chain = CertChain::from_der(leaf, &self.ask_der, &self.ark_der).map_err(|_| damaged())?;
            snp::verify_chain(&chain, &anchors, &crls, UnixTime(now)).map_err(|_| damaged())?;
        }
        Ok(())
    }

    /// The product that is played.
    pub fn product(&self) -> Product {
        self.product
    }

    /// Patch levels of the platform.
    pub fn tcb(&self) -> TcbVersion {
        self.tcb
    }

    /// The same as bytes of a report.
    pub fn tcb_bytes(&self) -> TcbBytes {
        self.tcb.encode(self.product)
    }

    /// The chip's id as in reports.
    pub fn chip_id(&self) -> [u8; 64] {
        self.chip_id
    }

    /// SHA-256 of the root certificate's DER.
    pub fn root_id(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.ark_der).as_ref().to_vec()
    }

    /// ASK then ARK, PEM.
    pub fn chain_pem(&self) -> String {
        der_to_pem(&self.ask_der) + &der_to_pem(&self.ark_der)
    }

    /// The chip's certificate for a TCB, DER. That of the platform's TCB is made once and kept.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn vcek(&self, tcb: TcbVersion) -> Result<Vec<u8>, AuthorityError> {
        if tcb == self.tcb { Ok(self.vcek_der.clone()) } else { self.issue_vcek(tcb) }
    }

    fn issue_vcek(&self, tcb: TcbVersion) -> Result<Vec<u8>, AuthorityError> {
        let key = self.key(Endorsement::Vcek, &self.chip_id, tcb)?;
        let chip = Owner::Chip(&self.chip_id[..self.product.chip_id_len()]);
        certificates::leaf(self.product, &key, &self.ask, self.created, chip, tcb)
    }

    /// VCEK, ASK, ARK, PEM.
    pub fn full_chain_pem(&self) -> String {
        der_to_pem(&self.vcek_der) + &self.chain_pem()
    }

    /// ASVK then ARK, PEM, when a VLEK is loaded.
    pub fn vlek_chain_pem(&self) -> Option<String> {
        self.vlek.as_ref().map(|vlek| der_to_pem(&vlek.asvk_der) + &der_to_pem(&self.ark_der))
    }

    /// The chain of the key that signed: leaf, intermediate, root, PEM.
    pub fn chain_of(&self, key: Endorsement) -> String {
        match (key, &self.vlek, self.vlek_chain_pem()) {
            (Endorsement::Vlek, Some(vlek), Some(chain)) => der_to_pem(&vlek.der) + &chain,
            _ => self.full_chain_pem(),
        }
    }

    /// A revocation list as of `now` (Unix seconds), DER.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn crl(&self, now: i64) -> Result<Vec<u8>, AuthorityError> {
        certificates::crl(self.product, &self.ark, now)
    }

    /// Signs with the chip's key for the platform's TCB: r and s, big endian.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<([u8; 48], [u8; 48]), AuthorityError> {
        self.sign_with(Endorsement::Vcek, message)
    }

    /// Signs with the chip's or the provider's key for the platform's TCB: r and s, big endian.
    ///
    /// # Errors
    /// When the cryptographic library refuses, and for a VLEK where none is loaded.
    pub fn sign_with(
        &self,
        key: Endorsement,
        message: &[u8],
    ) -> Result<([u8; 48], [u8; 48]), AuthorityError> {
        let owner = match (key, &self.vlek) {
            (Endorsement::Vcek, _) => self.chip_id.as_slice(),
            (Endorsement::Vlek, Some(vlek)) => vlek.csp_id.as_bytes(),
            (Endorsement::Vlek, None) => return Err(AuthorityError::Crypto("finding a VLEK")),
        };
        let signature = self.key(key, owner, self.tcb)?.sign(&SystemRandom::new(), message);
        let signature = signature.map_err(|_| AuthorityError::Crypto("signing a report"))?;
        let (mut r, mut s) = ([0; 48], [0; 48]);
        let (left, right) =
            signature.as_ref().split_at_checked(48).ok_or(AuthorityError::Crypto("signing"))?;
        r.copy_from_slice(left);
        s.copy_from_slice(right);
        Ok((r, s))
    }

    /// 48 bytes that only this installation can make, from a label and a context.
    pub fn derive(&self, label: &str, context: &[u8]) -> Zeroizing<[u8; 48]> {
        derive(&self.seed, label, context)
    }

    /// The P-384 key of a chip or provider for a TCB: the same at every start, another for every TCB.
    fn key(&self, kind: Endorsement, owner: &[u8], tcb: TcbVersion) -> Result<EcdsaKeyPair, AuthorityError> {
        let label = if kind == Endorsement::Vlek { "vlek" } else { "vcek" };
        for attempt in 0..=u8::MAX {
            let tcb = tcb.encode(self.product).0;
            let context = [self.product.name().as_bytes(), owner, &tcb, &[attempt]].concat();
            let scalar = self.derive(label, &context);
            if let Ok(key) = key_from_scalar(&scalar) {
                return Ok(key);
            }
        }
        Err(AuthorityError::Crypto("deriving the chip's key"))
    }
}

/// RFC 5915 ECPrivateKey without its public part, which the library computes. Refuses scalars out of range.
fn key_from_scalar(scalar: &[u8; 48]) -> Result<EcdsaKeyPair, aws_lc_rs::error::KeyRejected> {
    let curve = explicit(0, &oid(&SECP384R1));
    let key = Zeroizing::new(sequence(&[&integer(1), &tlv(OCTET_STRING, scalar), &curve]));
    EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, &key)
}

fn derive(seed: &[u8], label: &str, context: &[u8]) -> Zeroizing<[u8; 48]> {
    let key = hmac::Key::new(hmac::HMAC_SHA384, seed);
    let tag = hmac::sign(&key, &[label.as_bytes(), &[0], context].concat());
    let mut out = Zeroizing::new([0; 48]);
    out.copy_from_slice(tag.as_ref());
    out
}

/// The chip's id: as many bytes as the product has, the rest zero.
fn chip_id(seed: &[u8], product: Product) -> [u8; 64] {
    let bytes = [*derive(seed, "chip-id-1", &[]), *derive(seed, "chip-id-2", &[])].concat();
    padded(&bytes[..product.chip_id_len()])
}

fn padded(chip_id: &[u8]) -> [u8; 64] {
    let mut id = [0; 64];
    id[..chip_id.len()].copy_from_slice(chip_id);
    id
}

fn rsa_key(path: &Path) -> Result<RsaKeyPair, AuthorityError> {
    let pkcs8 = ensure(path, || {
        let key = RsaKeyPair::generate(KeySize::Rsa4096)
            .map_err(|_| AuthorityError::Crypto("making an RSA key"))?;
        let der: Pkcs8V1Der<'static> =
            key.as_der().map_err(|_| AuthorityError::Crypto("encoding an RSA key"))?;
        Ok(der.as_ref().to_vec())
    })?;
    RsaKeyPair::from_pkcs8(&pkcs8).map_err(|_| AuthorityError::Damaged { path: path.to_owned() })
}

fn created(path: &Path) -> Result<i64, AuthorityError> {
    let now = jiff::Timestamp::now().as_second();
    // An hour of grace for verifiers whose clock is behind.
    let text = ensure(path, || Ok((now - 3600).to_string().into_bytes()))?;
    let parsed = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or(AuthorityError::Damaged { path: path.to_owned() })
}

fn random_bytes(len: usize) -> Result<Vec<u8>, AuthorityError> {
    let mut bytes = vec![0; len];
    rand::fill(&mut bytes).map_err(|_| AuthorityError::Crypto("drawing random bytes"))?;
    Ok(bytes)
}

/// Reads a file that only we may read; makes it whole or not at all.
fn ensure(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, AuthorityError>,
) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
    if !path.exists() {
        let bytes = Zeroizing::new(make()?);
        let new = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut to =
            options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(file(&new))?;
        std::io::Write::write_all(&mut to, &bytes).and_then(|()| to.sync_all()).map_err(file(&new))?;
        fs::rename(&new, path).map_err(file(path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(file(path))?;
    Ok(Zeroizing::new(fs::read(path).map_err(file(path))?))
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorityError + use<> {
    let path = path.to_owned();
    move |source| AuthorityError::File { path, source }
}
