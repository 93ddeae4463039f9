//! The configuration file (TOML): one struct, parsed once, unknown keys refused. An example is in the crate's
//! documentation.

mod database;
mod master_key;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http_service::Limits;
use serde::{Deserialize, Serialize};
use telemetry::TelemetryConfig;
use token_verifier::{JwksSource, SourceError};
use url::Url;

pub use database::DatabaseConfig;
pub use master_key::{MasterKeyConfig, MasterKeySource, SHORTEST_PASSPHRASE, Secret};

use crate::vaults::config::VaultsConfig;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The vault's URL as clients see it (`https://host[:port]`): the start of every key id.
    pub public_url: Url,
    /// Folder for the database, unless that is on a server, and for the root of release answers.
    pub data_dir: PathBuf,
    /// PEM chain of the server.
    pub tls_certificate: PathBuf,
    /// PKCS#8 PEM.
    pub tls_key: PathBuf,
    /// Whether evidence of a development root can release anything at all. The key's policy must demand it too.
    #[serde(default)]
    pub allow_development_roots: bool,
    /// A PostgreSQL database, for several services on one vault.
    pub database: Option<DatabaseConfig>,
    /// The key that seals all others.
    pub master_key: MasterKeyConfig,
    /// For how long deleted keys can be recovered.
    #[serde(default)]
    pub recovery: RecoveryConfig,
    /// Who may call.
    pub callers: CallersConfig,
    /// Attestation services whose tokens are believed.
    pub authority: Vec<AuthorityConfig>,
    /// Where the keys of `-HSM` types live; without it they are sealed like the others.
    #[serde(default)]
    pub hsm: Option<HsmConfig>,
    /// What callers may take: rates, bodies, times.
    #[serde(default)]
    pub limits: Limits,
    /// Where spans are sent to.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Named vaults beside the one at `public_url`.
    pub vaults: Option<VaultsConfig>,
}

/// `[recovery]`: what a vault promises about deleted keys. Neither is taken back once the vault was started with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryConfig {
    /// Days for which a deleted key can be recovered: 7 to 90. Fixed at the vault's first start.
    #[serde(default = "RecoveryConfig::usual_days")]
    pub days: i32,
    /// Whether nobody may destroy a deleted key before its time. Can be switched on later, but never off.
    #[serde(default)]
    pub purge_protection: bool,
}

impl RecoveryConfig {
    /// Days that can be configured.
    pub(crate) const DAYS: std::ops::RangeInclusive<i32> = 7..=90;

    fn usual_days() -> i32 {
        *Self::DAYS.end()
    }

    /// `recoveryLevel` of every key.
    pub fn level(self) -> &'static str {
        match (self.days == Self::usual_days(), self.purge_protection) {
            (true, false) => "Recoverable+Purgeable",
            (true, true) => "Recoverable",
            (false, false) => "CustomizedRecoverable+Purgeable",
            (false, true) => "CustomizedRecoverable",
        }
    }
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self { days: Self::usual_days(), purge_protection: false }
    }
}

/// `[hsm]`: a token of a hardware security module (PKCS#11).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HsmConfig {
    /// The vendor's shared library.
    pub module: PathBuf,
    /// The token's label or serial number.
    pub token: String,
    /// A file with the PIN of the token's user, mode 0600.
    pub pin_file: PathBuf,
    /// Whether every new key lives in the token, and not only those of `-HSM` types.
    #[serde(default)]
    pub all_keys: bool,
    /// Sessions, each with a thread of its own: 1 to 64.
    #[serde(default = "HsmConfig::usual_sessions")]
    pub sessions: usize,
    /// Seconds after which the token counts as silent: 1 to 300. Making a key may take six times as long.
    #[serde(default = "HsmConfig::usual_timeout")]
    pub timeout_seconds: u64,
}

impl HsmConfig {
    fn usual_sessions() -> usize {
        4
    }

    fn usual_timeout() -> u64 {
        20
    }

    fn problem(&self) -> Option<(&'static str, &'static str)> {
        if self.token.trim().is_empty() {
            return Some(("hsm.token", "expected the token's label or serial number"));
        }
        if !(1..=64).contains(&self.sessions) {
            return Some(("hsm.sessions", "expected 1 to 64"));
        }
        (!(1..=300).contains(&self.timeout_seconds)).then_some(("hsm.timeout_seconds", "expected 1 to 300"))
    }
}

/// `[callers]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallersConfig {
    /// `iss` of bearer tokens.
    pub issuer: String,
    /// `aud` of bearer tokens; the challenge calls it `resource`.
    pub audience: String,
    /// Where callers get tokens; the challenge calls it `authorization`.
    pub authorization: String,
    /// Where the issuer's keys are.
    pub jwks_url: Option<Url>,
    /// Or a file with them.
    pub jwks_file: Option<PathBuf>,
    /// PEM of the only certificates trusted for `jwks_url`.
    pub ca: Option<PathBuf>,
}

