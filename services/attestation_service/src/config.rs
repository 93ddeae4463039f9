//! The service's configuration: one TOML file, read once. A key that is not known is an error.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http_service::Limits;
use public_api::attestation_policy::TokenAlgorithm;
use serde::Deserialize;
use telemetry::TelemetryConfig;
use token_verifier::{JwksSource, SourceError};

use crate::app::access::Access;

/// What `casemate-attestation --config` reads. All paths are absolute.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the HTTPS listener.
    pub listen: SocketAddr,
    /// The `iss` of tokens and the base URL under which clients reach this service; no slash at the end.
    pub issuer: String,
    /// PEM of the TLS certificate and its chain.
    pub tls_certificate: PathBuf,
    /// PEM (PKCS#8) of the TLS key.
    pub tls_key: PathBuf,
    /// Where the signing key, the nonce key and the database lie. Made if missing.
    pub data_dir: PathBuf,
    /// Whether evidence under [`Config::development_root`] may be accepted. Shown in `/health` and logged.
    #[serde(default)]
    pub allow_development_roots: bool,
    /// PEM of the root certificate of a software secure processor. It counts only with `allow_development_roots`.
    #[serde(default)]
    pub development_root: Option<PathBuf>,
    /// Certificate revocation lists, DER or PEM.
    #[serde(default)]
    pub crl_files: Vec<PathBuf>,
    /// Those for VLEKs.
    #[serde(default)]
    pub vlek_crl_files: Vec<PathBuf>,
    /// Where revocation lists are fetched from, for example `https://kdsintf.amd.com/vcek/v1/Milan/crl`; with `vlek`
    /// instead of `vcek` they are those for VLEKs.
    #[serde(default)]
    pub crl_urls: Vec<String>,
    /// Whether evidence is refused under a root without a current revocation list.
    #[serde(default)]
    pub crl_required: bool,
    /// For how many seconds a revocation list counts after it was issued, whatever it says itself.
    #[serde(default)]
    pub crl_max_age: Option<u64>,
    /// Key distribution services that certificates are fetched from, in this order; an empty list fetches nothing.
    #[serde(default = "amd_kds")]
    pub kds_urls: Vec<String>,
    /// Milliseconds for one request to them.
    #[serde(default = "kds_timeout_ms")]
    pub kds_timeout_ms: u64,
    /// Keys that sign tables of minimum patch levels: PEM of certificates or public keys, or a JWKS.
    #[serde(default)]
    pub minimum_tcb_signers: Vec<PathBuf>,
    /// A signed table of minimum patch levels that is taken up at each start if it is newer than the stored one.
    #[serde(default)]
    pub minimum_tcb_table: Option<PathBuf>,
    /// Keys that sign reference values of other services: PEM of certificates or public keys, or a JWKS.
    #[serde(default)]
    pub reference_signers: Vec<PathBuf>,
    /// Whose bearer tokens may read and change policies, providers and the log.
    #[serde(default)]
    pub callers: Option<CallersConfig>,
    /// Who else may, by the hash of a token; for a service that runs apart from everything else.
    #[serde(default)]
    pub administrator: Vec<AdministratorConfig>,
    /// Algorithm of the tokens of the provider at the root.
    #[serde(default)]
    pub token_algorithm: TokenAlgorithm,
    /// What callers may take: rates, bodies, times.
    #[serde(default)]
    pub limits: Limits,
    /// How often evidence of chips that nobody has seen may cost a request to a key distribution service.
    #[serde(default)]
    pub unknown_chips: UnknownChips,
    /// Where spans are sent to.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Firmware builds whose launch digests are accepted.
    #[serde(default)]
    pub firmware: Vec<FirmwareConfig>,
    /// Launch digests that are accepted as they stand.
    #[serde(default)]
    pub measurement: Vec<MeasurementConfig>,
    /// Lowest accepted security patch levels, by product name (`Milan`, `Genoa`, `Turin`).
    #[serde(default)]
    pub minimum_tcb: BTreeMap<String, MinimumTcb>,
}

fn amd_kds() -> Vec<String> {
    vec!["https://kdsintf.amd.com".to_owned()]
}

fn kds_timeout_ms() -> u64 {
    10_000
}

/// `[unknown_chips]`: requests for certificates of chips that callers without an identity bring about. 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnknownChips {
    /// In a minute, and at once, for one address. An address of this machine has no limit of its own.
    pub per_minute_and_address: u32,
    /// In a minute, and at once, for all addresses.
    pub per_minute: u32,
}

impl Default for UnknownChips {
    fn default() -> Self {
        Self { per_minute_and_address: 6, per_minute: 60 }
    }
}

