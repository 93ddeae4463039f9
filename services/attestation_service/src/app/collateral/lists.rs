//! Revocation lists: fetched by the same client as certificates, kept in the same database. A list is believed by its
//! signature alone, so it does not matter over which way it came.

use std::sync::Arc;

use snp::kds::crl_path;
use snp::{Product, SigningKey};

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

    /// Fetches a list and takes it in.
    pub async fn fetch_list(&self, appraiser: &Appraiser, urls: &[String], now: i64) -> Result<(), NoAnswer> {
        let check = |list: &[u8]| appraiser.add_crl(list).map(|added| (added, list.to_vec()));
        let (added, list) = self.kds.fetch(urls, MAX_LIST, now, check).await?;
        if added.newest {
            let source = urls.first().cloned().unwrap_or_default();
            let root = added.root.to_string();
            self.write_down(Learnt::List(StoredList { root, list, source, learnt_on: now })).await;
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
