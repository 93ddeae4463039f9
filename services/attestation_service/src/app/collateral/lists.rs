//! Revocation lists: fetched by the same client as certificates, kept in the same database. A list is believed by its
//! signature alone, so it does not matter over which way it came.

use std::sync::Arc;

use snp::kds::crl_path;
use snp::{CrlScope, Product, SigningKey};

use super::Collateral;
use super::kds::NoAnswer;
use crate::app::appraise::Appraiser;
use crate::store::{Learnt, StoreError, StoredList};

/// Longest accepted list.
const MAX_LIST: usize = 1024 * 1024;

impl Collateral {
    /// The lists that were learnt earlier.
    pub async fn lists(&self) -> Result<Vec<StoredList>, StoreError> {
        self.store.lists().await
    }

    /// Fetches a list and takes it in; its scope is in the path of its address.
    pub async fn fetch_list(&self, appraiser: &Appraiser, urls: &[String], now: i64) -> Result<(), NoAnswer> {
        let scope = urls.first().map_or(CrlScope::Vcek, |url| scope_of(url));
        let check = |list: &[u8]| appraiser.add_crl(scope, list).map(|added| (added, list.to_vec()));
        let (added, list) = self.kds.fetch(urls, MAX_LIST, now, check).await?;
        if added.newest {
            let source = urls.first().cloned().unwrap_or_default();
            self.write_down(Learnt::List(StoredList::of(added.root, scope, list, source, now))).await;
        }
        Ok(())
    }

    /// Fetches the list of a product.
    pub async fn fetch_list_of(
        self: &Arc<Self>,
        appraiser: &Appraiser,
        product: Product,
        now: i64,
    ) -> Result<(), NoAnswer> {
        self.fetch_list(appraiser, &self.kds.urls(&crl_path(product, SigningKey::Vcek)), now).await
    }
}

/// AMD serves the lists for VLEKs below `/vlek/` and those for VCEKs below `/vcek/` (57230); the list does not say it.
pub fn scope_of(url: &str) -> CrlScope {
    let path = url::Url::parse(url).map(|url| url.path().to_owned()).unwrap_or_default();
    if path.split('/').any(|segment| segment == "vlek") { CrlScope::Vlek } else { CrlScope::Vcek }
}
