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
        vec![self.database().await, self.stored_key().await]
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
            Some(record) => Ok(self.open_key(&record).map(|_| true)?),
            None => Ok(false),
        }
    }
}
