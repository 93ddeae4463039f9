//! The rules of a key's parameters. Codes `AKV.SKR.*` are Key Vault's own.

use std::collections::BTreeMap;

use policy::release::ReleasePolicy;
use public_api::keys::{KeyAttributes, KeyCreateParameters, KeyReleasePolicy};

use super::{AppError, quoted};
use crate::crypto::ec::Curve;
use crate::crypto::kind::{Family, KeySpec, KeyType};
use crate::crypto::oct::OctBits;
use crate::crypto::rsa::Bits;

const MAX_NAME: usize = 127;
const MAX_TAGS: usize = 15;
const MAX_TAG: usize = 256;
const DEFAULT_RSA: u32 = 2048;
const DEFAULT_OCT: u32 = 256;
const DEFAULT_CURVE: &str = "P-256";
const EXPONENT: u32 = 65_537;
const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// Everything about a key to be stored but the key itself.
pub struct Properties {
    pub key_type: KeyType,
    pub key_ops: Vec<String>,
    pub enabled: bool,
    pub not_before: Option<i64>,
    pub expires: Option<i64>,
    pub exportable: bool,
    pub tags: BTreeMap<String, String>,
    pub policy: Option<KeyReleasePolicy>,
}

/// A key that may be made.
pub struct NewKey {
    pub spec: KeySpec,
    pub properties: Properties,
}

/// What a request says about a key beside the key itself.
pub struct Wanted<'a> {
    pub key_type: KeyType,
    pub key_ops: &'a [String],
    pub attributes: KeyAttributes,
    pub tags: BTreeMap<String, String>,
    pub policy: Option<KeyReleasePolicy>,
}

/// A key's name: 1 to 127 letters, digits and dashes.
pub fn name(name: &str) -> Result<(), AppError> {
    let right = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if right && (1..=MAX_NAME).contains(&name.len()) {
        return Ok(());
    }
    Err(AppError::bad("name", format!("a key name has 1 to {MAX_NAME} letters, digits and dashes")))
}

/// Checks everything about a key to be made. `releasable` is whether the API version knows release.
pub fn create(parameters: KeyCreateParameters, releasable: bool) -> Result<NewKey, AppError> {
    let key_type = key_type("kty", &parameters.kty)?;
    let spec = spec(key_type.family, &parameters)?;
    let KeyCreateParameters { key_ops, attributes, tags, release_policy, .. } = parameters;
    let attributes = attributes.unwrap_or_default();
    let wanted = Wanted { key_type, key_ops: &key_ops, attributes, tags, policy: release_policy };
    Ok(NewKey { spec, properties: properties(wanted, releasable)? })
}

/// Checks what is said about a key.
pub fn properties(wanted: Wanted<'_>, releasable: bool) -> Result<Properties, AppError> {
    let Wanted { key_type, attributes, .. } = wanted;
    settable(&attributes)?;
    dates(attributes.nbf, attributes.exp)?;
    tags(&wanted.tags)?;
    let exportable = attributes.exportable.unwrap_or(false);
    if exportable && !releasable {
        return Err(skr("1001", "attributes.exportable", "Exportable keys need api-version 7.3 or later."));
    }
    let policy = release_policy(key_type, exportable, wanted.policy)?;
    Ok(Properties {
        key_type,
        key_ops: key_ops(key_type.family, wanted.key_ops)?,
        enabled: attributes.enabled.unwrap_or(true),
        not_before: attributes.nbf,
        expires: attributes.exp,
        exportable,
        tags: wanted.tags,
        policy,
    })
}

fn key_type(target: &str, kty: &str) -> Result<KeyType, AppError> {
    KeyType::from_name(kty).ok_or_else(|| {
        let (kty, names) = (quoted::text(kty), KeyType::NAMES);
        AppError::bad(target, format!("keys of type {kty} are not supported; expected one of {names}"))
    })
}

/// The type of an imported key: its own, or with `Hsm` the kind that ends in `-HSM`.
pub fn imported_type(kty: &str, hsm: Option<bool>) -> Result<KeyType, AppError> {
    let own = key_type("key.kty", kty)?;
    match hsm {
        Some(false) if own.hsm => Err(AppError::bad(
            "Hsm",
            format!("a key of type {} is imported with Hsm true or without it", own.name()),
        )),
        _ => Ok(KeyType { hsm: own.hsm || hsm == Some(true), ..own }),
    }
}

