//! The host agent's points in the fault plan. Tests within one process have a plan of their own.

#[cfg(test)]
use std::sync::{Mutex, PoisonError};

/// Where to crash.
#[derive(Default)]
pub struct CrashPlan {
    /// The point at which the task crashes, once, in tests within one process.
    #[cfg(test)]
    panics_at: Mutex<Option<String>>,
}

impl CrashPlan {
    /// Tells the plan that `point` is reached.
    pub fn reach(&self, point: &str) {
        #[cfg(test)]
        self.panic_at(point);
        fault_plan::reach("host-agent", point);
    }

    #[cfg(test)]
    fn panic_at(&self, point: &str) {
        let mut planned = self.panics_at.lock().unwrap_or_else(PoisonError::into_inner);
        if planned.as_deref() == Some(point) {
            *planned = None;
            drop(planned);
            panic!("crashed by plan");
        }
    }

    /// A crash of the task that reaches `point`, for tests within one process.
    #[cfg(test)]
    pub fn panicking(point: Option<&str>) -> Self {
        Self { panics_at: Mutex::new(point.map(str::to_owned)) }
    }

    /// Whether the planned crash has happened, or none was planned.
    #[cfg(test)]
    pub fn spent(&self) -> bool {
        self.panics_at.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}
