//! What a request body comes to before any key or database is touched. The fuzz targets call this: the same readers and
//! rules that the routes call.

use public_api::key_import::KeyImportParameters;
use public_api::key_rotation::KeyRotationPolicy;
use public_api::keys::{KeyCreateParameters, KeyUpdateParameters};

use crate::app::keys::{checked_import, read_key};
use crate::app::schedule::Schedule;
use crate::app::validate::{self, Properties};
use crate::app::{AppError, random};
use crate::http::request::{parse, parse_strict};

/// A key that would be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Type, as it would be answered.
    pub kty: &'static str,
    /// Permitted operations.
    pub key_ops: Vec<String>,
    /// Whether it could be released.
    pub exportable: bool,
    /// Whether it has a release policy.
    pub has_policy: bool,
}

impl Accepted {
    fn of(properties: Properties) -> Self {
        Self {
            kty: properties.key_type.name(),
            key_ops: properties.key_ops,
            exportable: properties.exportable,
            has_policy: properties.policy.is_some(),
        }
    }
}

/// The body of `create`.
pub fn create(body: &[u8]) -> Result<Accepted, AppError> {
    let parameters = parse::<KeyCreateParameters>(body)?;
    Ok(Accepted::of(validate::create(parameters, true)?.properties))
}

/// The body of an import, the key itself included.
pub fn import(body: &[u8]) -> Result<Accepted, AppError> {
    let (properties, key) = checked_import(parse::<KeyImportParameters>(body)?, true)?;
    read_key(properties.key_type.family, &key)?;
    Ok(Accepted::of(properties))
}

/// The body of an update.
pub fn update(body: &[u8]) -> Result<(), AppError> {
    let parameters = parse::<KeyUpdateParameters>(body)?;
    let attributes = parameters.attributes.unwrap_or_default();
    validate::settable(&attributes)?;
    validate::dates(attributes.nbf, attributes.exp)?;
    parameters.tags.as_ref().map_or(Ok(()), validate::tags)?;
    parameters.release_policy.map_or(Ok(()), |policy| validate::checked_policy(policy).map(drop))
}

/// The body of a rotation policy. Returns when a version that was made at `now` would expire.
pub fn rotation_policy(body: &[u8], now: i64) -> Result<Option<i64>, AppError> {
    let policy: KeyRotationPolicy = parse_strict(body)?;
    let schedule = Schedule::parse(&policy, now)?;
    schedule.due(now, schedule.expires(now), now);
    Ok(schedule.expires(now))
}

/// The body of `rng`. Returns how many bytes it gives.
pub fn random(body: &[u8]) -> Result<usize, AppError> {
    random::bytes(parse(body)?).map(|bytes| bytes.value.len())
}
