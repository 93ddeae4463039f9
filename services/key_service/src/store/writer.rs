//! One task that owns the only writing connection and commits waiting writes together.
//!
//! Writes that arrive while a commit waits for the disk share the next transaction, each in a savepoint of its own, so
//! that durability costs one sync for many requests. A caller is answered after the commit, never before. Where a commit
//! was sent and its answer did not come, every caller of the batch is told that nobody knows.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use public_api::decision_log::Place;

use super::backend::change;
use super::decisions::{self, Event};
use super::line::{Failed, Line};
use super::{Connection, StoreError, postgres};

/// Most writes in one transaction.
const BATCH: usize = 64;
/// Writes that may wait before callers have to.
const QUEUE: usize = 256;

/// A future that may borrow the connection.
pub type BoxFuture<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;

/// A value whose transaction is on the disk. Only the writer makes one.
pub struct Committed<T>(T);

impl<T> Committed<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T, E> Committed<Result<T, E>> {
    /// The committed success, or the error.
    pub fn transpose(self) -> Result<Committed<T>, E> {
        self.0.map(Committed)
    }
}

type Tell = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Work with its turn, or why it has none.
type Job = Box<dyn for<'c> FnOnce(Result<&'c mut Connection, StoreError>) -> BoxFuture<'c, Done> + Send>;

/// What waits for its turn.
enum Waiting {
    Work(Job),
    Append(Box<Event>, Tell),
}

/// A job that ran: whether its effects stay, and how its caller is told.
struct Done {
    keep: bool,
    tell: Tell,
}

/// Handle of the writing task.
pub(super) struct Writer {
    jobs: mpsc::Sender<Waiting>,
    changes: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the task. It ends when the handle is dropped.
    pub fn start(line: Line) -> Self {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let changes = Arc::default();
        tokio::spawn(serve(line, waiting, Arc::clone(&changes)));
        Self { jobs, changes }
    }

    /// Runs `work` in a transaction and returns once it is durable.
    pub async fn run<T, F>(&self, work: F) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |turn| {
            Box::pin(async move {
                let outcome = match turn {
                    Ok(connection) => work(connection).await,
                    Err(error) => Err(error),
                };
                let keep = outcome.is_ok();
                let tell: Tell = Box::new(move |commit| {
                    // A caller that went away does not undo its write.
                    let _ = sender.send(outcome.and_then(|value| commit.map(|()| Committed(value))));
                });
                Done { keep, tell }
            })
        });
        self.jobs.send(Waiting::Work(job)).await.map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Undone)?
    }

    /// Appends an entry to the decision log and returns once it is durable. Entries that change nothing else need no
    /// savepoint, and all of a batch go in one statement.
    pub async fn append(&self, event: Event) -> Result<Committed<()>, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let tell: Tell = Box::new(move |commit| {
            let _ = sender.send(commit.map(Committed));
        });
        let waiting = Waiting::Append(Box::new(event), tell);
        self.jobs.send(waiting).await.map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Undone)?
    }

    /// Grows by one when a transaction with work begins, and when it has ended: odd while one is under way.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub fn has_ended(&self) -> bool {
        self.jobs.is_closed()
    }

    pub async fn ended(&self) {
        self.jobs.closed().await;
    }
}

async fn serve(mut line: Line, mut waiting: mpsc::Receiver<Waiting>, changes: Arc<AtomicU64>) {
    let (mut batch, mut head) = (Vec::with_capacity(BATCH), None);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        // Whoever else is about to write goes along: a transaction costs as much as several of their requests do. Where
        // nobody is, this returns at once.
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(one) = waiting.try_recv()
        {
            batch.push(one);
        }
        let mut told = Vec::with_capacity(batch.len());
        let step = u64::from(batch.iter().any(|waiting| matches!(waiting, Waiting::Work(_))));
        changes.fetch_add(step, Ordering::SeqCst);
        let result = transact(&mut line, &mut batch, &mut told, &mut head).await;
        changes.fetch_add(step, Ordering::SeqCst);
        // Jobs that did not run are dropped, and their callers see `Undone`.
        batch.clear();
        let result = result.map_err(|failed| match failed {
            Failed::Undone(error) => (Arc::new(error), StoreError::Transaction as fn(_) -> _),
            Failed::Unknown(error) => (Arc::new(error), StoreError::Unknown as fn(_) -> _),
        });
        for tell in told {
            tell(result.clone().map_err(|(error, kind)| kind(error)));
        }
    }
    line.close().await;
}

/// `head` is the end of the log, where this writer alone moves it and knows it.
async fn transact(
    line: &mut Line,
    batch: &mut Vec<Waiting>,
    told: &mut Vec<Tell>,
    head: &mut Option<Place>,
) -> Result<(), Failed> {
    let before = head.take();
    if batch.iter().all(|waiting| matches!(waiting, Waiting::Append(..)))
        && let Some(connection) = line.alone()
    {
        // A statement alone is a transaction of its own.
        let events = appended(batch, told);
        *head = Some(decisions::append_all(connection, before, events).await.map_err(undone)?);
        return Ok(());
    }
    let connection = match line.begin().await {
        Ok(connection) => connection,
        Err(error) => {
            refuse(batch, told, &error).await;
            return Ok(());
        }
    };
    let worked = match connection {
        Connection::Sqlite(_) => work(connection, batch, told).await,
        Connection::Postgres(_) => {
            let worked = tokio::time::timeout(postgres::WRITE_TIMEOUT, work(connection, batch, told)).await;
            worked.unwrap_or_else(|_| Err(postgres::late("working")))
        }
    };
    match worked {
        Ok(()) => line.commit().await,
        Err(error) => {
            line.abandon().await;
            Err(Failed::Undone(error))
        }
    }
}

