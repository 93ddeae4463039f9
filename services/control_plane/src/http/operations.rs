//! Asynchronous operations: the status (`Azure-AsyncOperation`) and, with `monitor=true`, the result (`Location`).

use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::response::Response;

use super::{App, Call, reply};
use crate::app::encryption_sets;
use crate::app::names::{DES, VM};
use crate::app::operations::{Outcome, failure_refusal, look_up, status_body};
use crate::app::refusal::{Kind, Refusal};
use crate::app::views::{self, Hosts};
use crate::store::{OperationRow, Resource, Verb};

/// `GET .../operations/{id}`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    let id = call.parameter("operation");
    let found = look_up(&app, call.parameter("sub"), id).await?;
    let Some((operation, outcome, resource)) = found else {
        let message = format!("The operation '{id}' was not found.");
        return Err(Refusal::new(Kind::NotFound, "NotFound", message));
    };
    let monitor = call.query("monitor").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if monitor {
        return result(&app, &call, &operation, &outcome, resource.as_ref()).await;
    }
    let mut response = reply::ok(&status_body(&operation, &outcome));
    if outcome == Outcome::InProgress {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// 202 while it runs, the resource or nothing when it is done, an error when it failed.
async fn result(
    app: &App,
    call: &Call,
    operation: &OperationRow,
    outcome: &Outcome,
    resource: Option<&Resource>,
) -> Result<Response, Refusal> {
    match (outcome, operation.verb, resource) {
        (Outcome::InProgress, ..) => {
            let begun = crate::app::operations::Begun {
                id: operation.id.clone(),
                subscription: operation.subscription.clone(),
            };
            Ok(reply::accepted(app, call, &begun))
        }
        (Outcome::Failed(failure), ..) => Err(failure_refusal(&failure.failure)),
        (Outcome::Canceled, ..) => {
            let message = "The operation was preempted by the deletion of the resource.";
            Err(Refusal::new(Kind::Conflict, "OperationPreempted", message))
        }
        (Outcome::Succeeded, Verb::Delete, _) => Ok(reply::empty(StatusCode::NO_CONTENT)),
        (Outcome::Succeeded, Verb::Write, Some(resource)) if resource.kind == VM => {
            let vm = app.store.vm(&resource.key).await?;
            let hosts = Hosts::read(app).await?;
            Ok(vm.map_or_else(
                || reply::empty(StatusCode::NO_CONTENT),
                |vm| reply::ok(&views::vm(&vm, &hosts, false)),
            ))
        }
        (Outcome::Succeeded, Verb::Write, Some(resource)) if resource.kind == DES => {
            Ok(reply::ok(&encryption_sets::view(app, resource, &app.store.vms().await?)))
        }
        (Outcome::Succeeded, ..) => Ok(reply::empty(StatusCode::OK)),
    }
}
