//! Rotates each provider's signing key in time.

use std::sync::Arc;
use std::time::Duration;

use crate::app::attest::Service;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(3600);

/// Looks for as long as the service runs.
pub async fn keep_rotating(service: Arc<Service>) {
    loop {
        rotate(&service, jiff::Timestamp::now().as_second());
        tokio::time::sleep(PERIOD).await;
    }
}

/// Makes the next key of each provider whose key has signed for long enough.
pub fn rotate(service: &Service, now: i64) {
    for provider in service.providers.all() {
        if let Err(error) = provider.signer.rotate_if_due(now) {
            let problem = crate::chain(&error);
            tracing::error!(provider = provider.name(), problem, "a signing key could not be rotated");
        }
    }
}
