//! Revocation lists. AMD's are signed by the ARK and name the intermediates (ASK, ASVK) that are no longer good.
//!
//! Leaf certificates are not in them: the ASK issued those, all with serial number 0, so a list of the ARK says nothing
//! about them (RFC 5280 section 5.3: entries are of the list's issuer unless they say otherwise).

use der::Decode;
use x509_cert::crl::CertificateList;

use crate::UnixTime;
use crate::certificate::{is_pss_sha384, rsa_verify, signed_part, unix};
use crate::error::{CertificateRole, VerifyError};
use crate::explain::Explanation;
use crate::report::SigningKey;
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
    /// It is signed in another way than AMD's.
    #[error("the revocation list of {issuer} is not signed with RSASSA-PSS and SHA-384")]
    Algorithm {
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

impl CrlError {
    /// The refusal in words.
    pub fn explain(&self) -> Explanation {
        let (code, expected) = match self {
            Self::Malformed(_) => ("RevocationListMalformed", "DER of an X.509 version 2 list"),
            Self::NoNextUpdate { .. } => ("RevocationListWithoutEnd", "a time until which the list holds"),
            Self::CriticalExtension { .. } => ("RevocationListExtensionUnknown", "no critical extensions"),
            Self::UnknownIssuer { .. } => ("RevocationListIssuerUnknown", "a list of a trusted root"),
            Self::Algorithm { .. } => ("RevocationListAlgorithmWrong", "RSASSA-PSS with SHA-384"),
            Self::Signature { .. } => ("RevocationListSignatureInvalid", "a signature of the root"),
        };
        Explanation {
            code: code.to_owned(),
            claim: "revocation list".to_owned(),
            expected: expected.to_owned(),
            actual: self.to_string(),
            rule: "RFC 5280, section 5 and 6.3, CRL profile and validation".to_owned(),
            remedy: "fetch the list from AMD's key distribution service (/vcek/v1/{product}/crl, /vlek/v1/{product}/crl)"
                .to_owned(),
        }
    }
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

/// Which authorities of a root a list is about. AMD publishes one for each, both signed by the ARK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrlScope {
    /// `/vcek/v1/{product}/crl`: the ASKs.
    Vcek,
    /// `/vlek/v1/{product}/crl`: the ASVKs.
    Vlek,
}

impl CrlScope {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Vcek, Self::Vlek];

    /// The list that a leaf of this kind needs.
    pub const fn of(key: SigningKey) -> Self {
        match key {
            SigningKey::Vlek => Self::Vlek,
            SigningKey::Vcek | SigningKey::None => Self::Vcek,
        }
    }

    /// `VCEK` or `VLEK`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        }
    }

    /// The scope of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

#[derive(Clone, Debug)]
struct Crl {
    root: RootId,
    scope: CrlScope,
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

    /// Takes in a list for VCEKs and says whose it is. Of two lists of one root and scope the later one stays.
    ///
    /// # Errors
    /// See [`CrlError`]. Whether the list is fresh is asked when it is used.
    pub fn add(&mut self, der: &[u8], anchors: &TrustAnchors) -> Result<RootId, CrlError> {
        self.add_for(CrlScope::Vcek, der, anchors)
    }

    /// The same for the scope that the list was fetched for: the list itself does not name one.
    ///
    /// # Errors
    /// See [`CrlError`].
    pub fn add_for(
        &mut self,
        scope: CrlScope,
        der: &[u8],
        anchors: &TrustAnchors,
    ) -> Result<RootId, CrlError> {
        let crl = Crl { scope, ..parse(der, anchors)? };
        let root = crl.root;
        match self.lists.iter_mut().find(|known| known.root == root && known.scope == scope) {
            Some(known) if known.this_update <= crl.this_update => *known = crl,
            Some(_) => {}
            None => self.lists.push(crl),
        }
        Ok(root)
    }

    /// Until when the list of `root` for VCEKs holds.
    pub fn fresh_until(&self, root: RootId) -> Option<UnixTime> {
        self.fresh_until_for(CrlScope::Vcek, root)
    }

    /// Until when the list of `root` for a scope holds.
    pub fn fresh_until_for(&self, scope: CrlScope, root: RootId) -> Option<UnixTime> {
        self.list(scope, root).map(|crl| crl.next_update)
    }

    fn list(&self, scope: CrlScope, root: RootId) -> Option<&Crl> {
        self.lists.iter().find(|crl| crl.root == root && crl.scope == scope)
    }

    /// When the list of `root` for a scope was issued.
    pub fn issued_on(&self, scope: CrlScope, root: RootId) -> Option<UnixTime> {
        self.list(scope, root).map(|crl| crl.this_update)
    }

    /// Refuses what any list of `root` revokes, and, for the key that signed, a list that is not current or not there.
    pub(crate) fn check(
        &self,
        root: RootId,
        kind: SigningKey,
        serials: &[(CertificateRole, Vec<u8>)],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        match self.list(CrlScope::of(kind), root) {
            None if self.rule == Revocation::Required => return Err(VerifyError::CrlMissing { root, kind }),
            Some(crl) if now < crl.this_update || now > crl.next_update => {
                let (this_update, next_update) = (crl.this_update, crl.next_update);
                return Err(VerifyError::CrlNotCurrent { root, this_update, next_update, now });
            }
            _ => {}
        }
        // A revocation does not end when its list does.
        let lists = self.lists.iter().filter(|crl| crl.root == root && crl.this_update <= now);
        let revoked: Vec<_> = lists.flat_map(|crl| &crl.revoked).collect();
        match serials.iter().find(|(_, serial)| revoked.contains(&serial)) {
            Some((role, serial)) => Err(VerifyError::Revoked { role: *role, serial: hex::encode(serial) }),
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
    if list.signature_algorithm != tbs.signature || !is_pss_sha384(&tbs.signature) {
        return Err(CrlError::Algorithm { issuer });
    }
    let root = signer(der, &list, anchors).map_err(|named| match named {
        true => CrlError::Signature { issuer },
        false => CrlError::UnknownIssuer { issuer },
    })?;
    let revoked = tbs.revoked_certificates.iter().flatten();
    Ok(Crl {
        root,
        scope: CrlScope::Vcek,
        this_update: unix(&tbs.this_update),
        next_update: unix(next_update),
        revoked: revoked.map(|entry| entry.serial_number.as_bytes().to_vec()).collect(),
    })
}

/// The root that signed the list; else whether one of its issuer's name was there.
fn signer(der: &[u8], list: &CertificateList, anchors: &TrustAnchors) -> Result<RootId, bool> {
    let parts = signed_part(der).zip(list.signature.as_bytes());
    let mut named = false;
    for anchor in anchors.issuer(&list.tbs_cert_list.issuer) {
        named = true;
        let key = anchor.certificate.rsa_key();
        if let (Some((signed, signature)), Some(key)) = (parts, key)
            && rsa_verify(key, signed, signature)
        {
            return Ok(anchor.root.id());
        }
    }
    Err(named)
}
