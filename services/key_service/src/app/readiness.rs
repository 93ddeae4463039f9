//! Whether the service can do its work now, check by check.

use http_service::health::Check;

use super::AppState;
use super::error::AppError;
use crate::chain;
use crate::store::keys;
use crate::store::meta;

impl AppState {
    /// The checks of `/health/ready`.
    pub async fn readiness(&self) -> Vec<Check> {
        let mut checks = vec![self.database().await, self.stored_key().await];
        checks.extend(self.token().await);
        checks
    }

    /// The keys that do not live in the token go on working without it.
    async fn token(&self) -> Option<Check> {
        let hsm = self.common.hsm.clone()?;
        let seen = match tokio::task::spawn_blocking(move || hsm.check()).await {
            Ok(Ok(())) => Ok("the token answers".to_owned()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        Some(Check::new("hsm", seen))
    }

    /// What cannot be written down is neither done nor released.
    async fn database(&self) -> Check {
        let now = self.now().to_string().into_bytes();
        let written = self.store.write(move |connection| {
            Box::pin(async move { meta::write(connection, meta::READINESS, &now).await })
        });
        let seen = written.await.map(|_| "it takes writes".to_owned());
        Check::new("database", seen.map_err(|error| chain(&error)))
    }

    /// The newest key is the one whose loss nobody would notice otherwise.
    async fn stored_key(&self) -> Check {
        let seen = match self.newest_opens().await {
            Ok(true) => Ok("the newest stored key opens".to_owned()),
            Ok(false) => Ok("no key is stored yet".to_owned()),
            Err(error) => Err(chain(&error)),
        };
        Check::new("storedKey", seen)
    }

    async fn newest_opens(&self) -> Result<bool, AppError> {
        match keys::last_written(self.store.readers()).await? {
            Some(record) if self.reference(&record).is_some() => Ok(true),
            Some(record) => Ok(self.open_key(&record).map(|_| true)?),
            None => Ok(false),
        }
    }
}
