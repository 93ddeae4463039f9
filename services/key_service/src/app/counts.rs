//! What the service counts of its own work; requests are counted by the gate.

use std::sync::Arc;

use http_service::Metrics;
use http_service::metrics::{Counter, CountersByCode, Gauge};

use super::AppError;
use super::operate::Operation;
use crate::hsm::HsmError;

/// What was done, or was to be done. Reading is counted by its routes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A key was made.
    Create,
    /// A key was brought along.
    Import,
    /// A version was changed.
    Update,
    /// A key was deleted.
    Delete,
    /// A deleted key came back.
    Recover,
    /// A deleted key was destroyed on demand.
    Purge,
    /// A backup of one key.
    Backup,
    /// A key came back from its backup.
    Restore,
    /// A new version on demand.
    Rotate,
    /// A new version because the rotation policy says so.
    ScheduledRotate,
    /// A rotation policy was set.
    SetRotationPolicy,
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
    /// Random bytes.
    Random,
    /// `release`
    Release,
    /// A VM's newest generation was put back.
    ResetGeneration,
}

impl Kind {
    const ALL: [(Self, &'static str); 20] = [
        (Self::Create, "create"),
        (Self::Import, "import"),
        (Self::Update, "update"),
        (Self::Delete, "delete"),
        (Self::Recover, "recover"),
        (Self::Purge, "purge"),
        (Self::Backup, "backup"),
        (Self::Restore, "restore"),
        (Self::Rotate, "rotate"),
        (Self::ScheduledRotate, "scheduled_rotate"),
        (Self::SetRotationPolicy, "set_rotation_policy"),
        (Self::Encrypt, "encrypt"),
        (Self::Decrypt, "decrypt"),
        (Self::Wrap, "wrapkey"),
        (Self::Unwrap, "unwrapkey"),
        (Self::Sign, "sign"),
        (Self::Verify, "verify"),
        (Self::Random, "random"),
        (Self::Release, "release"),
        (Self::ResetGeneration, "reset_generation"),
    ];

    /// Of a use of a key.
    pub fn of(operation: Operation) -> Self {
        match operation {
            Operation::Encrypt => Self::Encrypt,
            Operation::Decrypt => Self::Decrypt,
            Operation::Wrap => Self::Wrap,
            Operation::Unwrap => Self::Unwrap,
            Operation::Sign => Self::Sign,
            Operation::Verify => Self::Verify,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// As asked.
    Done,
    /// A rule said no.
    Refused,
    /// The request cannot be met as it is.
    Invalid,
    /// What decides could not be had.
    Unavailable,
    /// A fault of ours.
    Failed,
}

impl Outcome {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Done, "done"),
        (Self::Refused, "refused"),
        (Self::Invalid, "invalid"),
        (Self::Unavailable, "unavailable"),
        (Self::Failed, "failed"),
    ];

    fn of<T>(result: &Result<T, AppError>) -> Self {
        let Err(error) = result else { return Self::Done };
        match error {
            AppError::Denied(_) | AppError::NotReset(_) | AppError::NoToken | AppError::BadToken(_) => {
                Self::Refused
            }
            AppError::BadParameter { .. }
            | AppError::KeyNotFound(_)
            | AppError::Conflict(_)
            | AppError::VaultNotFound(_)
            | AppError::VaultConflict { .. }
            | AppError::BodyTooLarge
            | AppError::BodyIncomplete => Self::Invalid,
            AppError::IssuerUnavailable(_) => Self::Unavailable,
            AppError::Hsm(HsmError::Unsupported { .. }) => Self::Invalid,
            AppError::Hsm(error) if error.is_unavailable() => Self::Unavailable,
            AppError::Store(_)
            | AppError::Seal(_)
            | AppError::Hsm(_)
            | AppError::Key(_)
            | AppError::Policy(_)
            | AppError::Worker(_)
            | AppError::Vault(_) => Self::Failed,
        }
    }
}

/// The service's own metrics.
pub struct Counts {
    operations: [[Counter; Outcome::ALL.len()]; Kind::ALL.len()],
    release_refusals: CountersByCode,
    ready_keys: Gauge,
}

impl Counts {
    /// All at zero.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        let help = "Operations by kind and by how they ended.";
        let counter = |operation, result| {
            let labels = [("operation", operation), ("result", result)];
            metrics.counter("casemate_key_operations_total", help, &labels)
        };
        let of_kind = |(_, operation)| Outcome::ALL.map(|(_, result)| counter(operation, result));
        let refusals = "Refused releases, by the code of the denial.";
        let ready = "Keys that were made ahead and wait in memory.";
        Self {
            operations: Kind::ALL.map(of_kind),
            release_refusals: CountersByCode::new(metrics, "casemate_key_release_refusals_total", refusals),
            ready_keys: metrics.gauge("casemate_ready_keys", ready, &[]),
        }
    }

    /// One more; a refused release by its code as well.
    pub fn ended<T>(&self, kind: Kind, result: &Result<T, AppError>) {
        let outcome = Outcome::of(result);
        let outcome = Outcome::ALL.into_iter().position(|(other, _)| other == outcome);
        let row = Kind::ALL.into_iter().position(|(other, _)| other == kind);
        let counters = row.and_then(|row| self.operations.get(row));
        if let Some(counter) = counters.zip(outcome).and_then(|(counters, outcome)| counters.get(outcome)) {
            counter.increment(1);
        }
        if let (Kind::Release, Err(AppError::Denied(denial))) = (kind, result) {
            self.release_refusals.count(&denial.code);
        }
    }

    /// So many keys are ready.
    pub fn ready(&self, keys: u32) {
        self.ready_keys.set(keys);
    }
}
