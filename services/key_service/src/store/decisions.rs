//! The decision log: appending inside a transaction, reading pages.

use public_api::Denial;
use public_api::decision_log::{Decision, Entry, Place};
use serde_json::Value;
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::backend::{change, on};
use super::{Connection, Reader, StoreError};

/// Most entries in one answer.
pub const PAGE: i64 = 500;

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Event {
    /// RFC 3339, UTC.
    pub time: String,
    /// What happened.
    pub decision: Decision,
    /// The key's id.
    pub subject: String,
    /// The refusal, if it was one.
    pub denial: Option<Denial>,
    /// Facts worth keeping; never a secret.
    pub detail: Value,
}

/// Appends an entry behind the newest one and returns its sequence number.
pub async fn append(connection: &mut Connection, event: Event) -> Result<u64, StoreError> {
    let newest = newest(&mut *connection).await?;
    let Event { time, decision, subject, denial, detail } = event;
    let entry = Entry::following(newest.as_ref(), time, decision, subject, denial, detail);
    let text = serde_json::to_string(&entry).expect("an entry has only string keys");
    const SQL: &str = "INSERT INTO decisions (sequence, entry) VALUES ($1, $2)";
    change!(connection, SQL, entry.sequence.cast_signed(), text)?;
    Ok(entry.sequence)
}

/// Appends entries behind `head`, or behind the newest one where that is not known, and returns the new end.
pub(super) async fn append_all(
    connection: &mut Connection,
    head: Option<Place>,
    events: Vec<Event>,
) -> Result<Place, StoreError> {
    let mut last = match head {
        Some(head) => Some(head),
        None => newest(&mut *connection).await?.map(|entry| entry.place()),
    };
    let mut entries = Vec::with_capacity(events.len());
    for Event { time, decision, subject, denial, detail } in events {
        let (place, text) = Entry::following_text(last.as_ref(), time, decision, subject, denial, detail);
        entries.push((place.sequence.cast_signed(), text));
        last = Some(place);
    }
    match connection {
        Connection::Sqlite(connection) => insert(&entries).build().execute(connection).await.map(drop)?,
        Connection::Postgres(connection) => insert(&entries).build().execute(connection).await.map(drop)?,
    }
    last.ok_or(StoreError::Corrupt("log without an entry"))
}

/// One statement for all: each one costs more than a row.
fn insert<D: Database>(entries: &[(i64, String)]) -> QueryBuilder<D>
where
    for<'e> i64: Encode<'e, D> + Type<D>,
    for<'e> String: Encode<'e, D> + Type<D>,
{
    let mut insert = QueryBuilder::new("INSERT INTO decisions (sequence, entry) ");
    insert.push_values(entries, |mut row, (sequence, text)| {
        row.push_bind(*sequence).push_bind(text.clone());
    });
    insert
}

/// Up to [`PAGE`] entries after `sequence`.
pub async fn after<'c>(reader: impl Into<Reader<'c>>, sequence: u64) -> Result<Vec<Entry>, StoreError> {
    const SQL: &str = "SELECT entry FROM decisions WHERE sequence > $1 ORDER BY sequence LIMIT $2";
    let after = i64::try_from(sequence).unwrap_or(i64::MAX);
    let rows: Vec<String> = on!(reader, |executor| {
        Ok(sqlx::query_scalar(SQL).bind(after).bind(PAGE).fetch_all(executor).await?)
    })?;
    rows.iter().map(|text| parsed(text)).collect()
}

/// The newest entry.
pub async fn newest<'c>(reader: impl Into<Reader<'c>>) -> Result<Option<Entry>, StoreError> {
    const SQL: &str = "SELECT entry FROM decisions ORDER BY sequence DESC LIMIT 1";
    let text: Option<String> =
        on!(reader, |executor| Ok(sqlx::query_scalar(SQL).fetch_optional(executor).await?))?;
    text.as_deref().map(parsed).transpose()
}

fn parsed(text: &str) -> Result<Entry, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt("log entry"))
}
