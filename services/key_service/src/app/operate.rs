//! Using a key: `encrypt`, `decrypt`, `wrapkey`, `unwrapkey`.
//!
//! What is permitted is decided in one place, [`AppState::usable`]: the key is enabled, its `key_ops` name the
//! operation, and outside of `nbf` and `exp` it only undoes what it did before (Key Vault: decrypt, unwrap, verify, and
//! release; encrypt, wrap and sign are refused). A use of a secret is on record before it is answered; what takes the
//! public part only leaves no entry.

use std::sync::Arc;

use public_api::decision_log::Decision;
use public_api::key_operations::{KeyOperationParameters, KeyOperationResult};
use serde_json::json;

use super::keys::KeyRef;
use super::{AppError, AppState, quoted};
use crate::crypto::error::CryptoError;
use crate::crypto::kind::PublicKey;
use crate::crypto::oct::{self, BLOCK, CbcPadding, GCM_IV, GCM_TAG, OctBits};
use crate::crypto::rsa::{self, RsaPadding};
use crate::store::keys::KeyRecord;
use crate::token::caller::Caller;
use token_verifier::{Refusal, refusal};

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `encrypt`
    Encrypt,
    /// `decrypt`
    Decrypt,
    /// `wrapkey`
    Wrap,
    /// `unwrapkey`
    Unwrap,
    /// `sign`
    Sign,
    /// `verify`
    Verify,
}

impl Operation {
    /// As in the path, and in the log.
    pub fn route(self) -> &'static str {
        match self {
            Operation::Encrypt => "encrypt",
            Operation::Decrypt => "decrypt",
            Operation::Wrap => "wrapkey",
            Operation::Unwrap => "unwrapkey",
            Operation::Sign => "sign",
            Operation::Verify => "verify",
        }
    }

    /// As in `key_ops`.
    fn permission(self) -> &'static str {
        match self {
            Operation::Wrap => "wrapKey",
            Operation::Unwrap => "unwrapKey",
            other => other.route(),
        }
    }

    /// Whether it only undoes or checks what was done before, and so works outside of `nbf` and `exp`.
    fn looks_back(self) -> bool {
        matches!(self, Operation::Decrypt | Operation::Unwrap | Operation::Verify)
    }

    /// Whether it makes ciphertext.
    pub(super) fn encrypts(self) -> bool {
        matches!(self, Operation::Encrypt | Operation::Wrap)
    }
}

/// `alg` of an encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rsa(RsaPadding),
    Gcm(OctBits),
    Cbc(OctBits, CbcPadding),
    KeyWrap(OctBits),
}

impl Algorithm {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "RSA-OAEP" => return Some(Algorithm::Rsa(RsaPadding::Oaep)),
            "RSA-OAEP-256" => return Some(Algorithm::Rsa(RsaPadding::Oaep256)),
            "RSA1_5" => return Some(Algorithm::Rsa(RsaPadding::Pkcs1)),
            _ => {}
        }
        let (bits, mode) = name.strip_prefix('A')?.split_at_checked(3)?;
        let bits = bits.parse().ok().and_then(OctBits::from_number)?;
        match mode {
            "GCM" => Some(Algorithm::Gcm(bits)),
            "CBC" => Some(Algorithm::Cbc(bits, CbcPadding::None)),
            "CBCPAD" => Some(Algorithm::Cbc(bits, CbcPadding::Pkcs7)),
            "KW" => Some(Algorithm::KeyWrap(bits)),
            _ => None,
        }
    }

    /// The algorithm of a request, if the operation and the key have it.
    fn of(name: &str, operation: Operation, key: &PublicKey) -> Result<Self, AppError> {
        let wraps = matches!(operation, Operation::Wrap | Operation::Unwrap);
        let fits = |algorithm: &Self| match (algorithm, key) {
            (Algorithm::Rsa(_), PublicKey::Rsa(_)) => true,
            (Algorithm::Gcm(bits) | Algorithm::Cbc(bits, _), PublicKey::Oct(have)) => !wraps && bits == have,
            (Algorithm::KeyWrap(bits), PublicKey::Oct(have)) => wraps && bits == have,
            _ => false,
        };
        Self::from_name(name).filter(fits).ok_or_else(|| {
            let (expected, operation) = (expected(key, wraps), operation.route());
            let name = quoted::text(name);
            let text =
                format!("{name} is no algorithm of {operation} with this key; expected one of {expected}");
            AppError::bad("alg", text)
        })
    }
}

