//! The only place with SQL: keys, used tokens, generations and the decision log, in one SQLite file or in a schema of a
//! PostgreSQL database.
//!
//! What [`Store::write`] returned is on the disk. All writes of a service go through one [`writer`]; reads have connections
//! of their own that cannot write. SQLite is for one service, PostgreSQL for several: see [`postgres`].

mod backend;
pub mod copy;
pub mod decisions;
pub mod keys;
mod line;
pub mod meta;
pub mod place;
mod postgres;
pub mod releases;
pub mod rotation;
pub mod snapshot;
mod sqlite;
pub mod standing;
pub mod tables;
pub mod vaults;
mod writer;

use std::sync::Arc;

use line::Line;
use writer::Writer;

pub use backend::{Connection, Reader, Readers};
pub use place::Place;
pub use postgres::{ServerError, Share};
pub use writer::{BoxFuture, Committed};

/// The database, in the data folder.
pub const FILE: &str = "keys.sqlite";

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened, or its schema cannot be brought up to date.
    #[error("could not open the key database {place}")]
    Open {
        /// The database.
        place: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A statement failed.
    #[error("a statement on the key database failed")]
    Statement(#[from] sqlx::Error),
    /// The transaction that held the write could not begin or commit; nothing of it happened.
    #[error("a transaction on the key database failed")]
    Transaction(#[source] Arc<sqlx::Error>),
    /// The transaction failed before this write had its turn; nothing of it happened.
    #[error("a transaction on the key database failed before this write had its turn")]
    Undone,
    /// The database is away; nothing happened.
    #[error("the key database cannot be reached, and nothing was changed")]
    Unavailable(#[source] Arc<ServerError>),
    /// The database was told to commit and did not answer.
    #[error(
        "the key database did not answer; whether the change was made is not known: read before trying again"
    )]
    Unknown(#[source] Arc<sqlx::Error>),
    /// A row that this program did not write like this.
    #[error("the key database holds a {0} that cannot be read")]
    Corrupt(&'static str),
    /// The writer has ended; the process is going down.
    #[error("the key database is closed")]
    Closed,
}

impl StoreError {
    fn open(place: &Place, source: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self::Open { place: place.to_string(), source }
    }

    /// The same once more, for another write that had no turn.
    fn again(&self) -> Self {
        match self {
            Self::Unavailable(error) => Self::Unavailable(Arc::clone(error)),
            Self::Transaction(error) => Self::Transaction(Arc::clone(error)),
            _ => Self::Undone,
        }
    }

    /// Whether nothing happened because the database was not there, so that trying again later can help.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Statement(error) => postgres::is_absence(error),
            Self::Transaction(error) => postgres::is_absence(error),
            _ => false,
        }
    }
}

/// The database.
pub struct Store {
    readers: Readers,
    writer: Writer,
}

impl Store {
    /// Opens (or makes) the database and brings its schema up to date.
    pub async fn open(place: &Place) -> Result<Self, StoreError> {
        let mut connection = open(place, Share::Service).await?;
        let served = standing::check(&mut connection).await;
        served.map_err(|error| StoreError::open(place, error.into()))?;
        let (readers, line) = match (place, connection) {
            (Place::Sqlite(path), Connection::Sqlite(connection)) => {
                (Readers::Sqlite(sqlite::readers(path)), Line::sqlite(connection))
            }
            (Place::Postgres(server), Connection::Postgres(connection)) => {
                (Readers::Postgres(postgres::readers(server)), Line::postgres(server.clone(), connection))
            }
            _ => return Err(StoreError::Closed),
        };
        Ok(Self { readers, writer: Writer::start(line) })
    }

    /// Runs `work` in a transaction and returns once it is durable.
    ///
    /// An error of `work` undoes what `work` did, and nothing else.
    pub async fn write<T, F>(&self, work: F) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.writer.run(work).await
    }

    /// Appends an entry to the decision log and returns once it is durable.
    pub async fn append(&self, event: decisions::Event) -> Result<Committed<()>, StoreError> {
        self.writer.append(event).await
    }

    /// A number that is another one after anything but the log was written; none while that is under way, or where others
    /// write too.
    pub fn standing_still(&self) -> Option<u64> {
        let number = self.writer.changes();
        (matches!(self.readers, Readers::Sqlite(_)) && number.is_multiple_of(2)).then_some(number)
    }

    /// Connections for reading.
    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Whether the database answers and the writer lives.
    pub async fn is_healthy(&self) -> bool {
        decisions::newest(&self.readers).await.is_ok() && !self.writer.has_ended()
    }

    /// Whether the writer has ended, after which nothing can be written.
    pub fn has_ended(&self) -> bool {
        self.writer.has_ended()
    }

    /// Ends when the writer does, which it does only when it failed.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }
}

/// Opens (or makes) a database and brings its schema up to date; who calls sees to its standing.
pub async fn open(place: &Place, share: Share) -> Result<Connection, StoreError> {
    match place {
        Place::Sqlite(path) => {
            let opened = sqlite::open(path).await;
            Ok(Connection::Sqlite(opened.map_err(|error| StoreError::open(place, error))?))
        }
        Place::Postgres(server) => {
            let failed = |error: ServerError| StoreError::open(place, error.into());
            let mut connection = postgres::connect(server, share).await.map_err(failed)?;
            postgres::prepare(server, &mut connection).await.map_err(failed)?;
            Ok(Connection::Postgres(connection))
        }
    }
}
