//! Keeps revocation lists current: fetched from their URLs, kept on disk, so that neither a restart nor an outage of the
//! key distribution service leaves the service without the newest list that it has seen.
//!
//! A list is believed by its signature alone, so it does not matter over which way it came; a damaged or foreign answer
//! changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::app::attest::Service;
use crate::config::Config;

/// Between two fetches.
const PERIOD: Duration = Duration::from_secs(6 * 3600);
/// After the first fetch that failed; doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait after a fetch that failed.
const LAST_RETRY: Duration = Duration::from_secs(300);
/// For one fetch.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Longest accepted list.
const MAX_LIST: usize = 1024 * 1024;

/// Where lists come from and where they are kept.
#[derive(Clone, Debug)]
pub struct Sources {
    files: Vec<PathBuf>,
    urls: Vec<String>,
    directory: PathBuf,
}

/// Why a list could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("fetching the revocation list")]
    Http(#[from] reqwest::Error),
    #[error("the answer is longer than {MAX_LIST} bytes")]
    TooLong,
    #[error("the answer is not a list of a trusted root: {0}")]
    NotAList(String),
    #[error("keeping the revocation list")]
    Keep(#[from] std::io::Error),
}

impl Sources {
    /// The sources of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            files: config.crl_files.clone(),
            urls: config.crl_urls.clone(),
            directory: config.data_dir.join("revocation"),
        }
    }

    /// The lists that were fetched earlier.
    pub fn cached(&self) -> Vec<Vec<u8>> {
        self.urls.iter().filter_map(|url| std::fs::read(self.kept(url)).ok()).collect()
    }

    fn kept(&self, url: &str) -> PathBuf {
        self.directory
            .join(hex::encode(digest::digest(&digest::SHA256, url.as_bytes())))
            .with_extension("crl")
    }
}

/// Fetches for as long as the service runs.
pub async fn keep_current(service: Arc<Service>, sources: Sources) {
    if sources.files.is_empty() && sources.urls.is_empty() {
        return;
    }
    let mut retry = FIRST_RETRY;
    loop {
        let wait = if refresh(&service, &sources).await {
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

/// Reads every file and fetches every URL once. Returns whether all of it worked.
pub async fn refresh(service: &Service, sources: &Sources) -> bool {
    let mut current = true;
    for path in &sources.files {
        let added = match std::fs::read(path) {
            Ok(file) => service.appraiser.add_crl(&file),
            Err(error) => Err(error.to_string()),
        };
        if let Err(problem) = added {
            tracing::warn!(path = %path.display(), problem, "a revocation list was not read");
            current = false;
        }
    }
    for url in &sources.urls {
        if let Err(error) = fetch(service, sources, url).await {
            tracing::warn!(url, problem = %crate::chain(&error), "a revocation list was not fetched");
            current = false;
        }
    }
    current
}

async fn fetch(service: &Service, sources: &Sources, url: &str) -> Result<(), FetchError> {
    let client =
        reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build()?;
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut list = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        list.extend_from_slice(&chunk);
        if list.len() > MAX_LIST {
            return Err(FetchError::TooLong);
        }
    }
    service.appraiser.add_crl(&list).map_err(FetchError::NotAList)?;
    std::fs::create_dir_all(&sources.directory)?;
    let kept = sources.kept(url);
    let new = kept.with_extension("new");
    std::fs::write(&new, &list)?;
    Ok(std::fs::rename(new, kept)?)
}
