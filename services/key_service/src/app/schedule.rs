//! When a key is renewed: reading a rotation policy, and what is due of it. Pure: the time is an argument.
//!
//! Source: Azure documentation, "Configure cryptographic key auto-rotation in Azure Key Vault": a version lives at least
//! 28 days, and nothing happens within 7 days of its beginning or its end.

use jiff::fmt::temporal::SpanParser;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use public_api::key_rotation::{KeyRotationPolicy, LifetimeAction, LifetimeActionType, LifetimeTrigger};

use super::AppError;

const DAY: i64 = 86_400;
const MIN_LIFETIME: i64 = 28 * DAY;
const MIN_DISTANCE: i64 = 7 * DAY;
const MAX_TEXT: usize = 64;

#[derive(Clone, Copy)]
enum Trigger {
    AfterCreate(Span),
    BeforeExpiry(Span),
}

/// A checked policy.
#[derive(Clone, Copy, Default)]
pub struct Schedule {
    rotate: Option<Trigger>,
    notify: Option<Trigger>,
    lifetime: Option<Span>,
}

/// What is due for a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// A new version is to be made.
    pub rotate: bool,
    /// The coming end is to be told.
    pub notify: bool,
}

impl Schedule {
    /// Reads a policy; errors name the field. `now` is the time from which calendar durations are measured.
    pub fn parse(policy: &KeyRotationPolicy, now: i64) -> Result<Self, AppError> {
        let expiry = policy.attributes.expiry_time.as_deref();
        let lifetime = expiry.map(|text| span("attributes.expiryTime", text)).transpose()?;
        let length = lifetime.map(|span| Ok::<_, AppError>(after(now, span)? - now)).transpose()?;
        if length.is_some_and(|length| length < MIN_LIFETIME) {
            return Err(AppError::bad("attributes.expiryTime", "expected 28 days at least"));
        }
        let mut schedule = Self { lifetime, ..Self::default() };
        for (number, action) in policy.lifetime_actions.iter().enumerate() {
            let path = format!("lifetimeActions[{number}]");
            let trigger = trigger(&path, &action.trigger)?;
            let slot = match kind(&action.action.kind) {
                Some("Rotate") => {
                    distances(&path, trigger, length, now)?;
                    &mut schedule.rotate
                }
                Some(_) => &mut schedule.notify,
                None => {
                    return Err(AppError::bad(format!("{path}.action.type"), "expected Rotate or Notify"));
                }
            };
            if slot.replace(trigger).is_some() {
                let text = "there is one action of each type at most";
                return Err(AppError::bad(format!("{path}.action.type"), text));
            }
        }
        Ok(schedule)
    }

    /// What is due at `now` for a version of this age.
    pub fn due(&self, created: i64, expires: Option<i64>, now: i64) -> Due {
        let reached = |trigger: Option<Trigger>| match (trigger, expires) {
            (Some(Trigger::AfterCreate(span)), _) => after(created, span).is_ok_and(|at| at <= now),
            (Some(Trigger::BeforeExpiry(span)), Some(end)) => after(end, -span).is_ok_and(|at| at <= now),
            (Some(Trigger::BeforeExpiry(_)) | None, _) => false,
        };
        Due { rotate: reached(self.rotate), notify: reached(self.notify) }
    }

    /// When a version that is made at `now` expires.
    pub fn expires(&self, now: i64) -> Option<i64> {
        self.lifetime.and_then(|span| after(now, span).ok())
    }
}

/// The policy of a key that has none of its own, as Key Vault answers it.
pub fn default_policy() -> KeyRotationPolicy {
    let trigger =
        LifetimeTrigger { time_before_expiry: Some("P30D".to_owned()), ..LifetimeTrigger::default() };
    let action = LifetimeActionType { kind: "Notify".to_owned() };
    KeyRotationPolicy {
        lifetime_actions: vec![LifetimeAction { trigger, action }],
        ..KeyRotationPolicy::default()
    }
}

/// The usual spelling of an action's type.
pub fn kind(text: &str) -> Option<&'static str> {
    ["Rotate", "Notify"].into_iter().find(|kind| kind.eq_ignore_ascii_case(text))
}

fn trigger(path: &str, trigger: &LifetimeTrigger) -> Result<Trigger, AppError> {
    match (trigger.time_after_create.as_deref(), trigger.time_before_expiry.as_deref()) {
        (Some(text), None) => {
            span(&format!("{path}.trigger.timeAfterCreate"), text).map(Trigger::AfterCreate)
        }
        (None, Some(text)) => {
            span(&format!("{path}.trigger.timeBeforeExpiry"), text).map(Trigger::BeforeExpiry)
        }
        _ => Err(AppError::bad(
            format!("{path}.trigger"),
            "expected one of timeAfterCreate and timeBeforeExpiry",
        )),
    }
}

/// A rotation keeps its distance from the beginning and the end of a version.
fn distances(path: &str, trigger: Trigger, lifetime: Option<i64>, now: i64) -> Result<(), AppError> {
    let bad = |text: &str| Err(AppError::bad(format!("{path}.trigger"), text));
    let (from_start, to_end) = match (trigger, lifetime) {
        (Trigger::AfterCreate(span), lifetime) => {
            let from_start = after(now, span)? - now;
            (Some(from_start), lifetime.map(|lifetime| lifetime - from_start))
        }
        (Trigger::BeforeExpiry(span), Some(lifetime)) => {
            let to_end = after(now, span)? - now;
            (Some(lifetime - to_end), Some(to_end))
        }
        (Trigger::BeforeExpiry(_), None) => return bad("timeBeforeExpiry needs attributes.expiryTime"),
    };
    if from_start.is_some_and(|distance| distance < MIN_DISTANCE) {
        return bad("a key is rotated 7 days after its creation at the earliest");
    }
    if to_end.is_some_and(|distance| distance < MIN_DISTANCE) {
        return bad("a key is rotated 7 days before its expiry at the latest");
    }
    Ok(())
}

