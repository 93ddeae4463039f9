//! What releases leave behind: tokens that are used up, and the newest generation by key and VM.

use sqlx::sqlite::{SqliteConnection, SqliteExecutor};

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
    found.map(unsigned).transpose()
}

/// Whether the key has released the guest state of any VM.
pub async fn has_generations(connection: &mut SqliteConnection, name: &str) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM generations WHERE name = ? LIMIT 1")
        .bind(name)
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Whether a VM's guest state can move from one name to another: the other has no newest generation of this VM, or one that
/// came from the first.
pub async fn may_join(
    connection: &mut SqliteConnection,
    (from, to): (&str, &str),
    vm_id: &str,
) -> Result<bool, StoreError> {
    if from.eq_ignore_ascii_case(to) {
        return Ok(true);
    }
    let from = lineage(connection, from, vm_id).await?.flatten();
    Ok(match lineage(connection, to, vm_id).await? {
        None => true,
        Some(to) => to.is_some() && to == from,
    })
}

/// Lets the guest state of a VM move from one name to another: from now on both have the same newest generation.
pub async fn join(
    connection: &mut SqliteConnection,
    (from, to): (&str, &str),
    vm_id: &str,
    generation: u64,
    now: i64,
) -> Result<(), StoreError> {
    let lineage = lineage(connection, from, vm_id).await?.flatten();
    let lineage = lineage.unwrap_or_else(|| from.to_ascii_lowercase());
    let generation = i64::try_from(generation).map_err(|_| StoreError::Corrupt("generation"))?;
    for name in [from, to] {
        sqlx::query(
            "INSERT INTO generations (name, vm_id, generation, updated, lineage) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (name, vm_id) DO UPDATE SET generation = MAX(generation, excluded.generation),
             updated = excluded.updated, lineage = excluded.lineage",
        )
        .bind(name)
        .bind(vm_id)
        .bind(generation)
        .bind(now)
        .bind(&lineage)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The lineage of a VM's row, if there is a row and it has one.
async fn lineage(
    connection: &mut SqliteConnection,
    name: &str,
    vm_id: &str,
) -> Result<Option<Option<String>>, StoreError> {
    let found = sqlx::query_scalar("SELECT lineage FROM generations WHERE name = ? AND vm_id = ?")
        .bind(name)
        .bind(vm_id)
        .fetch_optional(connection)
        .await?;
    Ok(found)
}

/// Records the generation that is released now, under every name that the guest state was moved from or to.
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
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE generations SET generation = MAX(generation, ?1) WHERE vm_id = ?2 AND lineage =
         (SELECT lineage FROM generations WHERE name = ?3 AND vm_id = ?2)",
    )
    .bind(generation)
    .bind(vm_id)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(())
}

/// The generations of a name, by VM.
pub async fn generations(
    executor: impl SqliteExecutor<'_>,
    name: &str,
) -> Result<Vec<(String, u64)>, StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT vm_id, generation FROM generations WHERE name = ? ORDER BY vm_id")
            .bind(name)
            .fetch_all(executor)
            .await?;
    rows.into_iter().map(|(vm, number)| Ok((vm, unsigned(number)?))).collect()
}

/// Keeps the generations of a name that is about to be purged, under each of its versions: a key that comes back from a
/// backup must not forget them.
pub async fn retire_generations(connection: &mut SqliteConnection, name: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO retired_generations (version, vm_id, generation)
         SELECT v.version, g.vm_id, g.generation FROM generations g JOIN key_versions v ON v.name = g.name
         WHERE g.name = ?
         ON CONFLICT (version, vm_id) DO UPDATE SET generation = MAX(generation, excluded.generation)",
    )
    .bind(name)
    .execute(connection)
    .await?;
    Ok(())
}

/// The newest generations that a purged version had, by VM.
pub async fn retired_generations(
    connection: &mut SqliteConnection,
    version: &str,
) -> Result<Vec<(String, u64)>, StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT vm_id, generation FROM retired_generations WHERE version = ?")
            .bind(version)
            .fetch_all(connection)
            .await?;
    rows.into_iter().map(|(vm, number)| Ok((vm, unsigned(number)?))).collect()
}

fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt("generation"))
}
