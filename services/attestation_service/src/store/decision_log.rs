//! The decision log's only writer, and its readers.
//!
//! Requests send their record to one task, which gives it its place in the chain, commits all records that wait in one
//! transaction, and only then answers: nobody gets a token whose record could still be lost.

use public_api::Denial;
use public_api::decision_log::{Decision, Entry, Place, verify};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use super::change::Change;
use super::{Store, StoreError};

/// Most records in one transaction.
const BATCH: usize = 256;
/// Most entries in one answer.
const PAGE: i64 = 500;

/// What goes into the log; the writer adds number, time and hashes.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What happened.
    pub decision: Decision,
    /// Whom it concerns: the VM's id, or the measurement.
    pub subject: String,
    /// Why, for a refusal.
    pub denial: Option<Denial>,
    /// Facts worth keeping.
    pub detail: Value,
}

struct Waiting {
    record: Record,
    changes: Vec<Change>,
    written: oneshot::Sender<Result<u64, StoreError>>,
}

#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Waiting>,
}

impl Store {
    /// Adds a record and returns its number once it is on disk.
    pub async fn record(&self, record: Record) -> Result<u64, StoreError> {
        self.record_with(record, Vec::new()).await
    }

    /// Adds a record together with changes: all of it is on disk then, or nothing.
    pub async fn record_with(&self, record: Record, changes: Vec<Change>) -> Result<u64, StoreError> {
        let (written, answer) = oneshot::channel();
        let waiting = Waiting { record, changes, written };
        self.writer.queue.send(waiting).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Up to 500 entries after the given number.
    pub async fn entries_after(&self, sequence: u64) -> Result<Vec<Entry>, StoreError> {
        page(&self.pool, i64::try_from(sequence).unwrap_or(i64::MAX)).await
    }
}

async fn page(pool: &SqlitePool, after: i64) -> Result<Vec<Entry>, StoreError> {
    let rows: Vec<(String,)> =
        sqlx::query_as("SELECT entry FROM decision_log WHERE sequence > $1 ORDER BY sequence LIMIT $2")
            .bind(after)
            .bind(PAGE)
            .fetch_all(pool)
            .await
            .map_err(StoreError::database("reading the decision log"))?;
    rows.iter().map(|(text,)| Ok(serde_json::from_str(text)?)).collect()
}

impl Writer {
    /// Checks the stored chain from its beginning and starts the writing task, which has a connection for itself: what
    /// others do through the pool neither waits for it nor empties its cache.
    pub(super) async fn start(pool: &SqlitePool, own: SqliteConnection) -> Result<Self, StoreError> {
        let mut last: Option<Entry> = None;
        loop {
            let after = last.as_ref().map_or(0, |entry| entry.sequence);
            let entries = page(pool, i64::try_from(after).unwrap_or(i64::MAX)).await?;
            verify(last.as_ref(), &entries)?;
            match entries.into_iter().next_back() {
                Some(entry) => last = Some(entry),
                None => break,
            }
        }
        let (queue, waiting) = mpsc::channel(BATCH);
        tokio::spawn(write_all(own, last.as_ref().map(Entry::place), waiting));
        Ok(Self { queue })
    }
}

async fn write_all(
    mut connection: SqliteConnection,
    mut last: Option<Place>,
    mut queue: mpsc::Receiver<Waiting>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        // Whoever else is about to record goes first: a transaction costs as much as several of their requests do. Where
        // nobody is, this returns at once.
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(waiting) = queue.try_recv()
        {
            batch.push(waiting);
        }
        let mut entries: Vec<(Place, String)> = Vec::with_capacity(batch.len());
        for waiting in &mut batch {
            let record = std::mem::take(&mut waiting.record);
            let before = entries.last().map(|(place, _)| place).or(last.as_ref());
            entries.push(record.following(before));
        }
        let result = commit(&mut connection, &entries, &batch).await;
        if let Err(error) = &result {
            tracing::error!(error = %crate::chain(error), "the decision log could not be written");
        }
        for (waiting, (place, _)) in batch.drain(..).zip(&entries) {
            let answer = if result.is_ok() { Ok(place.sequence) } else { Err(StoreError::NotWritten) };
            // A request that was given up in the meantime needs no answer; its record stands.
            let _ = waiting.written.send(answer);
        }
        if result.is_ok() {
            last = entries.pop().map(|(place, _)| place);
        }
    }
}

impl Record {
    fn following(self, last: Option<&Place>) -> (Place, String) {
        let Record { decision, subject, denial, detail } = self;
        Entry::following_text(last, jiff::Timestamp::now().to_string(), decision, subject, denial, detail)
    }
}

const DOING: &str = "writing the decision log";

async fn commit(
    connection: &mut SqliteConnection,
    entries: &[(Place, String)],
    batch: &[Waiting],
) -> Result<(), StoreError> {
    if batch.iter().all(|waiting| waiting.changes.is_empty()) {
        // A statement alone is a transaction of its own, and each call of the library wakes its thread.
        return insert(connection, entries).await;
    }
    let begun = connection.begin_with("BEGIN IMMEDIATE").await;
    let mut transaction = begun.map_err(StoreError::database(DOING))?;
    insert(&mut transaction, entries).await?;
    for waiting in batch {
        for change in &waiting.changes {
            change.apply(&mut transaction).await?;
        }
    }
    transaction.commit().await.map_err(StoreError::database(DOING))
}

/// One statement for all entries: a call of the library costs more than a row.
async fn insert(connection: &mut SqliteConnection, entries: &[(Place, String)]) -> Result<(), StoreError> {
    let mut insert = sqlx::QueryBuilder::new("INSERT INTO decision_log (sequence, entry) ");
    insert.push_values(entries, |mut row, (place, text)| {
        row.push_bind(i64::try_from(place.sequence).unwrap_or(i64::MAX)).push_bind(text);
    });
    let done = insert.build().execute(connection).await;
    done.map(drop).map_err(StoreError::database(DOING))
}
