//! What was verified and is kept in memory: issuers, and the chains of the chips that were asked for lately.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use snp::kds::VcekName;
use snp::{CertChain, Crls, Product, SigningKey, TrustAnchors, UnixTime, VerifiedChain};

use crate::app::seen::Seen;

/// Most chains in memory; after that the memory starts anew from the database.
const MAX_CHAINS: usize = 4096;
/// Most issuers of one product and kind; AMD has had one each.
const MAX_ISSUERS: usize = 16;

/// ASK or ASVK with its ARK, DER, verified under a pinned root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The product line.
    pub product: Product,
    /// What it issues.
    pub issues: SigningKey,
    /// ASK or ASVK.
    pub ask: Vec<u8>,
    /// ARK.
    pub ark: Vec<u8>,
}

impl Issuer {
    /// AMD's own, which are built in.
    fn built_in(product: Product) -> Self {
        let (ask, ark) = (snp::amd_ask_der(product).to_vec(), snp::amd_ark_der(product).to_vec());
        Self { product, issues: SigningKey::Vcek, ask, ark }
    }

    /// SHA-256 of the ASK, hex.
    pub fn thumbprint(&self) -> String {
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.ask))
    }
}

/// What is known without asking anybody.
pub struct Known {
    anchors: TrustAnchors,
    issuers: RwLock<Arc<Vec<Issuer>>>,
    chains: RwLock<HashMap<VcekName, Arc<str>>>,
    /// Chains of VLEKs whose issuer was looked at.
    vleks: Seen,
}

impl Known {
    /// AMD's built-in issuers.
    pub fn new(anchors: TrustAnchors) -> Self {
        Self {
            anchors,
            issuers: RwLock::new(Arc::new(Product::ALL.map(Issuer::built_in).to_vec())),
            chains: RwLock::default(),
            vleks: Seen::default(),
        }
    }

    /// The pinned roots.
    pub fn anchors(&self) -> &TrustAnchors {
        &self.anchors
    }

    /// All issuers.
    pub fn issuers(&self) -> Arc<Vec<Issuer>> {
        Arc::clone(&self.issuers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in an issuer that a pinned root vouches for. Returns whether it is new.
    pub fn add_issuer(&self, issuer: Issuer, now: i64) -> Result<bool, String> {
        snp::kds::verify_issuer(&issuer.ask, &issuer.ark, &self.anchors, UnixTime(now))
            .map_err(|error| error.to_string())?;
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        let alike = |other: &&Issuer| other.product == issuer.product && other.issues == issuer.issues;
        if issuers.contains(&issuer) || issuers.iter().filter(alike).count() >= MAX_ISSUERS {
            return Ok(false);
        }
        Arc::make_mut(&mut issuers).push(issuer);
        Ok(true)
    }

    /// The chain of a leaf under the known issuer that issued it; else why the last one that was tried did not.
    pub fn chain(
        &self,
        leaf: &[u8],
        product: Product,
        key: SigningKey,
        now: i64,
    ) -> Result<(CertChain, VerifiedChain), String> {
        let mut why = format!("no issuer of {key}s of {product} is known");
        for issuer in self.issuers().iter().filter(|it| it.product == product && it.issues == key) {
            let chain = CertChain::from_der(leaf, &issuer.ask, &issuer.ark).map_err(|e| e.to_string())?;
            match snp::verify_chain(&chain, &self.anchors, &Crls::default(), UnixTime(now)) {
                Ok(verified) => return Ok((chain, verified)),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    /// The chain of a chip, PEM.
    pub fn pem(&self, name: &VcekName) -> Option<Arc<str>> {
        self.chains.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Keeps the chain of a chip, which was verified.
    pub fn keep(&self, name: VcekName, pem: Arc<str>) {
        let mut chains = self.chains.write().unwrap_or_else(PoisonError::into_inner);
        if chains.len() >= MAX_CHAINS {
            chains.clear();
        }
        chains.insert(name, pem);
    }

    /// Whether these certificates of a VLEK are seen for the first time.
    pub fn is_new_vlek(&self, certificates: &[u8]) -> bool {
        self.vleks.add(certificates)
    }
}
