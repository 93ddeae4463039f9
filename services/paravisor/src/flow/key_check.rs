//! Whether a running VM may still have its key: when to ask again, and when a refusal ends the VM.
//!
//! The tenant revokes by disabling or deleting the key, or by a policy that the VM no longer meets. Only an answer of the key
//! service that says so counts; silence, a fault, or a refusal for another reason stops no VM. (An operator who cuts the VM off from the
//! key service can thus keep it running, as it runs; it cannot start again.)

use std::time::Duration;

use internal_api::launch::KeyCheck;
use internal_api::paravisor::Failure;

use crate::failure::Stop;

/// Refusals that the key's owner decided on.
const REVOKED: [&str; 4] = ["KeyDisabled", "KeyNotFound", "KeyNotExportable", "ReleasePolicyNotMet"];

/// What the key service said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The VM may have its key.
    Granted,
    /// It may not.
    Revoked(Failure),
    /// Nothing that tells.
    Silent,
}

impl Answer {
    /// From what came of asking.
    pub fn of<T>(asked: Result<T, Stop>) -> Self {
        match asked.map_err(Failure::from) {
            Ok(_) => Self::Granted,
            Err(failure) if REVOKED.contains(&failure.code.as_str()) => Self::Revoked(failure),
            Err(failure) => {
                tracing::warn!(
                    code = failure.code,
                    actual = failure.actual,
                    "the key could not be asked for again"
                );
                Self::Silent
            }
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask again after this time.
    Ask(Duration),
    /// End the VM.
    End(Failure),
}

/// What was heard so far.
#[derive(Debug)]
pub struct Watch {
    check: KeyCheck,
    refused_at: Option<Duration>,
}

impl Watch {
    /// A watch over a VM that has just got its key.
    pub fn new(check: KeyCheck) -> Self {
        Self { check, refused_at: None }
    }

    /// How long after a start is asked first.
    pub fn first(&self) -> Duration {
        self.interval()
    }

    /// Takes an answer in; `now` is a time on a clock that only goes forward. Also whether the VM's standing has changed.
    pub fn heard(&mut self, answer: Answer, now: Duration) -> (Next, bool) {
        let before = self.refused_at;
        let next = match answer {
            Answer::Granted => {
                self.refused_at = None;
                Next::Ask(self.interval())
            }
            Answer::Silent => Next::Ask(self.interval()),
            Answer::Revoked(failure) => {
                let since = now.saturating_sub(*self.refused_at.get_or_insert(now));
                match self.grace().checked_sub(since).filter(|left| !left.is_zero()) {
                    Some(left) => Next::Ask(self.interval().min(left)),
                    None => Next::End(failure),
                }
            }
        };
        (next, before.is_some() != self.refused_at.is_some())
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(self.check.interval_seconds.max(1).into())
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.check.grace_seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: KeyCheck = KeyCheck { interval_seconds: 100, grace_seconds: 30 };

    fn stop(code: &str) -> Stop {
        Stop::refused(code, "key", "enabled", "disabled", "rule", "remedy")
    }

    fn revoked() -> Answer {
        Answer::of::<()>(Err(stop("KeyDisabled")))
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The seconds until the next question at each answer; `None` where the VM ends.
    fn course(check: KeyCheck, answers: &[(u64, Answer)]) -> Vec<Option<u64>> {
        let mut watch = Watch::new(check);
        let next = |(at, answer): &(u64, Answer)| match watch.heard(answer.clone(), secs(*at)).0 {
            Next::Ask(after) => Some(after.as_secs()),
            Next::End(failure) => {
                assert_eq!(failure.code, "KeyDisabled");
                None
            }
        };
        answers.iter().map(next).collect()
    }

    #[test]
    fn a_refusal_ends_the_vm_after_the_grace_and_not_before() {
        let courses = [
            (vec![(100, Answer::Granted), (200, Answer::Granted)], vec![Some(100), Some(100)]),
            (vec![(100, revoked()), (110, revoked()), (130, revoked())], vec![Some(30), Some(20), None]),
            (
                vec![(100, revoked()), (129, Answer::Granted), (130, revoked())],
                vec![Some(30), Some(100), Some(30)],
            ),
            (vec![(100, Answer::Silent), (9000, Answer::Silent)], vec![Some(100), Some(100)]),
            // Silence ends nothing, even after a refusal; the refusal after it does.
            (
                vec![(100, revoked()), (130, Answer::Silent), (230, revoked())],
                vec![Some(30), Some(100), None],
            ),
        ];
        for (answers, expected) in courses {
            assert_eq!(course(CHECK, &answers), expected, "{answers:?}");
        }
        let at_once = KeyCheck { interval_seconds: 0, grace_seconds: 0 };
        assert_eq!(course(at_once, &[(1, Answer::Granted), (2, revoked())]), [Some(1), None]);
    }

    #[test]
    fn only_what_the_owner_decided_is_a_revocation() {
        for code in REVOKED {
            assert!(matches!(Answer::of::<()>(Err(stop(code))), Answer::Revoked(_)), "{code}");
        }
        for code in [
            "ServiceUnreachable",
            "ServiceFailed",
            "ServiceRefused",
            "RollbackRefused",
            "TokenReplayed",
            "ReleaseUnusable",
        ] {
            assert_eq!(Answer::of::<()>(Err(stop(code))), Answer::Silent, "{code}");
        }
        assert_eq!(Answer::of(Ok(())), Answer::Granted);
    }

    #[test]
    fn a_change_of_standing_is_told_once() {
        let mut watch = Watch::new(CHECK);
        let answers =
            [Answer::Granted, revoked(), revoked(), Answer::Silent, Answer::Granted, Answer::Granted];
        let changed: Vec<bool> =
            answers.into_iter().zip(0..).map(|(answer, at)| watch.heard(answer, secs(at)).1).collect();
        assert_eq!(changed, [false, true, false, false, true, false]);
    }
}
