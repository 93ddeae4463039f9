//! The decision log: appending inside a transaction, reading pages.

use public_api::Denial;
use public_api::decision_log::{Decision, Entry};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteExecutor};

use super::StoreError;

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
pub async fn append(connection: &mut SqliteConnection, event: Event) -> Result<u64, StoreError> {
    let newest = newest(&mut *connection).await?;
    let Event { time, decision, subject, denial, detail } = event;
    let entry = Entry::following(newest.as_ref(), time, decision, subject, denial, detail);
    let text = serde_json::to_string(&entry).expect("an entry has only string keys");
    sqlx::query("INSERT INTO decisions (sequence, entry) VALUES (?, ?)")
        .bind(entry.sequence.cast_signed())
        .bind(text)
        .execute(connection)
        .await?;
    Ok(entry.sequence)
}

/// Up to [`PAGE`] entries after `sequence`.
pub async fn after(executor: impl SqliteExecutor<'_>, sequence: u64) -> Result<Vec<Entry>, StoreError> {
    let after = i64::try_from(sequence).unwrap_or(i64::MAX);
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT entry FROM decisions WHERE sequence > ? ORDER BY sequence LIMIT ?")
            .bind(after)
            .bind(PAGE)
            .fetch_all(executor)
            .await?;
    rows.iter().map(|text| parsed(text)).collect()
}

/// The newest entry.
pub async fn newest(executor: impl SqliteExecutor<'_>) -> Result<Option<Entry>, StoreError> {
    let text: Option<String> =
        sqlx::query_scalar("SELECT entry FROM decisions ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(executor)
            .await?;
    text.as_deref().map(parsed).transpose()
}

fn parsed(text: &str) -> Result<Entry, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt("log entry"))
}
