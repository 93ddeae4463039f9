//! What releases leave behind: tokens that are used up, and the newest generation by key and VM.

use super::backend::{change, folded, on};
use super::{Connection, Reader, StoreError};

/// Whether a token has released a key before.
pub async fn is_used(connection: &mut Connection, issuer: &str, token: &str) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM used_tokens WHERE issuer = $1 AND token = $2)";
    on!(&mut *connection, |executor| {
        Ok(sqlx::query_scalar(SQL).bind(issuer).bind(token).fetch_one(executor).await?)
    })
}

/// Uses a token up. Fails if it is used already.
pub async fn use_up(
    connection: &mut Connection,
    issuer: &str,
    token: &str,
    forget: i64,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO used_tokens (issuer, token, forget) VALUES ($1, $2, $3)";
    change!(connection, SQL, issuer, token, forget)?;
    Ok(())
}

/// Forgets tokens that could not be presented any more at `now`. Returns how many.
pub async fn forget_tokens(connection: &mut Connection, now: i64) -> Result<u64, StoreError> {
    Ok(change!(connection, "DELETE FROM used_tokens WHERE forget < $1", now)?)
}

/// The generation that was released last for this VM.
pub async fn last_generation(
    connection: &mut Connection,
    name: &str,
    vm_id: &str,
) -> Result<Option<u64>, StoreError> {
    const SQL: &str = "SELECT generation FROM generations WHERE name = $1 AND vm_id = $2";
    let found: Option<i64> = on!(&mut *connection, |executor| {
        Ok(sqlx::query_scalar(SQL).bind(folded(name)).bind(vm_id).fetch_optional(executor).await?)
    })?;
    found.map(unsigned).transpose()
}

/// Whether the key has released the guest state of any VM.
pub async fn has_generations(connection: &mut Connection, name: &str) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM generations WHERE name = $1)";
    on!(&mut *connection, |executor| {
        Ok(sqlx::query_scalar(SQL).bind(folded(name)).fetch_one(executor).await?)
    })
}

/// Whether a VM's guest state can move from one name to another: the other has no newest generation of this VM, or one that
/// came from the first.
pub async fn may_join(
    connection: &mut Connection,
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
    connection: &mut Connection,
    (from, to): (&str, &str),
    vm_id: &str,
    generation: u64,
    now: i64,
) -> Result<(), StoreError> {
    const SQL: &str =
        "INSERT INTO generations (name, vm_id, generation, updated, lineage) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name, vm_id) DO UPDATE SET updated = excluded.updated, lineage = excluded.lineage,
             generation = CASE WHEN generations.generation > excluded.generation
                 THEN generations.generation ELSE excluded.generation END";
    let lineage = lineage(connection, from, vm_id).await?.flatten();
    let lineage = lineage.unwrap_or_else(|| folded(from));
    let generation = i64::try_from(generation).map_err(|_| StoreError::Corrupt("generation"))?;
    for name in [from, to] {
        change!(connection, SQL, folded(name), vm_id, generation, now, &lineage)?;
    }
    Ok(())
}

/// The lineage of a VM's row, if there is a row and it has one.
async fn lineage(
    connection: &mut Connection,
    name: &str,
    vm_id: &str,
) -> Result<Option<Option<String>>, StoreError> {
    const SQL: &str = "SELECT lineage FROM generations WHERE name = $1 AND vm_id = $2";
    on!(&mut *connection, |executor| {
        Ok(sqlx::query_scalar(SQL).bind(folded(name)).bind(vm_id).fetch_optional(executor).await?)
    })
}

/// Records the generation that is released now, under every name that the guest state was moved from or to.
pub async fn record_generation(
    connection: &mut Connection,
    name: &str,
    vm_id: &str,
    generation: u64,
    now: i64,
) -> Result<(), StoreError> {
    const SQL: &str =
        "INSERT INTO generations (name, vm_id, generation, updated) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name, vm_id) DO UPDATE SET generation = excluded.generation, updated = excluded.updated";
    let generation = i64::try_from(generation).map_err(|_| StoreError::Corrupt("generation"))?;
    change!(connection, SQL, folded(name), vm_id, generation, now)?;
    const ALONG: &str = "UPDATE generations SET generation = $1 WHERE vm_id = $2 AND generation < $1
         AND lineage = (SELECT g.lineage FROM generations g WHERE g.name = $3 AND g.vm_id = $2)";
    change!(connection, ALONG, generation, vm_id, folded(name))?;
    Ok(())
}