/// `[[authority]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityConfig {
    /// `iss` of attestation tokens.
    pub issuer: String,
    /// Where its keys are; `{issuer}/certs` if neither this nor a file is given.
    pub jwks_url: Option<Url>,
    /// Or a file with them.
    pub jwks_file: Option<PathBuf>,
    /// PEM of the only certificates trusted for `jwks_url`.
    pub ca: Option<PathBuf>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML of this form.
    #[error("the configuration {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause, with line and key.
        #[source]
        source: toml::de::Error,
    },
    /// A value that cannot be.
    #[error("`{key}`: {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self =
            toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.callers.source()?;
        if self.authority.is_empty() {
            return Err(value("authority", "at least one attestation service is needed"));
        }
        for authority in &self.authority {
            authority.source()?;
        }
        self.host()?;
        self.callers.check_challenge()?;
        if !RecoveryConfig::DAYS.contains(&self.recovery.days) {
            return Err(value("recovery.days", "expected 7 to 90"));
        }
        if let Some((key, problem)) = self.limits.problem().or_else(|| self.telemetry.problem()) {
            return Err(value(key, problem));
        }
        if let Some((key, problem)) = self.hsm.as_ref().and_then(HsmConfig::problem) {
            return Err(value(key, problem));
        }
        self.database.as_ref().map_or(Ok(()), |database| database.server().map(drop))?;
        self.vaults.as_ref().map_or(Ok(()), VaultsConfig::check)?;
        if self.vaults.is_some() && self.database.is_some() {
            return Err(value(
                "vaults",
                "named vaults lie in files: leave `database` out, or serve one vault",
            ));
        }
        let mut paths = vec![
            ("data_dir", &self.data_dir),
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
        ];
        if let Some(hsm) = &self.hsm {
            paths.extend([("hsm.module", &hsm.module), ("hsm.pin_file", &hsm.pin_file)]);
        }
        match paths.iter().find(|(_, path)| !path.is_absolute()) {
            Some((key, _)) => Err(value(key, "the path must be absolute")),
            None => Ok(()),
        }
    }

    /// The host name in `public_url`.
    pub fn host(&self) -> Result<&str, ConfigError> {
        let plain = self.public_url.scheme() == "https" && self.public_url.path() == "/";
        let plain = plain && self.public_url.query().is_none() && self.public_url.fragment().is_none();
        let host = self.public_url.host_str().filter(|_| plain);
        host.ok_or_else(|| value("public_url", "expected https://host[:port]"))
    }

    /// `public_url` without a slash at its end.
    pub fn base_url(&self) -> &str {
        self.public_url.as_str().trim_end_matches('/')
    }
}

impl CallersConfig {
    /// Both values stand in a quoted header value.
    fn check_challenge(&self) -> Result<(), ConfigError> {
        let quotable = |text: &str| text.chars().all(|letter| letter.is_ascii_graphic() && letter != '"');
        for (key, text) in
            [("callers.authorization", &self.authorization), ("callers.audience", &self.audience)]
        {
            if !quotable(text) || Url::parse(text).is_err() {
                return Err(value(key, "expected a URL without quotes and spaces"));
            }
        }
        Ok(())
    }

    /// Where the issuer's keys are.
    pub fn source(&self) -> Result<JwksSource, ConfigError> {
        source("callers", None, self.jwks_url.as_ref(), self.jwks_file.as_ref(), self.ca.as_ref())
    }
}

impl AuthorityConfig {
    /// Where the issuer's keys are.
    pub fn source(&self) -> Result<JwksSource, ConfigError> {
        let usual = Url::parse(&format!("{}/certs", self.issuer.trim_end_matches('/')))
            .map_err(|_| value("authority.issuer", "expected a URL"))?;
        source("authority", Some(usual), self.jwks_url.as_ref(), self.jwks_file.as_ref(), self.ca.as_ref())
    }
}

fn source(
    section: &str,
    usual: Option<Url>,
    url: Option<&Url>,
    file: Option<&PathBuf>,
    ca: Option<&PathBuf>,
) -> Result<JwksSource, ConfigError> {
    JwksSource::from_parts(url.cloned().or(usual.filter(|_| file.is_none())), file, ca)
        .map_err(|SourceError { key, problem }| value(&format!("{section}.{key}"), problem))
}

