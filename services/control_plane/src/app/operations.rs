//! Asynchronous operations: "this resource, that generation". Their status is derived, so nothing can be lost.

use internal_api::paravisor::Failure;
use public_api::Denial;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::{ControlPlane, time_text};
use crate::store::{FailureRow, OperationRow, Resource, Tx, Verb};

/// An operation that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its id.
    pub id: String,
    /// Subscription as written.
    pub subscription: String,
}

/// How an operation stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Being worked on.
    InProgress,
    /// Done.
    Succeeded,
    /// Will not be done.
    Failed(FailureRow),
    /// Overtaken by the resource's deletion.
    Canceled,
}

/// Writes the operation that ends when `resource` reaches `generation`.
pub async fn begin(
    tx: &mut Tx,
    resource: &Resource,
    generation: u64,
    verb: Verb,
    now: i64,
) -> Result<Begun, Refusal> {
    let id = uuid::Uuid::new_v4().to_string();
    let row = OperationRow {
        id: id.clone(),
        subscription: resource.subscription.clone(),
        resource_key: resource.key.clone(),
        incarnation: resource.incarnation.clone(),
        generation,
        verb,
        started_at: now,
    };
    tx.insert_operation(&row).await?;
    Ok(Begun { id, subscription: resource.subscription.clone() })
}

/// Derives an operation's outcome from its resource as it is now, and from what is on record about its generation.
pub fn outcome(
    operation: &OperationRow,
    resource: Option<&Resource>,
    failure: Option<FailureRow>,
) -> Outcome {
    let resource = resource.filter(|resource| resource.incarnation == operation.incarnation);
    match (operation.verb, resource) {
        (Verb::Delete, None) => Outcome::Succeeded,
        (Verb::Delete, Some(_)) => Outcome::InProgress,
        (_, None) => Outcome::Canceled,
        (_, Some(resource)) => match failure {
            Some(failure) => Outcome::Failed(failure),
            None if resource.reached >= operation.generation => Outcome::Succeeded,
            None if resource.deleted => Outcome::Canceled,
            None => Outcome::InProgress,
        },
    }
}

/// An operation with its outcome, if the subscription has it.
pub async fn look_up(
    app: &ControlPlane,
    subscription: &str,
    id: &str,
) -> Result<Option<(OperationRow, Outcome, Option<Resource>)>, Refusal> {
    let found = app.store.operation(&id.to_ascii_lowercase()).await?;
    let Some(operation) = found.filter(|found| found.subscription.eq_ignore_ascii_case(subscription)) else {
        return Ok(None);
    };
    let resource = app.store.resource(&operation.resource_key).await?;
    let failure = app.store.failure(&operation.incarnation, operation.generation).await?;
    let outcome = outcome(&operation, resource.as_ref(), failure);
    Ok(Some((operation, outcome, resource)))
}

/// The status body.
pub fn status_body(operation: &OperationRow, outcome: &Outcome) -> Value {
    let mut body = json!({
        "name": operation.id,
        "status": match outcome {
            Outcome::InProgress => "InProgress",
            Outcome::Succeeded => "Succeeded",
            Outcome::Failed(_) => "Failed",
            Outcome::Canceled => "Canceled",
        },
        "startTime": time_text(operation.started_at),
    });
    match outcome {
        Outcome::InProgress | Outcome::Succeeded => {}
        Outcome::Failed(failure) => {
            body["endTime"] = json!(time_text(failure.at));
            let error = failure_refusal(&failure.failure).body().error;
            body["error"] = serde_json::to_value(error).expect("the type has only string keys");
        }
        Outcome::Canceled => {
            let message = "The operation was preempted by the deletion of the resource.";
            body["error"] = json!({"code": "OperationPreempted", "message": message});
        }
    }
    body
}

/// A failure as an error: one line from its five parts, and the parts themselves.
pub fn failure_refusal(failure: &Failure) -> Refusal {
    let denial = Denial {
        code: failure.code.clone(),
        claim: failure.claim.clone(),
        expected: failure.expected.clone(),
        actual: failure.actual.clone(),
        rule: failure.rule.clone(),
        remedy: failure.remedy.clone(),
    };
    let refusal = Refusal::conflict(&failure.code, failure_message(failure));
    Refusal { denial: Some(Box::new(denial)), ..refusal }
}

/// One line from a failure's parts.
pub fn failure_message(failure: &Failure) -> String {
    format!(
        "{}: expected {}, found {} (rule: {}); {}",
        failure.claim, failure.expected, failure.actual, failure.rule, failure.remedy
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(generation: u64, reached: u64, deleted: bool) -> Resource {
        Resource {
            key: "k".into(),
            id: "K".into(),
            kind: "t".into(),
            subscription: "s".into(),
            group_key: "g".into(),
            name: "n".into(),
            location: "l".into(),
            incarnation: "i".into(),
            desired: json!({}),
            generation,
            reached,
            deleted,
            created_at: 0,
            changed_at: 0,
        }
    }

    fn operation(verb: Verb, generation: u64) -> OperationRow {
        OperationRow {
            id: "o".into(),
            subscription: "s".into(),
            resource_key: "k".into(),
            incarnation: "i".into(),
            generation,
            verb,
            started_at: 0,
        }
    }

    #[test]
    fn an_operation_ends_with_its_generation() {
        let judge = |verb, generation, resource: Option<&Resource>| {
            outcome(&operation(verb, generation), resource, None)
        };
        assert_eq!(judge(Verb::Write, 1, Some(&resource(1, 0, false))), Outcome::InProgress);
        assert_eq!(judge(Verb::Write, 1, Some(&resource(1, 1, false))), Outcome::Succeeded);
        assert_eq!(judge(Verb::Action, 2, Some(&resource(3, 1, false))), Outcome::InProgress);
        assert_eq!(judge(Verb::Action, 2, Some(&resource(3, 3, false))), Outcome::Succeeded);
        assert_eq!(judge(Verb::Action, 2, Some(&resource(3, 1, true))), Outcome::Canceled);
        assert_eq!(judge(Verb::Delete, 2, Some(&resource(2, 1, true))), Outcome::InProgress);
        assert_eq!(judge(Verb::Delete, 2, None), Outcome::Succeeded);
        let reborn = Resource { incarnation: "other".into(), ..resource(1, 1, false) };
        assert_eq!(judge(Verb::Delete, 2, Some(&reborn)), Outcome::Succeeded);
        assert_eq!(judge(Verb::Write, 1, Some(&reborn)), Outcome::Canceled);
    }

    #[test]
    fn a_failed_operation_stays_failed_when_a_later_one_succeeds() {
        let failure = Failure {
            code: "X".into(),
            claim: String::new(),
            expected: String::new(),
            actual: String::new(),
            rule: String::new(),
            remedy: String::new(),
            transient: false,
        };
        let row = FailureRow { generation: 1, failure, at: 0 };
        let ended = outcome(&operation(Verb::Write, 1), Some(&resource(2, 2, false)), Some(row.clone()));
        assert_eq!(ended, Outcome::Failed(row));
    }
}
