//! The database of several services: a schema of a PostgreSQL server.
//!
//! * Every write transaction takes one advisory lock first, because every write appends to one hash-chained log. What it
//!   reads then is what the last one committed, on whichever replica.
//! * Every session says what it needs of the server: `synchronous_commit = on`, so that a commit that was answered is on
//!   the disk, and times after which it gives up, so that a replica that hangs does not hold the lock for ever.
//! * Each service holds a shared lock while it runs, and moving the vault takes it alone.

use std::time::Duration;

use aws_lc_rs::digest;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::StoreError;
use super::place::{Host, Server};

pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/migrations_postgres");

/// The oldest release whose behaviour is known to the tests (`server_version_num`).
const OLDEST: u32 = 150_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The server ends a statement after 15 seconds; after this the server itself is taken for dead.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for all of a transaction.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(40);
const READERS: u32 = 8;

/// What a session says of itself. Source: PostgreSQL 15, chapter 20.
const SETTINGS: [(&str, &str); 8] = [
    ("synchronous_commit", "on"),
    ("statement_timeout", "15s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("client_min_messages", "warning"),
];

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It did not answer, or did not let us in.
    #[error("it does not answer")]
    Silent(#[from] sqlx::Error),
    /// The schema.
    #[error("its schema cannot be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Something that it is not.
    #[error("{what}: expected {expected}, found {found}")]
    Unfit {
        /// The setting.
        what: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// It is one end of a move, or that cannot be read.
    #[error("it cannot be served")]
    Standing(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A move of the vault has it for itself.
    #[error("the vault is being moved; wait until `casemate-keys move` has ended")]
    Moving,
    /// Services have it.
    #[error("a key service runs on it; stop every replica first")]
    InUse,
}

/// How a service shares the vault with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// With other services.
    Service,
    /// With nobody.
    Alone,
    /// It only looks.
    Look,
}

/// Names of advisory locks; each schema has its own.
#[derive(Clone, Copy)]
enum Lock {
    /// Held in a write transaction.
    Write,
    /// Held by each service, and alone by a move.
    Service,
    /// Held while the schema is made.
    Schema,
}

impl Server {
    fn lock(&self, lock: Lock) -> i64 {
        let name = match lock {
            Lock::Write => "write",
            Lock::Service => "service",
            Lock::Schema => "schema",
        };
        let text = format!("casemate keys\0{name}\0{}", self.schema);
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        i64::from_be_bytes(hash.as_ref()[..8].try_into().expect("a SHA-256 has 32 bytes"))
    }

    /// The statements that begin a write transaction.
    pub fn begin(&self) -> String {
        let lock = self.lock(Lock::Write);
        format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock({lock})")
    }

    fn options(&self) -> PgConnectOptions {
        let password = self.password.as_ref().map_or("", |password| password.as_str());
        // Everything that the driver would take from the environment is said.
        let options = PgConnectOptions::new_without_pgpass()
            .port(self.port)
            .username(&self.user)
            .password(password)
            .database(&self.database)
            .application_name("casemate-keys")
            .options(SETTINGS)
            .options([("search_path", &self.schema)]);
        match &self.host {
            Host::Socket(folder) => options.socket(folder).ssl_mode(PgSslMode::Disable),
            Host::Loopback(name) => options.host(name).ssl_mode(PgSslMode::Disable),
            Host::Verified { name, ca } => {
                options.host(name).ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(ca)
            }
        }
    }
}

/// Connects, and sees that the server is one that can be used.
pub async fn connect(server: &Server, share: Share) -> Result<PgConnection, ServerError> {
    let mut connection = dial(&server.options()).await?;
    fit(&mut connection).await?;
    let lock = server.lock(Lock::Service);
    let (sql, refusal) = match share {
        Share::Service => ("SELECT pg_try_advisory_lock_shared($1)", ServerError::Moving),
        Share::Alone => ("SELECT pg_try_advisory_lock($1)", ServerError::InUse),
        Share::Look => return Ok(connection),
    };
    let held: bool = sqlx::query_scalar(sql).bind(lock).fetch_one(&mut connection).await?;
    if held { Ok(connection) } else { Err(refusal) }
}

async fn dial(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await.unwrap_or_else(|_| Err(late("connecting")))
}

async fn fit(connection: &mut PgConnection) -> Result<(), ServerError> {
    let version = connection.server_version_num().unwrap_or_default();
    if version < OLDEST {
        let found = format!("{}.{}", version / 10_000, version % 10_000);
        return Err(ServerError::Unfit { what: "server version", expected: "15 or later", found });
    }
    let settings = "SELECT current_setting('server_encoding'), current_setting('fsync'), pg_is_in_recovery()";
    let (encoding, fsync, standby): (String, String, bool) =
        sqlx::query_as(settings).fetch_one(connection).await?;
    if encoding != "UTF8" {
        return Err(ServerError::Unfit { what: "server_encoding", expected: "UTF8", found: encoding });
    }
    if standby {
        let found = "a standby".to_owned();
        return Err(ServerError::Unfit { what: "server", expected: "a primary", found });
    }
    if fsync != "on" {
        tracing::warn!("fsync is off at the database server: what is answered can be lost when it crashes");
    }
    Ok(())
}

/// Makes the schema if it is missing and brings it up to date. Any number of services may do it at once.
pub async fn prepare(server: &Server, connection: &mut PgConnection) -> Result<(), ServerError> {
    let lock = server.lock(Lock::Schema);
    sqlx::query("SELECT pg_advisory_lock($1)").bind(lock).execute(&mut *connection).await?;
    let made: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(format!("\"{}\"", server.schema))
        .fetch_one(&mut *connection)
        .await?;
    if !made {
        let sql = format!("CREATE SCHEMA \"{}\"", server.schema);
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    MIGRATIONS.run(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(lock).execute(connection).await?;
    Ok(())
}

/// Connections that do not write. They are made when they are needed.
pub fn readers(server: &Server) -> PgPool {
    let options = server.options().options([("default_transaction_read_only", "on")]);
    PgPoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(CONNECT_TIMEOUT)
        .idle_timeout(Duration::from_secs(600))
        .connect_lazy_with(options)
}

/// Waits for a statement no longer than for a server that lives.
pub async fn bounded<T>(body: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let done = tokio::time::timeout(READ_TIMEOUT, body).await;
    done.unwrap_or_else(|_| Err(StoreError::Statement(late("reading"))))
}

/// The error of a server that says nothing.
pub fn late(doing: &str) -> sqlx::Error {
    let text = format!("the database server did not answer in time while {doing}");
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// Whether a statement failed because the server was not there, or not as it should be, rather than for what was asked.
/// Source: PostgreSQL 15, appendix A: classes 08 (connection), 53 (resources), 57P (shutdown), 25006 (read-only), 55P03 and
/// 57014 (gave up after `lock_timeout` and `statement_timeout`).
pub fn is_absence(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            true
        }
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            let class = ["08", "53", "57P"].iter().any(|class| code.starts_with(class));
            code.len() == 5 && (class || ["25006", "55P03", "57014"].contains(&&*code))
        }),
        _ => false,
    }
}

/// Ends a connection without waiting for the server.
pub fn hang_up(connection: PgConnection) {
    tokio::spawn(async move { connection.close_hard().await });
}