/// Refuses sizes, curves and exponents that the family does not have.
fn spec(family: Family, parameters: &KeyCreateParameters) -> Result<KeySpec, AppError> {
    if parameters.crv.is_some() && family != Family::Ec {
        return Err(AppError::bad("crv", "only a key of type EC has a curve"));
    }
    if parameters.key_size.is_some() && family == Family::Ec {
        return Err(AppError::bad("key_size", "the size of an elliptic-curve key is its curve's (crv)"));
    }
    let exponent = parameters.public_exponent;
    if exponent.is_some_and(|exponent| family != Family::Rsa || exponent != EXPONENT) {
        return Err(AppError::bad("public_exponent", format!("expected {EXPONENT}, for RSA keys only")));
    }
    match family {
        Family::Rsa => {
            let bits = parameters.key_size.unwrap_or(DEFAULT_RSA);
            Bits::from_number(bits).map(KeySpec::Rsa).ok_or_else(|| size(bits, "2048, 3072 or 4096"))
        }
        Family::Oct => {
            let bits = parameters.key_size.unwrap_or(DEFAULT_OCT);
            OctBits::from_number(bits).map(KeySpec::Oct).ok_or_else(|| size(bits, "128, 192 or 256"))
        }
        Family::Ec => {
            let name = parameters.crv.as_deref().unwrap_or(DEFAULT_CURVE);
            let expected =
                || format!("{} is not supported; expected one of {}", quoted::text(name), Curve::NAMES);
            Curve::from_name(name).map(KeySpec::Ec).ok_or_else(|| AppError::bad("crv", expected()))
        }
    }
}

fn size(bits: u32, expected: &str) -> AppError {
    AppError::bad("key_size", format!("{bits} is not supported; expected {expected}"))
}

/// The permitted operations of a key of this family; all that it can do if none is named.
pub fn key_ops(family: Family, wanted: &[String]) -> Result<Vec<String>, AppError> {
    let possible = family.operations();
    if let Some(other) = wanted.iter().find(|op| !possible.contains(&op.as_str())) {
        let (other, possible) = (quoted::text(other), possible.join(", "));
        return Err(AppError::bad(
            "key_ops",
            format!("{other} is no operation of a key of this type; expected some of {possible}"),
        ));
    }
    let named = |op: &&&str| wanted.is_empty() || wanted.iter().any(|named| named == **op);
    Ok(possible.iter().filter(named).map(|op| (*op).to_owned()).collect())
}

/// Refuses attributes that only the service sets.
pub fn settable(attributes: &KeyAttributes) -> Result<(), AppError> {
    let fixed = [
        ("created", attributes.created.is_some()),
        ("updated", attributes.updated.is_some()),
        ("recoverableDays", attributes.recoverable_days.is_some()),
        ("recoveryLevel", attributes.recovery_level.is_some()),
        ("hsmPlatform", attributes.hsm_platform.is_some()),
    ];
    match fixed.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            Err(AppError::bad(format!("attributes.{name}"), format!("{name} is set by the vault")))
        }
        None => Ok(()),
    }
}

/// A key expires after it begins.
pub fn dates(not_before: Option<i64>, expires: Option<i64>) -> Result<(), AppError> {
    match (not_before, expires) {
        (Some(from), Some(until)) if until <= from => {
            Err(AppError::bad("attributes.exp", "exp must be later than nbf"))
        }
        _ => Ok(()),
    }
}

/// Bounds on labels.
pub fn tags(tags: &BTreeMap<String, String>) -> Result<(), AppError> {
    let long = |(name, text): (&String, &String)| name.len() > MAX_TAG || text.len() > MAX_TAG;
    if tags.len() > MAX_TAGS || tags.iter().any(long) {
        let message = format!("at most {MAX_TAGS} tags of {MAX_TAG} bytes each");
        return Err(AppError::bad("tags", message));
    }
    Ok(())
}

fn release_policy(
    key_type: KeyType,
    exportable: bool,
    policy: Option<KeyReleasePolicy>,
) -> Result<Option<KeyReleasePolicy>, AppError> {
    let Some(policy) = policy else {
        return match exportable {
            true => Err(skr("1004", "release_policy", "Exportable keys must have release policy.")),
            false => Ok(None),
        };
    };
    if !exportable {
        return Err(skr("1005", "release_policy", "Non-exportable keys must not have release policy."));
    }
    if !key_type.hsm {
        let name = key_type.name();
        return Err(skr("1006", "kty", &format!("Exportable {name} keys must be of type {name}-HSM.")));
    }
    checked_policy(policy).map(Some)
}

/// A policy that parses; the content type is filled in.
pub fn checked_policy(policy: KeyReleasePolicy) -> Result<KeyReleasePolicy, AppError> {
    ReleasePolicy::parse(&policy.data)
        .map_err(|error| AppError::bad("release_policy.data", error.to_string()))?;
    let content_type = policy.content_type.unwrap_or_else(|| CONTENT_TYPE.to_owned());
    if !content_type.starts_with("application/json") {
        return Err(AppError::bad("release_policy.contentType", format!("expected {CONTENT_TYPE:?}")));
    }
    Ok(KeyReleasePolicy { content_type: Some(content_type), ..policy })
}

/// An error of the release rules.
pub fn skr(number: &str, target: &str, text: &str) -> AppError {
    AppError::bad(target, format!("AKV.SKR.{number}: {text}"))
}
