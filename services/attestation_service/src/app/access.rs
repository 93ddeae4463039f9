//! Who may read and change policies, providers and the log: bearer tokens of the configured issuers, and administrators whose
//! token's hash stands in the configuration, for a service that runs apart from everything else.
//!
//! An app role holds for the whole service. A role over the Resource Manager resource that a provider belongs to holds for that
//! provider's policies, signers and keys, and for nothing else.
//!
//! Attesting needs no identity: evidence speaks for itself.

use public_api::Denial;
use token_verifier::bearer::{Bearer, BearerVerifier};
use token_verifier::{Issuer, Jwks, TokenError, refusal};

use crate::config::{AdministratorConfig, CallersConfig, ConfigError};

/// Reads policies, signers, history and the log.
pub const READER: &str = "Attestation Reader";
/// Changes them as well.
pub const CONTRIBUTOR: &str = "Attestation Contributor";

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Reading.
    Read,
    /// Changing.
    Change,
}

impl Permission {
    fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Read => &[READER, CONTRIBUTOR],
            Self::Change => &[CONTRIBUTOR],
        }
    }

    /// Roles over a resource. Source: Azure's built-in roles `Owner`, `Contributor` and `Reader` include what the two
    /// attestation roles permit.
    fn resource_roles(self) -> &'static [&'static str] {
        match self {
            Self::Read => &["Owner", "Contributor", "Reader", READER, CONTRIBUTOR],
            Self::Change => &["Owner", "Contributor", CONTRIBUTOR],
        }
    }
}

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No token.
    #[error("this needs a bearer token")]
    NoToken,
    /// The service is configured without callers.
    #[error("this service is configured without callers ([callers] or [[administrator]])")]
    NoCallers,
    /// The token is not good.
    #[error("{0}")]
    Unauthorized(Box<Denial>),
    /// The caller lacks a role.
    #[error("{0}")]
    Forbidden(Box<Denial>),
    /// The issuer's keys cannot be had.
    #[error("the caller's token could not be checked")]
    Unavailable(#[source] TokenError),
}

/// An administrator by the hash of a token.
struct Administrator {
    token_sha256: [u8; 32],
    bearer: Bearer,
}

/// Everybody who may be let in.
#[derive(Default)]
pub struct Access {
    tokens: Option<BearerVerifier>,
    administrators: Vec<Administrator>,
    challenge: Option<String>,
}

impl Access {
    /// From the configuration.
    pub fn new(
        callers: Option<&CallersConfig>,
        administrators: &[AdministratorConfig],
    ) -> Result<Self, ConfigError> {
        let mut access = Self {
            administrators: administrators.iter().map(administrator).collect::<Result<_, _>>()?,
            ..Self::default()
        };
        if let Some(callers) = callers {
            let source = callers.source()?;
            let issuer = |name: &String| {
                let keys = Jwks::new(&source);
                let keys = keys.map_err(|error| ConfigError::value("callers.ca", crate::chain(&error)))?;
                Ok::<_, ConfigError>(Issuer::new(name, keys))
            };
            let first = BearerVerifier::new(issuer(&callers.issuer)?, callers.audiences.clone());
            let all = callers
                .further_issuers
                .iter()
                .try_fold(first, |tokens, name| Ok::<_, ConfigError>(tokens.with_issuer(issuer(name)?)))?;
            access.tokens = Some(all);
            access.challenge = Some(challenge(callers));
        }
        Ok(access)
    }

    /// The `WWW-Authenticate` of an answer 401.
    pub fn challenge(&self) -> &str {
        self.challenge.as_deref().unwrap_or("Bearer")
    }

    /// Lets a caller in who has the permission over the whole service, or over `resource` if what is asked for belongs to
    /// one; returns the caller's id. A refusal does not tell the resource.
    pub async fn require(
        &self,
        token: Option<&str>,
        permission: Permission,
        resource: Option<&str>,
        now: i64,
    ) -> Result<String, AccessError> {
        let token = token.ok_or(AccessError::NoToken)?;
        let caller = match self.administrator(token) {
            Some(caller) => caller.clone(),
            None => self.verified(token, now).await?,
        };
        if resource.is_some_and(|resource| caller.is_assigned(permission.resource_roles(), resource)) {
            return Ok(caller.id);
        }
        let rule = format!("the {permission:?} permission of the attestation provider");
        caller.require_role(permission.roles(), &rule).map_err(AccessError::Forbidden)?;
        Ok(caller.id)
    }

    /// Tokens are compared by their hash, so that neither the configuration nor the time taken tells them.
    fn administrator(&self, token: &str) -> Option<&Bearer> {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let is_it = |administrator: &&Administrator| {
            aws_lc_rs::constant_time::verify_slices_are_equal(hash.as_ref(), &administrator.token_sha256)
                .is_ok()
        };
        self.administrators.iter().find(is_it).map(|administrator| &administrator.bearer)
    }

    async fn verified(&self, token: &str, now: i64) -> Result<Bearer, AccessError> {
        let Some(tokens) = &self.tokens else {
            return Err(if self.administrators.is_empty() {
                AccessError::NoCallers
            } else {
                AccessError::Unauthorized(unknown_administrator())
            });
        };
        tokens.verify(token, now).await.map_err(|error| match error {
            TokenError::Refused(denial) => AccessError::Unauthorized(denial),
            unavailable => AccessError::Unavailable(unavailable),
        })
    }
}

fn unknown_administrator() -> Box<Denial> {
    refusal(
        "AdministratorUnknown",
        "Authorization",
        "the token of a configured administrator",
        "another token",
        "administrators are configured by the SHA-256 of their token ([[administrator]])",
        "present an administrator's token, or add this one's hash to the configuration",
    )
}

fn administrator(config: &AdministratorConfig) -> Result<Administrator, ConfigError> {
    let wrong = || ConfigError::value("administrator.token_sha256", "expected 64 hex characters");
    let hash = hex::decode(&config.token_sha256).map_err(|_| wrong())?;
    let unknown = config.roles.iter().find(|role| ![READER, CONTRIBUTOR].contains(&role.as_str()));
    if let Some(role) = unknown {
        let problem = format!("{role:?} is neither {READER:?} nor {CONTRIBUTOR:?}");
        return Err(ConfigError::value("administrator.roles", problem));
    }
    Ok(Administrator {
        token_sha256: hash.try_into().map_err(|_| wrong())?,
        bearer: Bearer { id: config.name.clone(), roles: config.roles.clone(), ..Bearer::default() },
    })
}

/// As Azure's clients expect it: where tokens come from, and for which resource.
fn challenge(callers: &CallersConfig) -> String {
    let resource = callers.audiences.first().map_or("", String::as_str);
    match &callers.authorization {
        Some(authorization) => format!(r#"Bearer authorization="{authorization}", resource="{resource}""#),
        None => format!(r#"Bearer resource="{resource}""#),
    }
}
