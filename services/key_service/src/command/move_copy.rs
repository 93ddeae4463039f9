//! The copying part of a move: every table, a page at a time, in the target's one transaction.

use super::CommandError;
use super::move_seal::Seals;
use crate::store::tables::{
    self, Generation, LogEntry, Meta, Name, RetiredGeneration, RotationPolicy, Row, UsedToken, Version,
};
use crate::store::{Connection, tables::page};

/// Removes what an earlier try has left.
pub(super) async fn wipe(to: &mut Connection) -> Result<(), CommandError> {
    Ok(tables::clear(to).await?)
}

/// Copies every row. Names come before what refers to them.
pub(super) async fn copy(
    from: &mut Connection,
    to: &mut Connection,
    seals: &Seals,
) -> Result<(), CommandError> {
    rows::<Name>(from, to, |row| Ok(Some(row))).await?;
    rows::<Version>(from, to, |row| seals.version(row).map(Some)).await?;
    rows::<Generation>(from, to, |row| Ok(Some(row))).await?;
    rows::<RetiredGeneration>(from, to, |row| Ok(Some(row))).await?;
    rows::<RotationPolicy>(from, to, |row| Ok(Some(row))).await?;
    rows::<UsedToken>(from, to, |row| Ok(Some(row))).await?;
    rows::<LogEntry>(from, to, |row| Ok(Some(row))).await?;
    rows::<Meta>(from, to, |row| seals.value(row)).await
}

async fn rows<R: Row>(
    from: &mut Connection,
    to: &mut Connection,
    carried: impl Fn(R) -> Result<Option<R>, CommandError>,
) -> Result<(), CommandError> {
    let mut after = R::FIRST;
    loop {
        let rows: Vec<R> = page(from, &after).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.cursor();
        for row in rows {
            if let Some(row) = carried(row)? {
                row.insert(to).await?;
            }
        }
    }
}
