//! The host agent's client of the control plane.

use crate::host::{SyncRequest, SyncResponse};

/// What went wrong with a call of the host interface.
#[derive(Debug, thiserror::Error)]
pub enum HostClientError {
    /// The control plane answered with an error status.
    #[error("the control plane answered {status} to host {host}: {body}")]
    Status {
        /// The host's name.
        host: String,
        /// HTTP status.
        status: u16,
        /// First part of the body.
        body: String,
    },
    /// No answer.
    #[error("the control plane could not be reached")]
    Transport(#[source] reqwest::Error),
}

/// Client of `POST /internal/hosts/{name}/sync`. The mutual-TLS identity lies in the given HTTP client.
#[derive(Clone, Debug)]
pub struct HostClient {
    base: String,
    host: String,
    http: reqwest::Client,
}

impl HostClient {
    /// A client for the host `host` of the control plane at `base`.
    pub fn new(base: &str, host: &str, http: reqwest::Client) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), host: host.to_owned(), http }
    }

    /// One exchange; returns after at most `request.wait_seconds` and the network's time.
    pub async fn sync(&self, request: &SyncRequest) -> Result<SyncResponse, HostClientError> {
        let url = format!("{}/internal/hosts/{}/sync", self.base, self.host);
        let response = self.http.post(url).json(request).send().await.map_err(HostClientError::Transport)?;
        let status = response.status();
        if !status.is_success() {
            let body = response.text().await.unwrap_or_default().chars().take(300).collect();
            return Err(HostClientError::Status { host: self.host.clone(), status: status.as_u16(), body });
        }
        response.json().await.map_err(HostClientError::Transport)
    }
}