/// An ISO 8601 duration, in calendar units and positive.
fn span(target: &str, text: &str) -> Result<Span, AppError> {
    let wrong = || AppError::bad(target, "expected an ISO 8601 duration, for example P90D or P1Y6M");
    if text.len() > MAX_TEXT || !text.starts_with('P') {
        return Err(wrong());
    }
    let span = SpanParser::new().parse_span(text).map_err(|_| wrong())?;
    if span.is_positive() { Ok(span) } else { Err(wrong()) }
}

fn after(from: i64, span: Span) -> Result<i64, AppError> {
    let far = |_| AppError::bad("lifetimeActions", "a duration leads beyond the calendar");
    let from = Timestamp::from_second(from).map_err(far)?.to_zoned_datetime(TimeZone::UTC);
    Ok(from.checked_add(span).map_err(far)?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn policy(text: &str) -> KeyRotationPolicy {
        serde_json::from_str(text).unwrap()
    }

    fn refused(text: &str) -> String {
        match Schedule::parse(&policy(text), NOW).err() {
            Some(AppError::BadParameter { target, .. }) => target,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn actions(trigger: &str, kind: &str, expiry: &str) -> String {
        format!(
            r#"{{"lifetimeActions":[{{"trigger":{trigger},"action":{{"type":"{kind}"}}}}],"attributes":{{{expiry}}}}}"#
        )
    }

    #[test]
    fn policies_that_cannot_be() {
        let (after, before) = (r#"{"timeAfterCreate":"P30D"}"#, r#"{"timeBeforeExpiry":"P30D"}"#);
        let both = r#"{"timeAfterCreate":"P30D","timeBeforeExpiry":"P30D"}"#;
        let cases = [
            (actions("{}", "Rotate", ""), "lifetimeActions[0].trigger"),
            (actions(both, "Rotate", ""), "lifetimeActions[0].trigger"),
            (actions(before, "Rotate", ""), "lifetimeActions[0].trigger"),
            (actions(after, "Renew", ""), "lifetimeActions[0].action.type"),
            (actions(after, "Rotate", r#""expiryTime":"P27D""#), "attributes.expiryTime"),
            (actions(after, "Rotate", r#""expiryTime":"P36D""#), "lifetimeActions[0].trigger"),
            (actions(before, "Rotate", r#""expiryTime":"P36D""#), "lifetimeActions[0].trigger"),
            (actions(r#"{"timeAfterCreate":"P6D"}"#, "rotate", ""), "lifetimeActions[0].trigger"),
        ];
        for (text, target) in cases {
            assert_eq!(refused(&text), target, "{text}");
        }
        for duration in ["", "P", "30D", "P30", "-P30D", "P0D", "30 days", "P99999999Y", "P30D ", "p30d"] {
            let text = actions(&format!(r#"{{"timeAfterCreate":"{duration}"}}"#), "Rotate", "");
            assert!(refused(&text).starts_with("lifetimeActions"), "{duration:?}");
        }
        let action = r#"{"trigger":{"timeAfterCreate":"P30D"},"action":{"type":"Rotate"}}"#;
        let twice = format!(r#"{{"lifetimeActions":[{action},{action}]}}"#);
        assert_eq!(refused(&twice), "lifetimeActions[1].action.type");
    }

    #[test]
    fn what_is_due_when() {
        let text = r#"{"lifetimeActions":[
            {"trigger":{"timeAfterCreate":"P1M"},"action":{"type":"rotate"}},
            {"trigger":{"timeBeforeExpiry":"P10D"},"action":{"type":"NOTIFY"}}],"attributes":{"expiryTime":"P2M"}}"#;
        let schedule = Schedule::parse(&policy(text), NOW).unwrap();
        // 15 January 2027; a month later is 15 February, two are 15 March.
        assert_eq!(schedule.expires(NOW), Some(NOW + (31 + 28) * DAY));
        let due = |days: i64, expires| schedule.due(NOW, expires, NOW + days * DAY);
        assert_eq!(due(30, None), Due::default());
        assert_eq!(due(31, None), Due { rotate: true, notify: false });
        assert_eq!(due(20, Some(NOW + 30 * DAY)), Due { rotate: false, notify: true });
        assert_eq!(due(19, Some(NOW + 30 * DAY)), Due::default());
        assert_eq!(Schedule::default().due(NOW, Some(NOW), NOW + 999 * DAY), Due::default());
        Schedule::parse(&default_policy(), NOW).unwrap();
    }

    proptest! {
        #[test]
        fn any_duration_is_read_or_refused(text: String, digits in "P[0-9]{0,12}[YMWD][0-9TYMWDHS.]{0,8}", now in 0..4_000_000_000_i64) {
            for text in [text, digits] {
                if let Ok(span) = span("x", &text) {
                    let _ = after(now, span).and_then(|at| after(at, -span));
                }
            }
        }
    }
}