fn expected(key: &PublicKey, wraps: bool) -> String {
    match key {
        PublicKey::Rsa(_) => "RSA1_5, RSA-OAEP, RSA-OAEP-256".to_owned(),
        PublicKey::Ec(_) => "none: it signs and verifies only".to_owned(),
        PublicKey::Oct(bits) => {
            let bits = bits.number();
            if wraps { format!("A{bits}KW") } else { format!("A{bits}GCM, A{bits}CBC, A{bits}CBCPAD") }
        }
    }
}

impl AppState {
    /// `POST .../encrypt` and the other three that [`Operation`] names but `sign` and `verify`.
    pub async fn cipher(
        &self,
        caller: &Caller,
        key: &KeyRef,
        operation: Operation,
        parameters: KeyOperationParameters,
    ) -> Result<KeyOperationResult, AppError> {
        let record = self.usable(caller, key, operation).await?;
        let algorithm = Algorithm::of(&parameters.alg, operation, &record.public)?;
        inputs(algorithm, operation, &parameters)?;
        let alg = parameters.alg.clone();
        let kid = self.kid(&record);
        let result = match (algorithm, &record.public, self.in_token(&record)?) {
            (Algorithm::Rsa(padding), PublicKey::Rsa(public), _) if operation.encrypts() => {
                let value = rsa::encrypt(public, padding, &parameters.value).map_err(operation_error)?;
                return Ok(KeyOperationResult { kid, value, ..KeyOperationResult::default() });
            }
            (_, _, Some(key)) => key.cipher(algorithm, operation, parameters).await?,
            (Algorithm::Rsa(padding), ..) => {
                let private = self.opened_key(&record).await?;
                let decrypted = private.rsa().and_then(|key| key.decrypt(padding, &parameters.value));
                let value = decrypted.map_err(operation_error)?;
                KeyOperationResult { value: value.to_vec(), ..KeyOperationResult::default() }
            }
            _ => self.symmetric(&record, algorithm, operation, parameters).await?,
        };
        self.record_use(caller, &kid, operation, &alg).await?;
        Ok(KeyOperationResult { kid, ..result })
    }

    async fn symmetric(
        &self,
        record: &KeyRecord,
        algorithm: Algorithm,
        operation: Operation,
        parameters: KeyOperationParameters,
    ) -> Result<KeyOperationResult, AppError> {
        let key = self.opened_key(record).await?;
        let private = key.oct().map_err(operation_error)?;
        let KeyOperationParameters { value, iv, aad, tag, .. } = parameters;
        let (iv_bytes, aad_bytes) = (iv.as_deref().unwrap_or_default(), aad.as_deref().unwrap_or_default());
        let plain = |value: Vec<u8>| KeyOperationResult { value, ..KeyOperationResult::default() };
        let outcome = match (algorithm, operation.encrypts()) {
            (Algorithm::Gcm(bits), true) => {
                oct::gcm_encrypt(private, bits, &value, aad_bytes).map(|output| {
                    let (iv, tag) = (Some(output.iv), Some(output.tag));
                    KeyOperationResult { iv, tag, aad, ..plain(output.value) }
                })
            }
            (Algorithm::Gcm(bits), false) => {
                let tag = tag.as_deref().unwrap_or_default();
                oct::gcm_decrypt(private, bits, &value, (iv_bytes, tag, aad_bytes))
                    .map(|value| plain(value.to_vec()))
            }
            (Algorithm::Cbc(bits, padding), true) => {
                oct::cbc_encrypt(private, bits, padding, &value, iv_bytes)
                    .map(|value| KeyOperationResult { iv, ..plain(value) })
            }
            (Algorithm::Cbc(bits, padding), false) => {
                oct::cbc_decrypt(private, bits, padding, &value, iv_bytes).map(|value| plain(value.to_vec()))
            }
            (Algorithm::KeyWrap(bits), true) => oct::wrap(private, bits, &value).map(plain),
            (Algorithm::KeyWrap(bits), false) => {
                oct::unwrap(private, bits, &value).map(|value| plain(value.to_vec()))
            }
            (Algorithm::Rsa(_), _) => Err(CryptoError::Value),
        };
        outcome.map_err(operation_error)
    }

