//! `GET /log?after=N`: the decision log, up to 500 entries a page.

use axum::Json;
use axum::extract::{Request, State};
use http_service::routes::Query;
use http_service::{Operation, Route};
use public_api::decision_log::Entry;

use super::keys::{Answer, Routes, Shared, with};
use super::request::number;
use crate::store::decisions;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

/// The routes of this file.
pub fn routes() -> Routes {
    let after = Query {
        name: "after",
        kind: "integer",
        required: false,
        description: "The number of the last entry that is known; 0 for none.",
    };
    let operation = Operation::new("listDecisions", "Service", "Up to 500 entries of the decision log.")
        .access(with(Permission::Log))
        .query(after)
        .answers::<Vec<Entry>>()
        .errors(&[400]);
    vec![Route::get("/log", entries, operation)]
}

async fn entries(caller: Caller, State(state): Shared, request: Request) -> Answer<Vec<Entry>> {
    state.permit(&caller, Permission::Log, On::Vault("log")).await?;
    let (parts, _) = request.into_parts();
    let after = number(&parts, "after")?.unwrap_or(0);
    Ok(Json(decisions::after(state.store.readers(), after).await?))
}