pub(crate) fn value(key: &str, problem: &'static str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
listen = "127.0.0.1:8445"
public_url = "https://keys.vault.casemate.test:8445/"
data_dir = "/data"
tls_certificate = "/tls.pem"
tls_key = "/tls.key"
[master_key]
file = "/master.key"
[callers]
issuer = "https://login.casemate.test/tenant/"
audience = "https://vault.casemate.test:8445"
authorization = "https://login.casemate.test/tenant"
jwks_url = "https://login.casemate.test/common/discovery/keys"
ca = "/ca.pem"
[[authority]]
issuer = "https://attest.casemate.test:8444/"
ca = "/ca.pem"
"#;

    fn load(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path()).map_err(|error| match &error {
            ConfigError::Parse { source, .. } => source.message().to_owned(),
            other => other.to_string(),
        })
    }

    #[test]
    fn the_example_loads_with_its_defaults() {
        let config = load(EXAMPLE).unwrap();
        assert!(!config.allow_development_roots && !config.master_key.create);
        assert_eq!((&config.limits, &config.telemetry), (&Limits::default(), &TelemetryConfig::default()));
        assert_eq!(config.base_url(), "https://keys.vault.casemate.test:8445");
        assert_eq!(config.host().unwrap(), "keys.vault.casemate.test");
        let url = Url::parse("https://attest.casemate.test:8444/certs").unwrap();
        assert_eq!(config.authority[0].source().unwrap(), JwksSource::Url { url, ca: "/ca.pem".into() });
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        let cases = [
            ("data_dir = \"/data\"", "data_dir = \"data\"", "`data_dir`: the path must be absolute"),
            ("https://keys.", "http://keys.", "`public_url`: expected https://host[:port]"),
            ("8445/\"", "8445/vault\"", "`public_url`: expected https://host[:port]"),
            ("listen = \"127.0.0.1:8445\"", "", "missing field `listen`"),
            ("[master_key]", "allow = true\n[master_key]", "unknown field `allow`"),
            ("[callers]", "mode = 1\n[callers]", "unknown field `mode`"),
            ("[callers]", "[recovery]\ndays = 6\n[callers]", "`recovery.days`: expected 7 to 90"),
            ("[callers]", "[recovery]\ndays = 91\n[callers]", "`recovery.days`: expected 7 to 90"),
            ("[callers]", "[recovery]\npurge = true\n[callers]", "unknown field `purge`"),
            ("keys\"\nca = \"/ca.pem\"", "keys\"", "`callers.ca`: needed to trust `jwks_url`"),
            ("jwks_url = \"https", "jwks_url = \"http", "`callers.jwks_url`: expected https"),
            ("/tenant\"\n", "/te\\\"nant\"\n", "`callers.authorization`: expected a URL"),
            ("[[authority]]", "[[others]]", "unknown field `others`"),
            ("[callers]", "[hsm]\nmodule = '/m'\npin = '1'\n[callers]", "unknown field `pin`"),
            (
                "[callers]",
                "[hsm]\nmodule = 'm.so'\ntoken = 't'\npin_file = '/p'\n[callers]",
                "`hsm.module`: the path",
            ),
            (
                "[callers]",
                "[hsm]\nmodule = '/m'\ntoken = ' '\npin_file = '/p'\n[callers]",
                "`hsm.token`: expected",
            ),
            (
                "[callers]",
                "[hsm]\nmodule = '/m'\ntoken = 't'\npin_file = '/p'\nsessions = 0\n[callers]",
                "`hsm.sessions`: expected 1 to 64",
            ),
            (
                "[callers]",
                "[hsm]\nmodule = '/m'\ntoken = 't'\npin_file = '/p'\ntimeout_seconds = 0\n[callers]",
                "`hsm.timeout_seconds`: expected 1 to 300",
            ),
            ("[callers]", "[limits]\nburst = 0\n[callers]", "`limits.burst`: 0 would refuse every request"),
            ("[callers]", "[limits]\nrate = 1\n[callers]", "unknown field `rate`"),
            ("[callers]", "[telemetry]\nsample_ratio = 2.0\n[callers]", "`telemetry.sample_ratio`: expected"),
            ("[callers]", "[vaults]\ndomain = 'v.test'\n[callers]", "missing field `issuer`"),
            ("[callers]", "[telemetry]\nendpoint = 'x'\n[callers]", "unknown field `endpoint`"),
        ];
        for (old, new, expected) in cases {
            let error = load(&EXAMPLE.replace(old, new)).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let both =
            EXAMPLE.replace("[[authority]]", "[[authority]]\njwks_file = \"/f\"\njwks_url = \"https://a\"");
        assert!(load(&both).unwrap_err().starts_with("`authority.jwks_file`: give either"));
        let none = EXAMPLE.replace("jwks_url = \"https://login.casemate.test/common/discovery/keys\"\n", "");
        assert!(load(&none).unwrap_err().starts_with("`callers.jwks_url`: either"));
        let no_authority = EXAMPLE.split("[[authority]]").next().unwrap();
        assert!(load(no_authority).unwrap_err().starts_with("missing field `authority`"));
    }
}