/// Tells everyone why there is no turn.
async fn refuse(batch: &mut Vec<Waiting>, told: &mut Vec<Tell>, error: &StoreError) {
    for waiting in batch.drain(..) {
        let error = error.again();
        told.push(match waiting {
            Waiting::Work(job) => job(Err(error)).await.tell,
            Waiting::Append(_, tell) => Box::new(move |_| tell(Err(error))),
        });
    }
}

/// The entries of a batch of nothing else.
fn appended(batch: &mut Vec<Waiting>, told: &mut Vec<Tell>) -> Vec<Event> {
    let mut events = Vec::with_capacity(batch.len());
    for waiting in batch.drain(..) {
        if let Waiting::Append(event, tell) = waiting {
            events.push(*event);
            told.push(tell);
        }
    }
    events
}

fn undone(error: StoreError) -> Failed {
    Failed::Undone(statement(error))
}

fn statement(error: StoreError) -> sqlx::Error {
    match error {
        StoreError::Statement(error) => error,
        other => sqlx::Error::Protocol(other.to_string()),
    }
}

async fn work(
    connection: &mut Connection,
    batch: &mut Vec<Waiting>,
    told: &mut Vec<Tell>,
) -> Result<(), sqlx::Error> {
    let mut events = Vec::new();
    for waiting in batch.drain(..) {
        let job = match waiting {
            Waiting::Work(job) => job,
            Waiting::Append(event, tell) => {
                events.push(*event);
                told.push(tell);
                continue;
            }
        };
        change!(connection, "SAVEPOINT job")?;
        let done = job(Ok(&mut *connection)).await;
        told.push(done.tell);
        if !done.keep {
            change!(connection, "ROLLBACK TO SAVEPOINT job")?;
        }
        change!(connection, "RELEASE SAVEPOINT job")?;
    }
    if !events.is_empty() {
        decisions::append_all(connection, None, events).await.map_err(statement)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

    use super::*;

    async fn connect(folder: &tempfile::TempDir) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("db"))
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    async fn writer(folder: &tempfile::TempDir) -> Writer {
        let mut connection = connect(folder).await;
        sqlx::query("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
            .execute(&mut connection)
            .await
            .unwrap();
        Writer::start(Line::sqlite(connection))
    }

    async fn insert(connection: &mut Connection, number: i64) -> Result<(), StoreError> {
        change!(connection, "INSERT INTO numbers VALUES ($1)", number)?;
        Ok(())
    }

    async fn numbers(folder: &tempfile::TempDir) -> Vec<i64> {
        let mut connection = connect(folder).await;
        sqlx::query_scalar("SELECT number FROM numbers ORDER BY number")
            .fetch_all(&mut connection)
            .await
            .unwrap()
    }

    /// Writes that share a transaction: the failing ones are undone, the others stay.
    #[tokio::test]
    async fn a_failing_write_undoes_itself_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Arc::new(writer(&folder).await);
        let tasks: Vec<_> = (0..40_i64)
            .map(|number| {
                let writer = writer.clone();
                tokio::spawn(async move {
                    let work = writer.run(move |connection| {
                        Box::pin(async move {
                            insert(connection, number).await?;
                            if number % 2 == 0 { Ok(number) } else { Err(StoreError::Corrupt("test")) }
                        })
                    });
                    work.await.map(Committed::into_inner)
                })
            })
            .collect();
        for (number, task) in (0..40).zip(tasks) {
            match task.await.unwrap() {
                Ok(written) => assert!(written == number && number % 2 == 0),
                Err(error) => assert!(matches!(error, StoreError::Corrupt(_)) && number % 2 == 1),
            }
        }
        assert_eq!(numbers(&folder).await, (0..40).step_by(2).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_was_answered_is_there_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder).await;
        writer.run(|connection| Box::pin(insert(connection, 7))).await.unwrap();
        assert_eq!(numbers(&folder).await, [7]);
    }

    /// What others keep of the database is known to be old before a change can be seen, also if it is undone.
    #[tokio::test]
    async fn the_number_of_changes_is_odd_within_one_and_another_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder).await;
        for (number, seen) in [(1, 1), (1, 3), (2, 5)] {
            let changes = Arc::clone(&writer.changes);
            let work = writer.run(move |connection| {
                Box::pin(async move {
                    assert_eq!(changes.load(Ordering::SeqCst), seen);
                    insert(connection, number).await
                })
            });
            assert_eq!(work.await.is_err(), seen == 3, "a number is inserted once");
            assert_eq!(writer.changes(), seen + 1);
        }
    }

    /// Nobody gets a `Committed` of a transaction that the database refused.
    #[tokio::test]
    async fn a_commit_that_fails_is_told_and_the_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder).await;
        let broken = writer.run(|connection| {
            Box::pin(async move {
                insert(connection, 1).await?;
                // Ends the transaction under the writer's feet, so that its own statements fail.
                change!(connection, "ROLLBACK")?;
                Ok(())
            })
        });
        let error = broken.await.err().unwrap();
        assert!(matches!(error, StoreError::Transaction(_)), "{error}");
        writer.run(|connection| Box::pin(insert(connection, 2))).await.unwrap();
        assert_eq!(numbers(&folder).await, [2]);
    }
}
