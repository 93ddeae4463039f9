//! `wrapkey` and `unwrapkey`.

use public_api::decision_log::Decision;
use public_api::keys::{KeyOperationParameters, KeyOperationResult};
use serde_json::json;

use super::keys::KeyRef;
use super::{AppError, AppState};
use crate::crypto::rsa::{self, PublicParts, RsaError, WrapAlgorithm};
use crate::store::decisions;
use crate::store::keys::KeyRecord;
use crate::token::caller::Caller;
use token_verifier::{Refusal, refusal};

impl AppState {
    /// `POST .../wrapkey`: needs no secret, so it leaves no entry in the log.
    pub async fn wrap_key(
        &self,
        caller: &Caller,
        key: &KeyRef,
        parameters: KeyOperationParameters,
    ) -> Result<KeyOperationResult, AppError> {
        let algorithm = algorithm(&parameters.alg)?;
        let record = self.usable(caller, key, "wrapKey").await?;
        let kid = self.kid(&record);
        let public = PublicParts { modulus: record.modulus, exponent: record.exponent };
        let value = rsa::wrap(&public, algorithm, &parameters.value).map_err(operation_error)?;
        Ok(KeyOperationResult { kid, value })
    }

    /// `POST .../unwrapkey`: on record before the answer.
    pub async fn unwrap_key(
        &self,
        caller: &Caller,
        key: &KeyRef,
        parameters: KeyOperationParameters,
    ) -> Result<KeyOperationResult, AppError> {
        let algorithm = algorithm(&parameters.alg)?;
        let record = self.usable(caller, key, "unwrapKey").await?;
        let kid = self.kid(&record);
        let private = self.open_key(&record)?;
        let value = tokio::task::spawn_blocking(move || rsa::unwrap(&private, algorithm, &parameters.value))
            .await?
            .map_err(operation_error)?;
        let detail = json!({"operation": "unwrapkey", "caller": caller.id(), "alg": parameters.alg});
        let event = self.event(Decision::KeyChanged, &kid, None, detail);
        self.store.write(move |connection| Box::pin(decisions::append(connection, event))).await?;
        Ok(KeyOperationResult { kid, value: value.to_vec() })
    }

    /// The key, if it is enabled and permits the operation.
    async fn usable(&self, caller: &Caller, key: &KeyRef, operation: &str) -> Result<KeyRecord, AppError> {
        let record = self.record(key).await?;
        match check_usable(&record, operation) {
            Ok(()) => Ok(record),
            Err(denial) => {
                let detail = json!({"caller": caller.id(), "operation": operation});
                Err(self.refuse(&self.kid(&record), denial, detail).await)
            }
        }
    }
}

fn check_usable(record: &KeyRecord, operation: &str) -> Result<(), Refusal> {
    if !record.enabled {
        return Err(disabled());
    }
    if record.key_ops.iter().any(|op| op == operation) {
        return Ok(());
    }
    let rule = "the key's permitted operations (key_ops)";
    let remedy = "use another key, or add the operation to this one";
    let actual = record.key_ops.join(", ");
    Err(refusal("KeyOperationForbidden", "key_ops", operation, actual, rule, remedy))
}

/// The refusal of a disabled key.
pub(super) fn disabled() -> Refusal {
    let rule = "a disabled key answers no operation";
    let remedy = "enable the key (PATCH attributes.enabled), if that is what its owner wants";
    refusal("KeyDisabled", "attributes.enabled", "true", "false", rule, remedy)
}

fn algorithm(name: &str) -> Result<WrapAlgorithm, AppError> {
    WrapAlgorithm::from_name(name).ok_or_else(|| {
        AppError::bad("alg", format!("{name:?} is not supported; expected one of {}", WrapAlgorithm::NAMES))
    })
}

fn operation_error(error: RsaError) -> AppError {
    match error {
        RsaError::Value => {
            AppError::bad("value", "the value cannot be processed with this key and algorithm")
        }
        other => AppError::Key(other),
    }
}
