//! Chains that were verified before, so that a chip seen once costs one ECDSA verification and little more.
//!
//! The answer is the same with and without: what is kept is only that three certificates, by their bytes, lead from a
//! root to a key. Dates, revocation and whether that root is still trusted are asked each time. What it is not: a cache
//! of reports, or anything that a caller must invalidate.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use crate::UnixTime;
use crate::chain::{CertChain, ChainDer, ChainError};
use crate::crl::Crls;
use crate::error::VerifyError;
use crate::roots::TrustAnchors;
use crate::verify::{VerifiedChain, VerifiedReport, prove, verify_report};

/// Why evidence was refused before or after its certificates could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The certificates cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// They can, and the evidence is refused.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl EvidenceError {
    /// The refusal in five parts and a code.
    pub fn explain(&self) -> crate::Explanation {
        match self {
            Self::Chain(error) => error.explain(),
            Self::Verify(error) => error.explain(),
        }
    }
}

/// A bounded set of verified chains by the SHA-256 of their certificates. When it is full, the oldest goes.
#[derive(Debug)]
pub struct VerifiedChains {
    capacity: usize,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_digest: HashMap<[u8; 32], Arc<VerifiedChain>>,
    /// Oldest first.
    order: VecDeque<[u8; 32]>,
}

impl VerifiedChains {
    /// Room for that many chains, some 2 KiB each; with none, each chain is verified each time.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, kept: RwLock::default() }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).by_digest.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Verifies a report and its chain as [`crate::verify`] does.
    ///
    /// # Errors
    /// The first check that failed; see [`EvidenceError`].
    pub fn verify(
        &self,
        report: &[u8],
        certificates: &ChainDer,
        anchors: &TrustAnchors,
        crls: &Crls,
        now: UnixTime,
    ) -> Result<VerifiedReport, EvidenceError> {
        let chain = self.chain(certificates, anchors)?;
        chain.check(crls, now)?;
        Ok(verify_report(report, &chain, now)?)
    }

    /// The chain as it was verified before, or verified now.
    fn chain(
        &self,
        certificates: &ChainDer,
        anchors: &TrustAnchors,
    ) -> Result<Arc<VerifiedChain>, EvidenceError> {
        let digest = certificates.digest();
        let known = self.kept.read().unwrap_or_else(PoisonError::into_inner).by_digest.get(&digest).cloned();
        if let Some(chain) = known.filter(|chain| anchors.contains(chain.root())) {
            return Ok(chain);
        }
        let chain = Arc::new(prove(&CertChain::parse(certificates)?, anchors)?);
        self.keep(digest, Arc::clone(&chain));
        Ok(chain)
    }

    fn keep(&self, digest: [u8; 32], chain: Arc<VerifiedChain>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if self.capacity == 0 || kept.by_digest.insert(digest, chain).is_some() {
            return;
        }
        kept.order.push_back(digest);
        if kept.order.len() > self.capacity
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_digest.remove(&oldest);
        }
    }
}