/// `[callers]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallersConfig {
    /// `iss` of access tokens.
    pub issuer: String,
    /// `iss` of further tenants' tokens, under the same keys.
    #[serde(default)]
    pub further_issuers: Vec<String>,
    /// `aud` of access tokens: any of these. The first one is told to clients.
    pub audiences: Vec<String>,
    /// Where clients get tokens, for the challenge of an answer 401.
    #[serde(default)]
    pub authorization: Option<String>,
    /// Where the issuer's keys are.
    #[serde(default)]
    pub jwks_url: Option<url::Url>,
    /// Or a file with them.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// PEM of the only certificates trusted for `jwks_url`.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// `[[administrator]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdministratorConfig {
    /// As the log names them.
    pub name: String,
    /// SHA-256 (hex) of their bearer token.
    pub token_sha256: String,
    /// `Attestation Reader` or `Attestation Contributor`.
    pub roles: Vec<String>,
}

impl CallersConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if self.audiences.is_empty() {
            return Err(ConfigError::value("callers.audiences", "at least one is needed"));
        }
        if self
            .authorization
            .as_ref()
            .is_some_and(|text| url::Url::parse(text).is_err() || text.contains('"'))
        {
            return Err(ConfigError::value("callers.authorization", "expected a URL"));
        }
        self.source().map(drop)
    }

    /// Where the issuer's keys are.
    pub fn source(&self) -> Result<JwksSource, ConfigError> {
        JwksSource::from_parts(self.jwks_url.clone(), self.jwks_file.as_ref(), self.ca.as_ref())
            .map_err(|SourceError { key, problem }| ConfigError::value(format!("callers.{key}"), problem))
    }
}

/// What is trusted to run: a part of [`Config`], and a file of its own for offline verification.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceConfig {
    /// See [`Config::firmware`].
    #[serde(default)]
    pub firmware: Vec<FirmwareConfig>,
    /// See [`Config::measurement`].
    #[serde(default)]
    pub measurement: Vec<MeasurementConfig>,
    /// See [`Config::minimum_tcb`].
    #[serde(default)]
    pub minimum_tcb: BTreeMap<String, MinimumTcb>,
}

/// One firmware build and the launches of it that are accepted: every CPU model with every number of vCPUs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareConfig {
    /// Name that tokens show, for example `ovmf-2022.11/paravisor-0.1.0`.
    pub name: String,
    /// The code image that is launched.
    pub firmware: PathBuf,
    /// The paravisor's binary, whose hash the paravisor page holds.
    pub paravisor: PathBuf,
    /// The firmware variables as shipped, whose hash the paravisor page holds.
    pub vars_template: PathBuf,
    /// CPU models as QEMU names them, for example `EPYC-Milan`.
    pub cpu_models: Vec<String>,
    /// Until when its launches are accepted (RFC 3339), for the build that an upgrade replaces.
    #[serde(default)]
    pub until: Option<String>,
    /// Numbers of virtual CPUs, 1 to 512.
    pub vcpus: Vec<u32>,
    /// `SEV_FEATURES` of the VMSAs; bit 0 is SNP.
    #[serde(default = "snp_active")]
    pub guest_features: u64,
}

fn snp_active() -> u64 {
    1
}

/// One launch digest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasurementConfig {
    /// Name that tokens show.
    pub name: String,
    /// 96 hex characters.
    pub launch_measurement: String,
}

/// Lowest accepted patch levels of the reported TCB; a level that is not given is not checked.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimumTcb {
    /// Boot loader.
    #[serde(default)]
    pub bootloader: Option<u8>,
    /// Trusted execution environment.
    #[serde(default)]
    pub tee: Option<u8>,
    /// SNP firmware.
    #[serde(default)]
    pub snp: Option<u8>,
    /// Microcode.
    #[serde(default)]
    pub microcode: Option<u8>,
    /// Firmware image of the FMC (Turin).
    #[serde(default)]
    pub fmc: Option<u8>,
}

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or a file that it names, cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of another type; the text names it.
    #[error("in {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that makes no sense.
    #[error("configuration key `{key}`: {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ConfigError {
    pub(crate) fn value(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Value { key: key.into(), problem: problem.into() }
    }
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = read_toml(path)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let url = url::Url::parse(&self.issuer).ok();
        if !url
            .is_some_and(|url| url.scheme() == "https" && url.query().is_none() && url.fragment().is_none())
            || self.issuer.ends_with('/')
        {
            return Err(ConfigError::value("issuer", "expected an https URL without a slash at the end"));
        }
        if self.allow_development_roots && self.development_root.is_none() {
            return Err(ConfigError::value("development_root", "needed by `allow_development_roots = true`"));
        }
        let is_web = |text: &&String| {
            url::Url::parse(text).is_ok_and(|url| url.has_host() && ["http", "https"].contains(&url.scheme()))
        };
        if let Some(other) = self.crl_urls.iter().find(|text| !is_web(text)) {
            return Err(ConfigError::value("crl_urls", format!("{other:?} is not a URL")));
        }
        if let Some(other) = self.kds_urls.iter().find(|text| !is_web(text)) {
            return Err(ConfigError::value("kds_urls", format!("{other:?} is not a URL")));
        }
        let problem = self.limits.problem().or_else(|| self.telemetry.problem());
        if let Some((key, problem)) = problem {
            return Err(ConfigError::value(key, problem));
        }
        Access::new(None, &self.administrator)?;
        if let Some(callers) = &self.callers {
            callers.check()?;
        }
        Ok(())
    }

    /// The part that says what may run.
    pub fn reference(&self) -> ReferenceConfig {
        ReferenceConfig {
            firmware: self.firmware.clone(),
            measurement: self.measurement.clone(),
            minimum_tcb: self.minimum_tcb.clone(),
        }
    }
}

