//! Revocation lists. AMD's are signed by the ARK and name the intermediates (ASK, ASVK) that are no longer good.
//!
//! Leaf certificates are not in them: the ASK issued those, all with serial number 0, so a list of the ARK says nothing
//! about them (RFC 5280 section 5.3: entries are of the list's issuer unless they say otherwise).

use der::{Decode, Encode};
use x509_cert::crl::CertificateList;

use crate::UnixTime;
use crate::certificate::{Certificate, is_pss_sha384, rsa_verify, signed_part, unix};
use crate::error::{CertificateRole, VerifyError};
use crate::roots::{RootId, TrustAnchors};

/// Why bytes are no usable revocation list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// Not DER of a list.
    #[error("not a certificate revocation list: {0}")]
    Malformed(String),
    /// It does not say until when it holds.
    #[error("the revocation list of {issuer} has no nextUpdate")]
    NoNextUpdate {
        /// Its issuer.
        issuer: String,
    },
    /// It has a critical extension that nobody here understands, for example because it is a delta list.
    #[error("the revocation list of {issuer} has the critical extension {oid}")]
    CriticalExtension {
        /// Its issuer.
        issuer: String,
        /// Which.
        oid: String,
    },
    /// No trusted root has its issuer's name.
    #[error("the revocation list of {issuer} is not one of a trusted root")]
    UnknownIssuer {
        /// Its issuer.
        issuer: String,
    },
    /// The root of that name did not sign it.
    #[error("the signature of the revocation list of {issuer} is wrong")]
    Signature {
        /// Its issuer.
        issuer: String,
    },
}

/// What to do without a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revocation {
    /// Where there is a list it must be fresh; where there is none, nothing is revoked.
    #[default]
    IfPresent,
    /// Every root needs a fresh list.
    Required,
}

#[derive(Clone, Debug)]
struct Crl {
    root: RootId,
    this_update: UnixTime,
    next_update: UnixTime,
    revoked: Vec<Vec<u8>>,
}

/// The revocation lists at hand, their signatures verified.
#[derive(Clone, Debug, Default)]
pub struct Crls {
    rule: Revocation,
    lists: Vec<Crl>,
}

impl Crls {
    /// No lists yet.
    pub const fn new(rule: Revocation) -> Self {
        Self { rule, lists: Vec::new() }
    }

    /// Takes in a list and says whose it is. Of two lists of one root the later one stays.
    ///
    /// # Errors
    /// See [`CrlError`]. Whether the list is fresh is asked when it is used.
    pub fn add(&mut self, der: &[u8], anchors: &TrustAnchors) -> Result<RootId, CrlError> {
        let crl = parse(der, anchors)?;
        let root = crl.root;
        match self.lists.iter_mut().find(|known| known.root == root) {
            Some(known) if known.this_update <= crl.this_update => *known = crl,
            Some(_) => {}
            None => self.lists.push(crl),
        }
        Ok(root)
    }

    /// Until when the list of `root` holds.
    pub fn fresh_until(&self, root: RootId) -> Option<UnixTime> {
        self.lists.iter().find(|crl| crl.root == root).map(|crl| crl.next_update)
    }

    /// When the list of `root` was issued.
    pub fn issued_on(&self, root: RootId) -> Option<UnixTime> {
        self.lists.iter().find(|crl| crl.root == root).map(|crl| crl.this_update)
    }

    /// Refuses what the list of `root` revokes, and a list that is not current.
    pub(crate) fn check(
        &self,
        root: RootId,
        certificates: &[(CertificateRole, &Certificate)],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let Some(crl) = self.lists.iter().find(|crl| crl.root == root) else {
            return match self.rule {
                Revocation::IfPresent => Ok(()),
                Revocation::Required => Err(VerifyError::CrlMissing { root }),
            };
        };
        if now < crl.this_update || now > crl.next_update {
            let (this_update, next_update) = (crl.this_update, crl.next_update);
            return Err(VerifyError::CrlNotCurrent { root, this_update, next_update, now });
        }
        let revoked = |certificate: &Certificate| crl.revoked.iter().any(|s| s == certificate.serial());
        match certificates.iter().find(|(_, certificate)| revoked(certificate)) {
            Some((role, certificate)) => {
                Err(VerifyError::Revoked { role: *role, serial: hex::encode(certificate.serial()) })
            }
            None => Ok(()),
        }
    }
}

fn parse(der: &[u8], anchors: &TrustAnchors) -> Result<Crl, CrlError> {
    let malformed = |error: der::Error| CrlError::Malformed(error.to_string());
    let list: CertificateList = CertificateList::from_der(der).map_err(malformed)?;
    let tbs = &list.tbs_cert_list;
    let issuer = tbs.issuer.to_string();
    let extensions = tbs.crl_extensions.as_deref().unwrap_or_default();
    if let Some(extension) = extensions.iter().find(|extension| extension.critical) {
        return Err(CrlError::CriticalExtension { issuer, oid: extension.extn_id.to_string() });
    }
    let Some(next_update) = &tbs.next_update else {
        return Err(CrlError::NoNextUpdate { issuer });
    };
    let root = signer(der, &list, anchors).map_err(|named| match named {
        true => CrlError::Signature { issuer },
        false => CrlError::UnknownIssuer { issuer },
    })?;
    let revoked = tbs.revoked_certificates.iter().flatten();
    Ok(Crl {
        root,
        this_update: unix(&tbs.this_update),
        next_update: unix(next_update),
        revoked: revoked.map(|entry| entry.serial_number.as_bytes().to_vec()).collect(),
    })
}

/// The root that signed the list; else whether one of its issuer's name was there.
fn signer(der: &[u8], list: &CertificateList, anchors: &TrustAnchors) -> Result<RootId, bool> {
    let algorithm = &list.signature_algorithm;
    let same = algorithm.to_der().ok() == list.tbs_cert_list.signature.to_der().ok();
    let parts = signed_part(der).zip(list.signature.as_bytes());
    let mut named = false;
    for anchor in anchors.issuer(&list.tbs_cert_list.issuer) {
        named = true;
        let key = anchor.certificate.rsa_key();
        if let (true, Some((signed, signature)), Some(key)) = (same && is_pss_sha384(algorithm), parts, key)
            && rsa_verify(key, signed, signature)
        {
            return Ok(anchor.root.id());
        }
    }
    Err(named)
}
