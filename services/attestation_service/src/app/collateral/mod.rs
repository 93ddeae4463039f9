//! The certificates and revocation lists that verification needs: kept in the database, fetched from AMD's key
//! distribution service when they are missing, exchanged in bundles.
//!
//! ```text
//! evidence ─► has its chain? ─yes─► verified; the chip's certificate is kept for later
//!               │no
//!               ▼
//!             in memory? ─► in the database? ─► fetched once for all who wait ─► verified, kept
//!                                                 │ cannot be had
//!                                                 ▼
//!                                               refused, with the reason and the time to try again
//! ```
//!
//! What it is not: a verdict. Whatever comes from here goes through the same verification as what comes with evidence.

mod budget;
pub mod bundle;
mod counts;
mod flights;
mod gap;
pub mod kds;
mod known;
pub mod lists;
pub mod missing;
pub mod prefetch;

use std::sync::Arc;
use std::time::Duration;

use http_service::Metrics;
use http_service::peer::Peer;
use public_api::collateral::ChipAndTcb;
use snp::chain::pem_to_der;
use snp::kds::{VcekName, chain_path, unverified_leaf};
use snp::{Product, SigningKey, TrustAnchors};

use super::appraise::VerifiedEvidence;
use super::request::Evidence;
use crate::config::UnknownChips;
use crate::store::{Change, Learnt, Store, StoreError, StoredIssuer, StoredVcek};
use budget::Budget;
use counts::Lookups;
use flights::Flights;
use gap::Gap;
use kds::{Kds, NoAnswer};
use known::{Issuer, Known};
use missing::{Missing, Unavailable};

/// Longest accepted certificate or pair of certificates.
const MAX_CERTIFICATES: usize = 64 * 1024;
/// For how long an issuer is not asked for again after it was fetched, in seconds.
const ISSUER_FRESH: i64 = 3600;

/// A chain in PEM, or why it cannot be had.
type Outcome = Result<Arc<str>, Unavailable>;

/// Certificates and revocation lists.
pub struct Collateral {
    known: Known,
    kds: Kds,
    store: Store,
    budget: Budget,
    lookups: Lookups,
    fetching: Arc<Flights<Outcome>>,
    issuers_fetched: std::sync::Mutex<std::collections::HashMap<String, i64>>,
}

impl Collateral {
    /// What is stored is taken up again if the pinned roots still vouch for it.
    pub async fn open(
        anchors: TrustAnchors,
        urls: Vec<String>,
        timeout: Duration,
        limits: UnknownChips,
        store: Store,
        metrics: &Arc<Metrics>,
        now: i64,
    ) -> Result<Arc<Self>, StoreError> {
        let known = Known::new(anchors);
        for stored in store.issuers().await? {
            let Some(issuer) = issuer(&stored) else { continue };
            if let Err(problem) = known.add_issuer(issuer, now) {
                tracing::warn!(stored.thumbprint, problem, "a stored issuer is not used");
            }
        }
        Ok(Arc::new(Self {
            known,
            kds: Kds::new(urls, timeout, metrics),
            budget: Budget::new(limits, metrics),
            lookups: Lookups::new(metrics),
            store,
            fetching: Arc::default(),
            issuers_fetched: std::sync::Mutex::default(),
        }))
    }

    /// The client, for what it says about its servers.
    pub fn kds(&self) -> &Kds {
        &self.kds
    }

    /// Adds the certificates that evidence lacks. Evidence that has its chain is left as it is, at once.
    pub async fn complete(
        self: &Arc<Self>,
        evidence: &mut Evidence,
        from: Peer,
        now: i64,
    ) -> Result<(), Missing> {
        let chain = match Gap::of(evidence) {
            None => return Ok(()),
            Some(Gap::Untold(denial)) => return Err(Missing::Never(denial)),
            Some(Gap::Everything(names)) => self.chain_of_any(&names, from, now).await?,
            Some(Gap::Issuers { leaf, product, key }) => self.chain_of_leaf(&leaf, product, key, now).await?,
        };
        evidence.certificates = chain.as_bytes().to_vec();
        Ok(())
    }

    /// What is worth keeping of evidence that verified: a chip seen once verifies later without its certificates.
    pub fn keep(&self, verified: &VerifiedEvidence, now: i64) -> Vec<Change> {
        let report = verified.report();
        let name = match report.signing_key() {
            SigningKey::Vlek if !self.known.is_new_vlek(verified.certificates()) => return Vec::new(),
            SigningKey::Vlek | SigningKey::None => None,
            SigningKey::Vcek => {
                let Some(chip_id) = report.chip_id().map(<[u8]>::to_vec) else { return Vec::new() };
                Some(VcekName { product: report.product(), chip_id, tcb: report.report().reported_tcb })
            }
        };
        if name.as_ref().is_some_and(|name| self.known.pem(name).is_some()) {
            return Vec::new();
        }
        let Ok(certificates) = pem_to_der(verified.certificates()) else { return Vec::new() };
        let [leaf, ask, ark] = certificates.as_slice() else { return Vec::new() };
        let issues = report.signing_key();
        let issuer = Issuer { product: report.product(), issues, ask: ask.clone(), ark: ark.clone() };
        let stored = stored_issuer(&issuer, now);
        let mut learnt = Vec::new();
        if self.known.add_issuer(issuer, now) == Ok(true) {
            learnt.push(Learnt::Issuer(stored));
        }
        if let Some(name) = name {
            learnt.push(Learnt::Vcek(stored_vcek(&name, leaf.clone(), now)));
            let pem = [leaf, ask, ark].map(|der| snp::chain::der_to_pem(der)).concat();
            self.known.keep(name, pem.into());
        }
        learnt.into_iter().map(Change::Learn).collect()
    }

