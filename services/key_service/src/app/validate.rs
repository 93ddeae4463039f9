//! The rules of a key's parameters. Codes `AKV.SKR.*` are Key Vault's own.

use std::collections::BTreeMap;

use policy::release::ReleasePolicy;
use public_api::keys::{KeyAttributes, KeyCreateParameters, KeyReleasePolicy};

use super::AppError;
use crate::crypto::rsa::Bits;

const MAX_NAME: usize = 127;
const MAX_TAGS: usize = 15;
const MAX_TAG: usize = 256;
const DEFAULT_BITS: u32 = 2048;
const EXPONENT: u32 = 65_537;
const KEY_OPS: [&str; 6] = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"];
const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// A key that may be made.
pub struct NewKey {
    pub kty: &'static str,
    pub bits: Bits,
    pub key_ops: Vec<String>,
    pub enabled: bool,
    pub not_before: Option<i64>,
    pub expires: Option<i64>,
    pub exportable: bool,
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
    let kty = key_type(&parameters.kty)?;
    let bits = size(&parameters)?;
    let attributes = parameters.attributes.unwrap_or_default();
    settable(&attributes)?;
    dates(attributes.nbf, attributes.exp)?;
    tags(&parameters.tags)?;
    let exportable = attributes.exportable.unwrap_or(false);
    if exportable && !releasable {
        return Err(skr("1001", "attributes.exportable", "Exportable keys need api-version 7.3 or later."));
    }
    let policy = release_policy(kty, exportable, parameters.release_policy)?;
    Ok(NewKey {
        kty,
        bits,
        key_ops: key_ops(&parameters.key_ops)?,
        enabled: attributes.enabled.unwrap_or(true),
        not_before: attributes.nbf,
        expires: attributes.exp,
        exportable,
        tags: parameters.tags,
        policy,
    })
}

fn key_type(kty: &str) -> Result<&'static str, AppError> {
    match kty.to_ascii_uppercase().as_str() {
        "RSA" => Ok("RSA"),
        "RSA-HSM" => Ok("RSA-HSM"),
        _ => Err(AppError::bad(
            "kty",
            format!("keys of type {kty:?} are not supported; expected RSA or RSA-HSM"),
        )),
    }
}

fn size(parameters: &KeyCreateParameters) -> Result<Bits, AppError> {
    if parameters.crv.is_some() {
        return Err(AppError::bad("crv", "an RSA key has no curve"));
    }
    if parameters.public_exponent.is_some_and(|exponent| exponent != EXPONENT) {
        return Err(AppError::bad("public_exponent", format!("expected {EXPONENT}")));
    }
    let bits = parameters.key_size.unwrap_or(DEFAULT_BITS);
    Bits::from_number(bits).ok_or_else(|| {
        AppError::bad("key_size", format!("{bits} is not supported; expected 2048, 3072 or 4096"))
    })
}

/// The permitted operations; all of them if none is named.
pub fn key_ops(wanted: &[String]) -> Result<Vec<String>, AppError> {
    if let Some(unknown) = wanted.iter().find(|op| !KEY_OPS.contains(&op.as_str())) {
        let known = KEY_OPS.join(", ");
        return Err(AppError::bad(
            "key_ops",
            format!("{unknown:?} is not supported; expected some of {known}"),
        ));
    }
    let named = |op: &&&str| wanted.is_empty() || wanted.iter().any(|named| named == **op);
    Ok(KEY_OPS.iter().filter(named).map(|op| (*op).to_owned()).collect())
}

/// Refuses attributes that only the service sets.
pub fn settable(attributes: &KeyAttributes) -> Result<(), AppError> {
    let fixed = [
        ("created", attributes.created.is_some()),
        ("updated", attributes.updated.is_some()),
        ("recoverableDays", attributes.recoverable_days.is_some()),
        ("recoveryLevel", attributes.recovery_level.is_some()),
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
    kty: &str,
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
    if kty != "RSA-HSM" {
        return Err(skr("1006", "kty", "Exportable RSA keys must be of type RSA-HSM."));
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
