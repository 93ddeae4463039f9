//! Keeps revocation lists current: read from their files, fetched from their URLs by the client of
//! [`crate::app::collateral`], which keeps them in the database, so that neither a restart nor an outage of the key
//! distribution service leaves the service without the newest list that it has seen.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use snp::CrlScope;

use crate::app::attest::Service;
use crate::config::Config;

/// Between two rounds that worked.
const PERIOD: Duration = Duration::from_secs(6 * 3600);
/// After the first round that failed; doubled after each further one. The client has a back-off of its own.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait after a round that failed.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Where lists come from.
#[derive(Clone, Debug)]
pub struct Sources {
    files: Vec<(CrlScope, PathBuf)>,
    urls: Vec<String>,
}

impl Sources {
    /// The sources of a configuration.
    pub fn of(config: &Config) -> Self {
        let of =
            |scope, paths: &[PathBuf]| paths.iter().map(|path| (scope, path.clone())).collect::<Vec<_>>();
        let files = [of(CrlScope::Vcek, &config.crl_files), of(CrlScope::Vlek, &config.vlek_crl_files)];
        Self { files: files.concat(), urls: config.crl_urls.clone() }
    }
}

/// Fetches for as long as the service runs.
pub async fn keep_current(service: Arc<Service>, sources: Sources) {
    let mut retry = FIRST_RETRY;
    loop {
        let wait = if refresh(&service, &sources, jiff::Timestamp::now().as_second()).await {
            retry = FIRST_RETRY;
            PERIOD
        } else {
            let now = retry;
            retry = (retry * 2).min(LAST_RETRY);
            now
        };
        tokio::time::sleep(wait).await;
    }
}

/// Reads every file and fetches every URL once: those configured, and those that a prefetch has learnt a list from.
/// Returns whether all of it worked.
pub async fn refresh(service: &Service, sources: &Sources, now: i64) -> bool {
    let mut current = true;
    for (scope, path) in &sources.files {
        let added = match std::fs::read(path) {
            Ok(file) => service.appraiser.add_crl(*scope, &file).map(drop),
            Err(error) => Err(error.to_string()),
        };
        if let Err(problem) = added {
            tracing::warn!(path = %path.display(), problem, "a revocation list was not read");
            current = false;
        }
    }
    for url in urls(service, sources).await {
        let fetched =
            service.collateral.fetch_list(&service.appraiser, std::slice::from_ref(&url), now).await;
        if let Err(error) = fetched {
            tracing::warn!(url, problem = %error, "a revocation list was not fetched");
            current = false;
        }
    }
    current
}

async fn urls(service: &Service, sources: &Sources) -> BTreeSet<String> {
    let mut urls: BTreeSet<String> = sources.urls.iter().cloned().collect();
    match service.collateral.lists().await {
        Ok(lists) => {
            let fetched = lists.into_iter().map(|list| list.source);
            urls.extend(fetched.filter(|source| service.collateral.kds().serves(source)));
        }
        Err(error) => {
            tracing::error!(problem = crate::chain(&error), "the stored revocation lists were not read");
        }
    }
    urls
}
