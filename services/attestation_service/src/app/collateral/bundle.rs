//! Bundles: everything that is known here, for a service that cannot reach AMD's key distribution service.
//!
//! Reading one believes nothing: every item is verified against this service's pinned roots. One bad item refuses the
//! whole bundle, by name, and nothing of it is kept.

use public_api::Denial;
use public_api::collateral::{
    BUNDLE_VERSION, BundleImported, BundledIssuer, BundledList, BundledVcek, CollateralBundle,
};
use public_api::decision_log::Decision;
use serde_json::json;
use snp::kds::VcekName;
use snp::{CrlScope, SigningKey, TrustAnchors};

use super::known::{Issuer, Known};
use super::{Collateral, issues, prefetch, stored_issuer, stored_vcek};
use crate::app::appraise::{AddedCrl, Appraiser};
use crate::app::attest::Service;
use crate::store::{Change, Learnt, Record, StoreError, StoredList};

/// Why a bundle was not imported.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It was refused.
    #[error("{0}")]
    Refused(Box<Denial>),
    /// The database failed.
    #[error("the bundle could not be stored")]
    Store(#[from] StoreError),
}

/// A bundle whose items all verified.
struct Checked {
    issuers: Vec<Issuer>,
    vceks: Vec<(VcekName, Vec<u8>)>,
    lists: Vec<(AddedCrl, BundledList)>,
}

impl Collateral {
    /// `GET /collateral/bundle`: what is stored, and the issuers that are built in.
    pub async fn export(&self, now: i64) -> Result<CollateralBundle, StoreError> {
        let vceks = self.store.vceks().await?.into_iter().map(|vcek| BundledVcek {
            product: vcek.product,
            chip_id: vcek.chip_id,
            tcb: vcek.tcb,
            certificate: vcek.certificate,
        });
        let issuers = self.known.issuers();
        let issuers = issuers.iter().map(|issuer| BundledIssuer {
            product: issuer.product.to_string(),
            issues: issuer.issues.to_string(),
            ask: issuer.ask.clone(),
            ark: issuer.ark.clone(),
        });
        let lists = self.store.lists().await?.into_iter().map(|list| BundledList {
            root: list.root,
            key: list.key,
            list: list.list,
        });
        Ok(CollateralBundle {
            version: BUNDLE_VERSION,
            created_on: jiff::Timestamp::from_second(now).unwrap_or_default().to_string(),
            issuers: issuers.collect(),
            vceks: vceks.collect(),
            revocation_lists: lists.collect(),
        })
    }
}

impl Service {
    /// `POST /collateral/bundle`.
    pub async fn import_bundle(
        &self,
        bundle: CollateralBundle,
        caller: &str,
        now: i64,
    ) -> Result<BundleImported, BundleError> {
        let _changing = self.changing.lock().await;
        let checked = check(bundle, &self.appraiser, self.collateral.known.anchors(), now);
        let checked = match checked {
            Ok(checked) => checked,
            Err(denial) => {
                self.store.record(record(Decision::Refused, Some((*denial).clone()), caller)).await?;
                return Err(BundleError::Refused(denial));
            }
        };
        let imported = BundleImported {
            issuers: checked.issuers.len(),
            vceks: checked.vceks.len(),
            revocation_lists: checked.lists.len(),
        };
        let mut record = record(Decision::PolicyChanged, None, caller);
        record.detail["imported"] = json!(imported);
        self.store.record_with(record, changes(&checked, now)).await?;
        self.take_up(checked, now);
        Ok(imported)
    }

    /// What is stored now counts at once.
    fn take_up(&self, checked: Checked, now: i64) {
        for issuer in checked.issuers {
            // It was verified a moment ago.
            let _ = self.collateral.known.add_issuer(issuer, now);
        }
        for (added, list) in checked.lists {
            let _ = self.appraiser.add_crl(added.scope, &list.list);
        }
    }
}

fn record(decision: Decision, denial: Option<Denial>, caller: &str) -> Record {
    let detail = json!({"operation": "BundleImported", "caller": caller});
    Record { decision, subject: "collateral/bundle".to_owned(), denial, detail }
}

