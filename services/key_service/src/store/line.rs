//! The writing connection, and how it comes back when the database was away.
//!
//! A file is always there: its connection is made once. A server comes and goes: its connection is made anew when it is
//! needed, with a pause after each attempt that failed, so that callers are told at once and the server is left alone.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use tokio::time::Instant;

use super::backend::Connection;
use super::place::Server;
use super::postgres::{self, ServerError, Share};
use super::{StoreError, standing};

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a transaction ended that did not end well.
pub enum Failed {
    /// Nothing of it happened.
    Undone(sqlx::Error),
    /// It was to be committed, and no answer came.
    Unknown(sqlx::Error),
}

/// The line to the database.
pub enum Line {
    /// To a file.
    Sqlite(Box<Connection>),
    /// To a server.
    Postgres(Box<Remote>),
}

/// A line that can break.
pub struct Remote {
    server: Server,
    begin: String,
    connection: Option<Connection>,
    /// Why the last attempt failed, and until when no other is made.
    pause: Option<(Arc<ServerError>, Instant)>,
    length: Duration,
}

impl Line {
    /// The line to an open file.
    pub fn sqlite(connection: SqliteConnection) -> Self {
        Self::Sqlite(Box::new(Connection::Sqlite(connection)))
    }

    /// The line to a server, with an open connection.
    pub fn postgres(server: Server, connection: sqlx::postgres::PgConnection) -> Self {
        let connection = Some(Connection::Postgres(connection));
        let (begin, length) = (server.begin(), SHORTEST_PAUSE);
        Self::Postgres(Box::new(Remote { server, begin, connection, pause: None, length }))
    }

    /// A connection on which a write transaction has begun. Nothing was done on it.
    pub async fn begin(&mut self) -> Result<&mut Connection, StoreError> {
        match self {
            Self::Sqlite(connection) => {
                let begun = begin(connection, "BEGIN IMMEDIATE").await;
                begun.map_err(|error| StoreError::Transaction(Arc::new(error)))?;
                Ok(connection)
            }
            Self::Postgres(remote) => remote.begin().await,
        }
    }

    /// The connection without a transaction, where nobody else writes.
    pub fn alone(&mut self) -> Option<&mut Connection> {
        match self {
            Self::Sqlite(connection) => Some(connection),
            Self::Postgres(_) => None,
        }
    }

    /// Commits what [`Self::begin`] began. Afterwards nothing is open, whatever came out.
    pub async fn commit(&mut self) -> Result<(), Failed> {
        let connection = match self {
            Self::Sqlite(connection) => connection,
            Self::Postgres(remote) => return remote.commit().await,
        };
        let Connection::Sqlite(file) = &mut **connection else {
            unreachable!("a line to a file is one to SQLite")
        };
        match sqlx::query("COMMIT").execute(&mut *file).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.abandon().await;
                Err(Failed::Undone(error))
            }
        }
    }

    /// Undoes what [`Self::begin`] began: on a server by hanging up.
    pub async fn abandon(&mut self) {
        match self {
            Self::Sqlite(connection) => {
                let _ = begin(connection, "ROLLBACK").await;
            }
            Self::Postgres(remote) => remote.hang_up(),
        }
    }

    /// Ends the line.
    pub async fn close(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(remote) => {
                if let Some(connection) = remote.connection {
                    connection.close().await;
                }
            }
        }
    }
}

async fn begin(connection: &mut Connection, sql: &str) -> Result<(), sqlx::Error> {
    match connection {
        Connection::Sqlite(file) => {
            sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(file).await.map(drop)
        }
        Connection::Postgres(server) => {
            let begun = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(server);
            let begun = tokio::time::timeout(postgres::WRITE_TIMEOUT, begun).await;
            begun.unwrap_or_else(|_| Err(postgres::late("beginning"))).map(drop)
        }
    }
}

impl Remote {
    async fn begin(&mut self) -> Result<&mut Connection, StoreError> {
        // The server may have been away since the last write. As nothing was done, another connection may do it.
        if let Some(connection) = &mut self.connection
            && begin(connection, &self.begin).await.is_err()
        {
            self.hang_up();
        }
        if self.connection.is_none() {
            self.connection = Some(self.redial().await?);
        }
        self.connection.as_mut().ok_or(StoreError::Closed)
    }

    /// Connects and begins, unless that failed a moment ago.
    async fn redial(&mut self) -> Result<Connection, StoreError> {
        if let Some((error, until)) = &self.pause
            && *until > Instant::now()
        {
            return Err(StoreError::Unavailable(Arc::clone(error)));
        }
        match self.attempt().await {
            Ok(connection) => {
                (self.pause, self.length) = (None, SHORTEST_PAUSE);
                tracing::info!("connected to the key database again");
                Ok(connection)
            }
            Err(error) => {
                let error = Arc::new(error);
                tracing::warn!(error = crate::chain(&*error), "the key database cannot be reached");
                self.pause = Some((Arc::clone(&error), Instant::now() + self.length));
                self.length = (2 * self.length).min(LONGEST_PAUSE);
                Err(StoreError::Unavailable(error))
            }
        }
    }

    async fn attempt(&self) -> Result<Connection, ServerError> {
        let connection = postgres::connect(&self.server, Share::Service).await?;
        let mut connection = Connection::Postgres(connection);
        // While we were away the vault can have been moved.
        standing::check(&mut connection).await?;
        begin(&mut connection, &self.begin).await?;
        Ok(connection)
    }

    async fn commit(&mut self) -> Result<(), Failed> {
        let Some(Connection::Postgres(server)) = &mut self.connection else {
            return Err(Failed::Undone(sqlx::Error::PoolClosed));
        };
        let committed = sqlx::query("COMMIT").execute(server);
        let committed = tokio::time::timeout(postgres::WRITE_TIMEOUT, committed).await;
        match committed.unwrap_or_else(|_| Err(postgres::late("committing"))) {
            Ok(_) => Ok(()),
            // It may be on the disk, or be put there when the server starts again.
            Err(error) => {
                self.hang_up();
                Err(Failed::Unknown(error))
            }
        }
    }

    fn hang_up(&mut self) {
        if let Some(Connection::Postgres(connection)) = self.connection.take() {
            postgres::hang_up(connection);
        }
    }
}
