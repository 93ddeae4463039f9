//! Nonces that were used, so that none is used twice, also not after a restart or by another process.

use super::{Store, StoreError};

impl Store {
    /// Marks a nonce as used. Returns whether this was the first time.
    pub async fn use_nonce(&self, nonce: &str, expires_on: i64, now: i64) -> Result<bool, StoreError> {
        // An expired nonce is refused before it gets here, so its row is of no more use.
        sqlx::query("DELETE FROM used_nonces WHERE expires_on < $1")
            .bind(now)
            .execute(&self.pool)
            .await
            .map_err(StoreError::database("removing expired nonces"))?;
        let done =
            sqlx::query("INSERT INTO used_nonces (nonce, expires_on) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(nonce)
                .bind(expires_on)
                .execute(&self.pool)
                .await
                .map_err(StoreError::database("marking a nonce as used"))?;
        Ok(done.rows_affected() == 1)
    }
}