    /// The entry of a use of a secret.
    pub(super) async fn record_use(
        &self,
        caller: &Caller,
        kid: &str,
        operation: Operation,
        alg: &str,
    ) -> Result<(), AppError> {
        let detail = json!({"operation": operation.route(), "caller": caller.id(), "alg": alg});
        let event = self.event(Decision::KeyChanged, kid, None, detail);
        self.store.append(event).await?;
        Ok(())
    }

    /// The key, if it may be used for this now.
    pub(super) async fn usable(
        &self,
        caller: &Caller,
        key: &KeyRef,
        operation: Operation,
    ) -> Result<Arc<KeyRecord>, AppError> {
        let record = self.recent_record(key).await?;
        match check_usable(&record, operation, self.now()) {
            Ok(()) => Ok(record),
            Err(denial) => {
                let detail = json!({"caller": caller.id(), "operation": operation.route()});
                Err(self.refuse(&self.kid(&record), denial, detail).await)
            }
        }
    }
}

/// Refuses an initialisation vector, tag or additional data that the algorithm does not take, or not at this length.
fn inputs(
    algorithm: Algorithm,
    operation: Operation,
    parameters: &KeyOperationParameters,
) -> Result<(), AppError> {
    let gcm = matches!(algorithm, Algorithm::Gcm(_));
    let iv = match algorithm {
        Algorithm::Cbc(..) => Some(BLOCK),
        // A nonce that comes twice breaks GCM, so the vault chooses it.
        Algorithm::Gcm(_) if !operation.encrypts() => Some(GCM_IV),
        _ => None,
    };
    let tag = (gcm && !operation.encrypts()).then_some(GCM_TAG);
    exact("iv", parameters.iv.as_ref(), iv, &parameters.alg)?;
    exact("tag", parameters.tag.as_ref(), tag, &parameters.alg)?;
    if parameters.aad.is_some() && !gcm {
        return Err(AppError::bad("aad", format!("{} takes no additional data", parameters.alg)));
    }
    Ok(())
}

fn exact(name: &str, given: Option<&Vec<u8>>, wanted: Option<usize>, alg: &str) -> Result<(), AppError> {
    match (given.map(Vec::len), wanted) {
        (None, None) => Ok(()),
        (Some(given), Some(wanted)) if given == wanted => Ok(()),
        (_, Some(wanted)) => {
            Err(AppError::bad(name, format!("{alg} takes an {name} of {wanted} bytes here")))
        }
        (Some(_), None) => Err(AppError::bad(name, format!("{alg} takes no {name} here"))),
    }
}

fn check_usable(record: &KeyRecord, operation: Operation, now: i64) -> Result<(), Refusal> {
    if !record.enabled {
        return Err(disabled());
    }
    let wanted = operation.permission();
    if !record.key_ops.iter().any(|op| op == wanted) {
        let rule = "the key's permitted operations (key_ops)";
        let remedy = "use another key, or add the operation to this one";
        let actual = record.key_ops.join(", ");
        return Err(refusal("KeyOperationForbidden", "key_ops", wanted, actual, rule, remedy));
    }
    if operation.looks_back() { Ok(()) } else { in_time(record, now) }
}

fn in_time(record: &KeyRecord, now: i64) -> Result<(), Refusal> {
    let rule = "outside of nbf and exp a key only decrypts, unwraps, verifies and is released";
    let remedy = "use another version of the key, or change its dates (PATCH attributes)";
    if let Some(from) = record.not_before.filter(|from| now < *from) {
        let (claim, expected) = ("attributes.nbf", format!("{now} or earlier"));
        return Err(refusal("KeyNotYetValid", claim, expected, from.to_string(), rule, remedy));
    }
    if let Some(until) = record.expires.filter(|until| now >= *until) {
        let (claim, expected) = ("attributes.exp", format!("later than {now}"));
        return Err(refusal("KeyExpired", claim, expected, until.to_string(), rule, remedy));
    }
    Ok(())
}

/// The refusal of a disabled key.
pub(super) fn disabled() -> Refusal {
    let rule = "a disabled key answers no operation";
    let remedy = "enable the key (PATCH attributes.enabled), if that is what its owner wants";
    refusal("KeyDisabled", "attributes.enabled", "true", "false", rule, remedy)
}

pub(super) fn operation_error(error: CryptoError) -> AppError {
    match error {
        CryptoError::Value => {
            AppError::bad("value", "the value cannot be processed with this key and algorithm")
        }
        other => AppError::Key(other),
    }
}