    /// A report of version 2 does not name its product: the first one whose server knows the chip is it.
    async fn chain_of_any(self: &Arc<Self>, names: &[VcekName], from: Peer, now: i64) -> Outcome {
        if let Some(chain) = names.iter().find_map(|name| self.known.pem(name)) {
            self.lookups.memory.increment(1);
            return Ok(chain);
        }
        let mut why: Option<Unavailable> = None;
        for name in names {
            match self.vcek(name, Some(from), now).await {
                Ok(chain) => return Ok(chain),
                Err(error) if error.why.missing && why.is_some() => {}
                Err(error) => why = Some(error),
            }
        }
        self.lookups.missing.increment(1);
        Err(why.unwrap_or_else(|| Unavailable::busy("the VCEK of the report's chip".to_owned(), now)))
    }

    /// The chain of a chip with a TCB, fetched at the expense of `from`, or of nobody.
    pub async fn vcek(self: &Arc<Self>, name: &VcekName, from: Option<Peer>, now: i64) -> Outcome {
        if let Some(chain) = self.known.pem(name) {
            return Ok(chain);
        }
        let start = || {
            let (this, name) = (Arc::clone(self), name.clone());
            async move { this.learn_vcek(name, from, now).await }
        };
        let landed = self.fetching.join(&name.path(), start).await;
        landed.unwrap_or_else(|| Err(Unavailable::busy(wanted(name), now)))
    }

