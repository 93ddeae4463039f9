//! `/health/live` and `/health/ready`: whether the process answers, and whether it can do its work, check by check.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

/// For how long an answer is reused: whoever asks often must not cost much.
const FRESH: Duration = Duration::from_secs(2);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is well.
    Pass,
    /// The service cannot do its work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub status: Outcome,
    /// What was seen, for people.
    pub reason: String,
}

impl Check {
    /// What was seen, or what is wrong.
    pub fn new(name: &'static str, seen: Result<String, String>) -> Self {
        let (status, reason) = match seen {
            Ok(reason) => (Outcome::Pass, reason),
            Err(reason) => (Outcome::Fail, reason),
        };
        Self { name, status, reason }
    }
}

/// All checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Readiness {
    /// Fails if one of the checks does.
    pub status: Outcome,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl From<Vec<Check>> for Readiness {
    fn from(checks: Vec<Check>) -> Self {
        let failed = checks.iter().any(|check| check.status == Outcome::Fail);
        Self { status: if failed { Outcome::Fail } else { Outcome::Pass }, checks }
    }
}

impl Readiness {
    /// 200, or 503 if something failed.
    pub fn into_response(self) -> Response {
        let ready = self.status == Outcome::Pass;
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }
}

/// The last readiness, for as long as it is fresh.
#[derive(Default)]
pub struct LastReadiness(Mutex<Option<(Instant, Readiness)>>);

impl LastReadiness {
    /// The last one, or the result of new checks.
    pub async fn or_check(&self, checks: impl Future<Output = Vec<Check>>) -> Readiness {
        if let Some(fresh) = self.fresh() {
            return fresh;
        }
        let readiness = Readiness::from(checks.await);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), readiness.clone()));
        readiness
    }

    fn fresh(&self) -> Option<Readiness> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, readiness)| readiness.clone())
    }
}

/// The answer of `/health/live`.
pub async fn live() -> Json<Readiness> {
    Json(Readiness::from(Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_failed_check_fails_all_and_is_remembered_for_a_moment() {
        let last = LastReadiness::default();
        let checks = vec![
            Check::new("database", Err("disk full".to_owned())),
            Check::new("key", Ok("there".to_owned())),
        ];
        let first = last.or_check(async { checks }).await;
        assert_eq!(first.status, Outcome::Fail);
        let again = last.or_check(async { panic!("it is fresh") }).await;
        assert_eq!(again, first);
        assert_eq!(first.into_response().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Readiness::from(Vec::new()).into_response().status(), StatusCode::OK);
    }
}