fn changes(checked: &Checked, now: i64) -> Vec<Change> {
    let issuers = checked.issuers.iter().map(|issuer| Learnt::Issuer(stored_issuer(issuer, now)));
    let vceks = checked.vceks.iter().map(|(name, der)| Learnt::Vcek(stored_vcek(name, der.clone(), now)));
    let lists = checked.lists.iter().filter(|(added, _)| added.newest).map(|(added, list)| {
        Learnt::List(StoredList::of(added.root, added.scope, list.list.clone(), String::new(), now))
    });
    issuers.chain(vceks).chain(lists).map(Change::Learn).collect()
}

fn check(
    bundle: CollateralBundle,
    appraiser: &Appraiser,
    anchors: &TrustAnchors,
    now: i64,
) -> Result<Checked, Box<Denial>> {
    if bundle.version != BUNDLE_VERSION {
        return Err(refused("version", &format!("version {}, expected {BUNDLE_VERSION}", bundle.version)));
    }
    // The bundle's own issuers and those that are built in, and no other: a bundle is whole by itself.
    let known = Known::new(anchors.clone());
    let mut checked = Checked { issuers: Vec::new(), vceks: Vec::new(), lists: Vec::new() };
    for (index, item) in bundle.issuers.into_iter().enumerate() {
        let issuer = check_issuer(item, &known, now);
        let named = |problem: String| refused(&format!("issuers[{index}]"), &problem);
        checked.issuers.push(issuer.map_err(named)?);
    }
    for (index, item) in bundle.vceks.into_iter().enumerate() {
        let item_name = format!("vceks[{index}] (chip {}, TCB {})", item.chip_id, item.tcb);
        let vcek = check_vcek(item, &known, now);
        checked.vceks.push(vcek.map_err(|problem| refused(&item_name, &problem))?);
    }
    for (index, item) in bundle.revocation_lists.into_iter().enumerate() {
        let item_name = format!("revocationLists[{index}] (root {})", item.root);
        let list = check_list(item, appraiser);
        checked.lists.push(list.map_err(|problem| refused(&item_name, &problem))?);
    }
    Ok(checked)
}

fn check_issuer(item: BundledIssuer, known: &Known, now: i64) -> Result<Issuer, String> {
    let product = item.product.parse().map_err(|error: snp::UnknownProduct| error.to_string())?;
    let issues = issues(&item.issues).ok_or("`issues` is neither VCEK nor VLEK")?;
    let issuer = Issuer { product, issues, ask: item.ask, ark: item.ark };
    known.add_issuer(issuer.clone(), now)?;
    Ok(issuer)
}

fn check_vcek(item: BundledVcek, known: &Known, now: i64) -> Result<(VcekName, Vec<u8>), String> {
    let name = prefetch::name(&item.product, &item.chip_id, &item.tcb).map_err(|error| error.to_string())?;
    let (_, verified) = known.chain(&item.certificate, name.product, SigningKey::Vcek, now)?;
    if VcekName::of_leaf(verified.extensions()).as_ref() != Some(&name) {
        return Err("it is the certificate of another chip or TCB".to_owned());
    }
    Ok((name, item.certificate))
}

fn check_list(item: BundledList, appraiser: &Appraiser) -> Result<(AddedCrl, BundledList), String> {
    let scope = CrlScope::from_name(&item.key).ok_or("`key` is neither VCEK nor VLEK")?;
    let added = appraiser.try_crl(scope, &item.list)?;
    if added.root.to_string() != item.root {
        return Err(format!("it is the list of root {}", added.root));
    }
    Ok((added, item))
}

fn refused(item: &str, problem: &str) -> Box<Denial> {
    Box::new(Denial::new(
        "BundleItemRefused",
        item,
        "an item that verifies under this service's pinned roots",
        problem,
        "nothing of a bundle is stored unless every item of it verifies",
        "export the bundle anew, or remove the item",
    ))
}