    /// From memory again (another one may just have landed), from the database, from the key distribution service.
    async fn learn_vcek(self: Arc<Self>, name: VcekName, from: Option<Peer>, now: i64) -> Outcome {
        if let Some(chain) = self.known.pem(&name) {
            return Ok(chain);
        }
        let ChipAndTcb { product, chip_id, tcb } = shown(&name);
        match self.store.vcek(&product, &chip_id, &tcb).await {
            Ok(Some(leaf)) => {
                if let Ok(chain) = self.checked(&name, &leaf, now) {
                    self.lookups.database.increment(1);
                    return Ok(chain);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(problem = crate::chain(&error), "a certificate was not read"),
        }
        let unavailable = |why: NoAnswer| Unavailable { wanted: wanted(&name), why };
        let urls = self.kds.urls(&name.path());
        let is_it = |leaf: &[u8]| match unverified_leaf(leaf).as_ref().map(VcekName::of_leaf) {
            Some(Some(named)) if named == name => Ok(leaf.to_vec()),
            Some(_) => Err("it is a certificate of another chip or TCB".to_owned()),
            None => Err("it is not the certificate of a chip".to_owned()),
        };
        // What nobody would be asked for costs nothing.
        if let Some(from) = from.filter(|_| !self.kds.rests(&urls, now)) {
            self.budget.spend(from, now).map_err(unavailable)?;
        }
        let leaf = self.kds.fetch(&urls, MAX_CERTIFICATES, now, is_it).await.map_err(unavailable)?;
        self.lookups.fetched.increment(1);
        let chain = match self.checked(&name, &leaf, now) {
            Ok(chain) => chain,
            Err(_) => {
                self.issuer(name.product, SigningKey::Vcek, now).await?;
                self.checked(&name, &leaf, now).map_err(|problem| {
                    let url = urls.first().map_or("", String::as_str);
                    unavailable(self.kds.distrust(url, problem, now))
                })?
            }
        };
        self.write_down(Learnt::Vcek(stored_vcek(&name, leaf, now))).await;
        Ok(chain)
    }

    /// The chain of a leaf if it verifies and is the certificate that was asked for; kept in memory then.
    fn checked(&self, name: &VcekName, leaf: &[u8], now: i64) -> Result<Arc<str>, String> {
        let (chain, verified) = self.known.chain(leaf, name.product, SigningKey::Vcek, now)?;
        if VcekName::of_leaf(verified.extensions()).as_ref() != Some(name) {
            return Err("it is a certificate of another chip or TCB".to_owned());
        }
        let pem: Arc<str> = chain.to_pem().into();
        self.known.keep(name.clone(), Arc::clone(&pem));
        Ok(pem)
    }

    /// The chain of a leaf that came with evidence.
    async fn chain_of_leaf(
        self: &Arc<Self>,
        leaf: &[u8],
        product: Product,
        key: SigningKey,
        now: i64,
    ) -> Outcome {
        if let Ok((chain, _)) = self.known.chain(leaf, product, key, now) {
            return Ok(chain.to_pem().into());
        }
        let issuer = self.issuer(product, key, now).await?;
        match self.known.chain(leaf, product, key, now) {
            Ok((chain, _)) => Ok(chain.to_pem().into()),
            // Verification tells what is wrong with the leaf.
            Err(_) => Ok(format!("{}{issuer}", snp::chain::der_to_pem(leaf)).into()),
        }
    }

    /// PEM of the newest issuer, fetched unless that was done within the last hour.
    async fn issuer(self: &Arc<Self>, product: Product, key: SigningKey, now: i64) -> Outcome {
        let path = chain_path(product, key);
        let start = || {
            let this = Arc::clone(self);
            async move { this.learn_issuer(product, key, now).await }
        };
        let landed = self.fetching.join(&path, start).await;
        landed.unwrap_or_else(|| Err(Unavailable::busy(wanted_issuer(product, key), now)))
    }

    async fn learn_issuer(self: Arc<Self>, product: Product, key: SigningKey, now: i64) -> Outcome {
        let path = chain_path(product, key);
        let known = |issuer: &&Issuer| issuer.product == product && issuer.issues == key;
        let fetched = self.fetched(&path);
        if fetched.is_some_and(|at| now < at + ISSUER_FRESH)
            && let Some(issuer) = self.known.issuers().iter().rfind(known)
        {
            return Ok(pem(issuer));
        }
        let check = |body: &[u8]| {
            let certificates = pem_to_der(body).map_err(|error| crate::chain(&error))?;
            let [ask, ark] = <[Vec<u8>; 2]>::try_from(certificates)
                .map_err(|other| format!("it has {} certificates instead of 2", other.len()))?;
            let issuer = Issuer { product, issues: key, ask, ark };
            let new = self.known.add_issuer(issuer.clone(), now)?;
            Ok((issuer, new))
        };
        let unavailable = |why| Unavailable { wanted: wanted_issuer(product, key), why };
        let fetched = self.kds.fetch(&self.kds.urls(&path), MAX_CERTIFICATES, now, check).await;
        let (issuer, new) = fetched.map_err(unavailable)?;
        if new {
            self.write_down(Learnt::Issuer(stored_issuer(&issuer, now))).await;
        }
        self.mark_fetched(path, now);
        Ok(pem(&issuer))
    }

    fn fetched(&self, path: &str) -> Option<i64> {
        let fetched = self.issuers_fetched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        fetched.get(path).copied()
    }

    fn mark_fetched(&self, path: String, now: i64) {
        self.issuers_fetched.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(path, now);
    }

    /// What cannot be written down is fetched again after the next start, which is no reason to refuse anybody.
    async fn write_down(&self, learnt: Learnt) {
        if let Err(error) = self.store.learn(&learnt).await {
            tracing::error!(problem = crate::chain(&error), "what was fetched could not be written down");
        }
    }
}

fn pem(issuer: &Issuer) -> Arc<str> {
    [&issuer.ask, &issuer.ark].map(|der| snp::chain::der_to_pem(der)).concat().into()
}

fn wanted(name: &VcekName) -> String {
    let ChipAndTcb { product, chip_id, tcb } = shown(name);
    format!("the VCEK of the {product} chip {chip_id} with TCB {tcb}")
}

fn wanted_issuer(product: Product, key: SigningKey) -> String {
    format!("the certificates above a {key} of {product}")
}

/// A name as messages and rows spell it.
fn shown(name: &VcekName) -> ChipAndTcb {
    ChipAndTcb {
        product: name.product.to_string(),
        chip_id: hex::encode(&name.chip_id),
        tcb: name.tcb.to_string(),
    }
}

fn stored_vcek(name: &VcekName, certificate: Vec<u8>, now: i64) -> StoredVcek {
    let ChipAndTcb { product, chip_id, tcb } = shown(name);
    StoredVcek { product, chip_id, tcb, certificate, learnt_on: now }
}

fn stored_issuer(issuer: &Issuer, now: i64) -> StoredIssuer {
    StoredIssuer {
        product: issuer.product.to_string(),
        issues: issuer.issues.to_string(),
        thumbprint: issuer.thumbprint(),
        ask: issuer.ask.clone(),
        ark: issuer.ark.clone(),
        learnt_on: now,
    }
}

fn issuer(stored: &StoredIssuer) -> Option<Issuer> {
    let (product, issues) = (stored.product.parse().ok()?, issues(&stored.issues)?);
    Some(Issuer { product, issues, ask: stored.ask.clone(), ark: stored.ark.clone() })
}

fn issues(name: &str) -> Option<SigningKey> {
    [SigningKey::Vcek, SigningKey::Vlek].into_iter().find(|key| key.to_string() == name)
}