impl ReferenceConfig {
    /// Reads reference inputs: either a file with nothing else in it, or a service's whole configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match read_toml(path) {
            Ok(reference) => Ok(reference),
            Err(error @ ConfigError::Read { .. }) => Err(error),
            Err(error) => Config::read(path).map(|config| config.reference()).map_err(|_| error),
        }
    }
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

/// Reads a file that the configuration names.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const GOOD: &str = r#"
        listen = "127.0.0.1:0"
        issuer = "https://attest.example"
        tls_certificate = "/c.pem"
        tls_key = "/k.pem"
        data_dir = "/d"
    "#;

    fn refused(more: &str, expected: Expect) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), format!("{GOOD}{more}")).expect("written");
        let error = Config::read(file.path()).expect_err("must be refused").to_string();
        let error = error.replace(&file.path().display().to_string(), "FILE");
        expected.assert_eq(error.lines().next_back().unwrap_or_default());
    }

    #[test]
    fn the_smallest_configuration_trusts_amd_only() {
        let config: Config = toml::from_str(GOOD).expect("parses");
        config.check().expect("accepted");
        assert!(!config.allow_development_roots && config.firmware.is_empty());
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        refused(
            "allow_developement_roots = true",
            expect![
                "unknown field `allow_developement_roots`, expected one of `listen`, `issuer`, `tls_certificate`, `tls_key`, `data_dir`, `allow_development_roots`, `development_root`, `crl_files`, `vlek_crl_files`, `crl_urls`, `crl_required`, `crl_max_age`, `kds_urls`, `kds_timeout_ms`, `minimum_tcb_signers`, `minimum_tcb_table`, `reference_signers`, `callers`, `administrator`, `token_algorithm`, `limits`, `unknown_chips`, `telemetry`, `firmware`, `measurement`, `minimum_tcb`"
            ],
        );
        refused(
            "[minimum_tcb.Milan]\nsnpfw = 1",
            expect!["unknown field `snpfw`, expected one of `bootloader`, `tee`, `snp`, `microcode`, `fmc`"],
        );
    }

    #[test]
    fn senseless_values_are_refused_by_name() {
        refused(
            "allow_development_roots = true",
            expect!["configuration key `development_root`: needed by `allow_development_roots = true`"],
        );
        refused("crl_urls = ['/a']", expect![[r#"configuration key `crl_urls`: "/a" is not a URL"#]]);
        refused("kds_urls = ['amd']", expect![[r#"configuration key `kds_urls`: "amd" is not a URL"#]]);
        refused(
            "[[administrator]]\nname = 'a'\ntoken_sha256 = 'abc'\nroles = []",
            expect!["configuration key `administrator.token_sha256`: expected 64 hex characters"],
        );
        refused(
            "[limits]\nburst = 0",
            expect![
                "configuration key `limits.burst`: 0 would refuse every request; set the rate to 0 for no limit"
            ],
        );
        refused(
            "[telemetry]\notlp_endpoint = 'collector'",
            expect![
                "configuration key `telemetry.otlp_endpoint`: expected an http or https URL without user, query and fragment"
            ],
        );
        refused(
            "[callers]\nissuer = 'https://login.example'\naudiences = []\njwks_file = '/f'",
            expect!["configuration key `callers.audiences`: at least one is needed"],
        );
        refused(
            "[callers]\nissuer = 'https://login.example'\naudiences = ['a']\njwks_url = 'https://login.example'",
            expect!["configuration key `callers.ca`: needed to trust `jwks_url`"],
        );
    }
}
