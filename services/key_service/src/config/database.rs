//! `[database]`: a PostgreSQL database in place of the file in the data folder.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::{Config, ConfigError, value};
use crate::store::place::{Host, Place, Server};

const SCHEMA: &str = "casemate_keys";
const PORT: u16 = 5432;
/// Longest name of PostgreSQL (`NAMEDATALEN` less one).
const MAX_NAME: usize = 63;

/// `[database]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user@host[:port]/database`, or for a Unix socket `postgres:///database?user=user&host=/folder`.
    pub url: String,
    /// The schema that is the vault's alone; made if it is missing.
    #[serde(default = "DatabaseConfig::usual_schema")]
    pub schema: String,
    /// File with the role's password, mode 0600.
    pub password_file: Option<PathBuf>,
    /// PEM of the authority that certified the server. Without it, the server must be on this machine.
    pub ca: Option<PathBuf>,
}

impl DatabaseConfig {
    fn usual_schema() -> String {
        SCHEMA.to_owned()
    }

    /// Everything but the password, which is read when it is needed.
    pub(super) fn server(&self) -> Result<Server, ConfigError> {
        let url = parse(&self.url)?;
        let query = Query::of(&url)?;
        self.check_schema()?;
        self.check_files()?;
        let user = [url.username(), &query.user].into_iter().find(|user| !user.is_empty());
        let user = user.ok_or_else(|| problem("url", "name the role: postgres://ROLE@host/database"))?;
        let database = url.path().trim_start_matches('/');
        if database.is_empty() || database.contains(['/', '%']) {
            return Err(problem("url", "name the database: postgres://role@host/DATABASE"));
        }
        Ok(Server {
            host: self.host(&url, query.host)?,
            port: url.port().unwrap_or(PORT),
            user: user.to_owned(),
            password: None,
            database: database.to_owned(),
            schema: self.schema.clone(),
        })
    }

    fn check_schema(&self) -> Result<(), ConfigError> {
        let known = |letter: u8| letter.is_ascii_lowercase() || letter == b'_' || letter.is_ascii_digit();
        let first = self.schema.bytes().next().is_some_and(|letter| !letter.is_ascii_digit());
        if first && self.schema.len() <= MAX_NAME && self.schema.bytes().all(known) {
            return match self.schema.starts_with("pg_") {
                true => Err(problem("schema", "names that begin with pg_ are PostgreSQL's own")),
                false => Ok(()),
            };
        }
        Err(problem("schema", "expected lower-case letters, digits and _, 63 at most"))
    }

    fn check_files(&self) -> Result<(), ConfigError> {
        let files = [("password_file", &self.password_file), ("ca", &self.ca)];
        let relative = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| !path.is_absolute());
        match files.into_iter().find(|(_, path)| relative(path)) {
            Some((key, _)) => Err(problem(key, "the path must be absolute")),
            None => Ok(()),
        }
    }

    fn host(&self, url: &Url, socket: Option<PathBuf>) -> Result<Host, ConfigError> {
        let name = url.host_str().filter(|name| !name.is_empty());
        match (socket, name, self.ca.clone()) {
            (Some(_), _, Some(_)) => Err(problem("ca", "a Unix socket has no TLS; leave it out")),
            (Some(folder), None | Some("localhost"), None) => Ok(Host::Socket(folder)),
            (Some(_), Some(_), None) => Err(problem("url", "give either a host or ?host=/folder")),
            (None, None, _) => {
                Err(problem("url", "name the host, or the socket's folder with ?host=/folder"))
            }
            (None, Some(name), Some(ca)) => Ok(Host::Verified { name: bare(name).to_owned(), ca }),
            (None, Some(name), None) if is_loopback(name) => Ok(Host::Loopback(bare(name).to_owned())),
            (None, Some(_), None) => {
                Err(problem("ca", "needed for a server on another machine: its certificate is verified"))
            }
        }
    }
}

/// What may stand in the URL's query.
#[derive(Default)]
struct Query {
    user: String,
    host: Option<PathBuf>,
}

impl Query {
    fn of(url: &Url) -> Result<Self, ConfigError> {
        let mut query = Self::default();
        for (key, given) in url.query_pairs() {
            match (&*key, Path::new(&*given)) {
                ("user", _) => query.user = given.into_owned(),
                ("host", folder) if folder.is_absolute() => query.host = Some(folder.to_owned()),
                ("host", _) => return Err(problem("url", "host= is for the folder of a Unix socket")),
                ("password", _) => return Err(password_in_url()),
                _ => return Err(problem("url", "its query has user= and host= only; the rest is fixed")),
            }
        }
        Ok(query)
    }
}

fn parse(text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).map_err(|_| problem("url", "expected postgres://role@host/database"))?;
    if !["postgres", "postgresql"].contains(&url.scheme()) || url.fragment().is_some() {
        return Err(problem("url", "expected postgres://role@host/database"));
    }
    if url.password().is_some() {
        return Err(password_in_url());
    }
    if url.username().contains('%') {
        return Err(problem("url", "give a role with such letters as ?user="));
    }
    Ok(url)
}

