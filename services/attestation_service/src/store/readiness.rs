//! Proof that the database takes writes: one row that is written again.

use super::{Store, StoreError};

impl Store {
    /// Writes the row and waits until it is on disk.
    pub async fn prove_writable(&self, now: i64) -> Result<(), StoreError> {
        let statement = "INSERT INTO readiness (id, written_on) VALUES (1, $1)
                         ON CONFLICT (id) DO UPDATE SET written_on = excluded.written_on";
        let query = sqlx::query(statement).bind(now).execute(&self.pool).await;
        query.map(drop).map_err(StoreError::database("proving that the database takes writes"))
    }
}
