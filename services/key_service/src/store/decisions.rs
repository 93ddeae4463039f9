//! The decision log: appending inside a transaction, reading pages.

use public_api::Denial;
use public_api::decision_log::{Decision, Entry};
use serde_json::Value;

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
