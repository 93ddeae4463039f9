//! What releases leave behind: tokens that are used up, and the newest generation by key and VM.

use sqlx::sqlite::SqliteConnection;

use super::StoreError;

/// Whether a token has released a key before.
pub async fn is_used(
    connection: &mut SqliteConnection,
    issuer: &str,
    token: &str,
) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM used_tokens WHERE issuer = ? AND token = ?")
        .bind(issuer)
        .bind(token)
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Uses a token up. Fails if it is used already.
pub async fn use_up(
    connection: &mut SqliteConnection,
    issuer: &str,
    token: &str,
    forget: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO used_tokens (issuer, token, forget) VALUES (?, ?, ?)")
        .bind(issuer)
        .bind(token)
        .bind(forget)
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets tokens that could not be presented any more at `now`. Returns how many.
pub async fn forget_tokens(connection: &mut SqliteConnection, now: i64) -> Result<u64, StoreError> {
    let result =
        sqlx::query("DELETE FROM used_tokens WHERE forget < ?").bind(now).execute(connection).await?;
    Ok(result.rows_affected())
}

/// The generation that was released last for this VM.
pub async fn last_generation(
    connection: &mut SqliteConnection,
    name: &str,
    vm_id: &str,
) -> Result<Option<u64>, StoreError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT generation FROM generations WHERE name = ? AND vm_id = ?")
            .bind(name)
            .bind(vm_id)
            .fetch_optional(connection)
            .await?;
    found.map(|number| u64::try_from(number).map_err(|_| StoreError::Corrupt("generation"))).transpose()
}

/// Whether the key has released the guest state of any VM.
pub async fn has_generations(connection: &mut SqliteConnection, name: &str) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM generations WHERE name = ? LIMIT 1")
        .bind(name)
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Records the generation that is released now.
pub async fn record_generation(
    connection: &mut SqliteConnection,
    name: &str,
    vm_id: &str,
    generation: u64,
    now: i64,
) -> Result<(), StoreError> {
    let generation = i64::try_from(generation).map_err(|_| StoreError::Corrupt("generation"))?;
    sqlx::query(
        "INSERT INTO generations (name, vm_id, generation, updated) VALUES (?, ?, ?, ?)
         ON CONFLICT (name, vm_id) DO UPDATE SET generation = excluded.generation, updated = excluded.updated",
    )
    .bind(name)
    .bind(vm_id)
    .bind(generation)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}