fn password_in_url() -> ConfigError {
    problem("url", "a password does not belong here: put it into a file of mode 0600, `password_file`")
}

fn problem(key: &str, problem: &'static str) -> ConfigError {
    value(&format!("database.{key}"), problem)
}

/// An IPv6 address without its brackets.
fn bare(name: &str) -> &str {
    name.trim_start_matches('[').trim_end_matches(']')
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || bare(name).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn password(file: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let failed = |source| ConfigError::Read { path: file.to_owned(), source };
    let mode = std::fs::metadata(file).map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        return Err(problem("password_file", "only its owner may read and write it (mode 0600)"));
    }
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(failed)?);
    let line = text.trim_end_matches(['\r', '\n']);
    match line.is_empty() || line.contains(['\n', '\0']) {
        true => Err(problem("password_file", "expected one line, the password")),
        false => Ok(Zeroizing::new(line.to_owned())),
    }
}

impl Config {
    /// Where the vault's database is, with what opens it.
    pub(crate) fn place(&self) -> Result<Place, ConfigError> {
        let Some(database) = &self.database else {
            return Ok(Place::Sqlite(self.data_dir.join(crate::store::FILE)));
        };
        let mut server = database.server()?;
        server.password = database.password_file.as_deref().map(password).transpose()?;
        Ok(Place::Postgres(server))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn server(text: &str) -> Result<Server, String> {
        let config: DatabaseConfig = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        config.server().map_err(|error| error.to_string())
    }

    #[test]
    fn servers_that_can_be_meant() {
        let cases = [
            (
                "url = 'postgres://keys@localhost/db'",
                "postgres://keys@localhost:5432/db schema casemate_keys",
            ),
            ("url = 'postgres://keys@[::1]:6000/db'", "postgres://keys@::1:6000/db schema casemate_keys"),
            (
                "url = 'postgres:///db?user=keys&host=/run/pg'\nschema = 'vault_1'",
                "postgres://keys@/run/pg:5432/db schema vault_1",
            ),
            (
                "url = 'postgres://keys@db.test/db'\nca = '/ca.pem'",
                "postgres://keys@db.test:5432/db schema casemate_keys",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(server(text).unwrap().to_string(), expected);
        }
        let verified = server("url = 'postgres://keys@127.0.0.1/db'\nca = '/ca.pem'").unwrap();
        assert_eq!(verified.host, Host::Verified { name: "127.0.0.1".to_owned(), ca: "/ca.pem".into() });
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_remedy() {
        let cases = [
            (
                "url = 'postgres://keys:secret@localhost/db'",
                "`database.url`: a password does not belong here",
            ),
            ("url = 'postgres://keys@localhost/db?password=x'", "`database.url`: a password does not belong"),
            ("url = 'postgres://keys@db.test/db'", "`database.ca`: needed for a server on another machine"),
            ("url = 'postgres://keys@10.0.0.1/db'", "`database.ca`: needed for a server on another machine"),
            ("url = 'postgres://keys@localhost/db?sslmode=disable'", "`database.url`: its query has user="),
            ("url = 'postgres://keys@localhost/db?options=-cfsync%3Doff'", "`database.url`: its query has"),
            ("url = 'postgres:///db?user=k&host=relative'", "`database.url`: host= is for the folder"),
            (
                "url = 'postgres:///db?user=k&host=/run'\nca = '/ca.pem'",
                "`database.ca`: a Unix socket has no",
            ),
            ("url = 'postgres://k@db.test/db?host=/run'", "`database.url`: give either"),
            ("url = 'postgres://localhost/db'", "`database.url`: name the role"),
            ("url = 'postgres://keys@localhost'", "`database.url`: name the database"),
            ("url = 'mysql://keys@localhost/db'", "`database.url`: expected postgres://"),
            ("url = 'postgres://k@localhost/db'\nschema = 'A'", "`database.schema`: expected lower-case"),
            (
                "url = 'postgres://k@localhost/db'\nschema = 'a\", public'",
                "`database.schema`: expected lower",
            ),
            (
                "url = 'postgres://k@localhost/db'\nschema = 'pg_catalog'",
                "`database.schema`: names that begin",
            ),
            ("url = 'postgres://k@localhost/db'\nca = 'ca.pem'", "`database.ca`: the path must be absolute"),
            ("url = 'postgres://k@localhost/db'\npool = 3", "unknown field `pool`"),
            ("schema = 'a'", "missing field `url`"),
        ];
        for (text, expected) in cases {
            let error = server(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        assert_eq!(password(file.path()).unwrap().as_str(), "secret");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = password(file.path()).err().unwrap().to_string();
        assert!(error.starts_with("`database.password_file`: only its owner"), "{error}");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(file.path(), "\n").unwrap();
        assert!(password(file.path()).is_err());
    }
}
