//! Where a vault's database is.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// One vault: a SQLite file, or a schema of a PostgreSQL database.
#[derive(Clone)]
pub enum Place {
    /// A file, for one service at a time.
    Sqlite(PathBuf),
    /// A schema, for any number of services.
    Postgres(Server),
}

/// A PostgreSQL server and what is ours on it. It holds the password, and has no `Debug`.
#[derive(Clone)]
pub struct Server {
    /// Where it listens.
    pub host: Host,
    /// The port; a part of the socket's name, too.
    pub port: u16,
    /// The role.
    pub user: String,
    /// The role's password, if the server asks for one.
    pub password: Option<Zeroizing<String>>,
    /// The database.
    pub database: String,
    /// The schema: lower-case letters, digits and `_`.
    pub schema: String,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// The folder of a Unix socket.
    Socket(PathBuf),
    /// An address of this machine, without TLS.
    Loopback(String),
    /// A host whose certificate is verified: its chain under this CA (PEM), and its name.
    Verified {
        /// The name in the certificate.
        name: String,
        /// PEM.
        ca: PathBuf,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(to, "{}", path.display()),
            Self::Postgres(server) => write!(to, "{server}"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, schema, .. } = self;
        match host {
            Host::Socket(folder) => {
                write!(to, "postgres://{user}@{}:{port}/{database} schema {schema}", folder.display())
            }
            Host::Loopback(name) | Host::Verified { name, .. } => {
                write!(to, "postgres://{user}@{name}:{port}/{database} schema {schema}")
            }
        }
    }
}
