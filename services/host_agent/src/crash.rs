//! The fault plan: a named point at which the agent ends without a word, as in a power cut. Crash tests go through all
//! points; without `CASEMATE_HOST_AGENT_CRASH_AT` nothing happens at any.

use std::sync::{Mutex, PoisonError};

const VARIABLE: &str = "CASEMATE_HOST_AGENT_CRASH_AT";

/// Where to crash, once, and how.
pub struct CrashPlan {
    point: Mutex<Option<String>>,
    crash: fn(),
}

impl CrashPlan {
    /// The point that the environment names.
    pub fn from_environment() -> Self {
        let point = std::env::var(VARIABLE).ok();
        if let Some(point) = &point {
            tracing::warn!(point, "{VARIABLE} is set: this agent will crash there");
        }
        Self { point: Mutex::new(point), crash: || std::process::abort() }
    }

    /// Tells the plan that `point` is reached.
    pub fn reach(&self, point: &str) {
        let mut planned = self.point.lock().unwrap_or_else(PoisonError::into_inner);
        if planned.as_deref() == Some(point) {
            *planned = None;
            drop(planned);
            (self.crash)();
        }
    }

    /// A crash of the task that reaches `point`, for tests within one process.
    #[cfg(test)]
    pub fn panicking(point: Option<&str>) -> Self {
        Self { point: Mutex::new(point.map(str::to_owned)), crash: || panic!("crashed by plan") }
    }

    /// Whether the planned crash has happened, or none was planned.
    #[cfg(test)]
    pub fn spent(&self) -> bool {
        self.point.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}