/// Puts the newest generation of a VM back to `to`, under every name that its guest state was moved from or to, and with
/// it what is remembered of purged versions of these names. Returns the names.
pub async fn reset_generation(
    connection: &mut Connection,
    name: &str,
    vm_id: &str,
    to: u64,
    now: i64,
) -> Result<Vec<String>, StoreError> {
    const SQL: &str = "UPDATE generations SET generation = $1, updated = $2 WHERE name = $3 AND vm_id = $4";
    const RETIRED: &str =
        "UPDATE retired_generations SET generation = $1 WHERE vm_id = $2 AND generation > $1
         AND version IN (SELECT v.version FROM key_versions v WHERE v.name = $3)";
    let to = i64::try_from(to).map_err(|_| StoreError::Corrupt("generation"))?;
    let names = names_of_state(connection, name, vm_id).await?;
    for name in &names {
        change!(connection, SQL, to, now, name, vm_id)?;
        change!(connection, RETIRED, to, vm_id, name)?;
    }
    Ok(names)
}

/// The names under which a VM's guest state lies or has lain: this one, and those of the same lineage.
async fn names_of_state(
    connection: &mut Connection,
    name: &str,
    vm_id: &str,
) -> Result<Vec<String>, StoreError> {
    const SQL: &str =
        "SELECT lower(g.name) FROM generations g WHERE g.vm_id = $2 AND (g.name = $1 OR g.lineage =
         (SELECT o.lineage FROM generations o WHERE o.name = $1 AND o.vm_id = $2)) ORDER BY 1";
    on!(&mut *connection, |executor| {
        Ok(sqlx::query_scalar(SQL).bind(folded(name)).bind(vm_id).fetch_all(executor).await?)
    })
}

/// The generations of a name, by VM.
pub async fn generations<'c>(
    reader: impl Into<Reader<'c>>,
    name: &str,
) -> Result<Vec<(String, u64)>, StoreError> {
    const SQL: &str = "SELECT vm_id, generation FROM generations WHERE name = $1 ORDER BY vm_id";
    let rows: Vec<(String, i64)> =
        on!(reader, |executor| Ok(sqlx::query_as(SQL).bind(folded(name)).fetch_all(executor).await?))?;
    rows.into_iter().map(|(vm, number)| Ok((vm, unsigned(number)?))).collect()
}

/// Keeps the generations of a name that is about to be purged, under each of its versions: a key that comes back from a
/// backup must not forget them.
pub async fn retire_generations(connection: &mut Connection, name: &str) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO retired_generations (version, vm_id, generation)
         SELECT v.version, g.vm_id, g.generation FROM generations g JOIN key_versions v ON v.name = g.name
         WHERE g.name = $1
         ON CONFLICT (version, vm_id) DO UPDATE SET generation = CASE
             WHEN excluded.generation > retired_generations.generation THEN excluded.generation
             ELSE retired_generations.generation END";
    change!(connection, SQL, folded(name))?;
    Ok(())
}

/// The newest generations that a purged version had, by VM.
pub async fn retired_generations(
    connection: &mut Connection,
    version: &str,
) -> Result<Vec<(String, u64)>, StoreError> {
    const SQL: &str = "SELECT vm_id, generation FROM retired_generations WHERE version = $1";
    let rows: Vec<(String, i64)> = on!(&mut *connection, |executor| {
        Ok(sqlx::query_as(SQL).bind(version).fetch_all(executor).await?)
    })?;
    rows.into_iter().map(|(vm, number)| Ok((vm, unsigned(number)?))).collect()
}

fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt("generation"))
}
