//! `casemate key rotation-policy`: when a key gets a new version by itself. Durations are ISO 8601, for example P90D.

use anyhow::Result;
use clap::{Args, Subcommand};
use public_api::key_rotation::{
    KeyRotationPolicy, LifetimeAction, LifetimeActionType, LifetimeTrigger, RotationPolicyAttributes,
};
use reqwest::Method;

use super::{Name, Vault};
use crate::printer::Printer;

/// What to do with the policy.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The policy of a key.
    Show(Name),
    /// Another policy, in place of the one before.
    Set(Set),
}

/// `set`
#[derive(Debug, Args)]
pub struct Set {
    #[command(flatten)]
    key: Name,
    /// Renew a version so long after it was made.
    #[arg(long, value_name = "DURATION", conflicts_with = "rotate_before_expiry")]
    rotate_after: Option<String>,
    /// Renew a version so long before it expires.
    #[arg(long, value_name = "DURATION")]
    rotate_before_expiry: Option<String>,
    /// Write the coming end of a version to the log so long before it.
    #[arg(long, value_name = "DURATION")]
    notify_before_expiry: Option<String>,
    /// New versions expire so long after they were made.
    #[arg(long, value_name = "DURATION")]
    expire_after: Option<String>,
}

impl Set {
    fn policy(&self) -> KeyRotationPolicy {
        let after = self.rotate_after.clone().map(|time| action("Rotate", Some(time), None));
        let before = self.rotate_before_expiry.clone().map(|time| action("Rotate", None, Some(time)));
        let notify = self.notify_before_expiry.clone().map(|time| action("Notify", None, Some(time)));
        KeyRotationPolicy {
            id: None,
            lifetime_actions: [after, before, notify].into_iter().flatten().collect(),
            attributes: RotationPolicyAttributes {
                expiry_time: self.expire_after.clone(),
                ..RotationPolicyAttributes::default()
            },
        }
    }
}

fn action(
    kind: &str,
    time_after_create: Option<String>,
    time_before_expiry: Option<String>,
) -> LifetimeAction {
    let trigger = LifetimeTrigger { time_after_create, time_before_expiry };
    LifetimeAction { trigger, action: LifetimeActionType { kind: kind.to_owned() } }
}

/// Runs the command.
pub async fn run(command: &Command, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let policy: KeyRotationPolicy = match command {
        Command::Show(name) => vault.get(&name.path("/rotationpolicy")).await?,
        Command::Set(set) => vault.send(Method::PUT, &set.key.path("/rotationpolicy"), &set.policy()).await?,
    };
    let mut facts: Vec<(&str, String)> = policy.lifetime_actions.iter().map(fact).collect();
    let expiry = policy.attributes.expiry_time.clone().unwrap_or_else(|| "never".to_owned());
    facts.push(("new versions expire after", expiry));
    printer.facts(&serde_json::to_value(&policy)?, &facts);
    Ok(())
}

fn fact(action: &LifetimeAction) -> (&'static str, String) {
    let (name, time) = match (&action.trigger.time_after_create, &action.trigger.time_before_expiry) {
        (Some(after), _) => ("after it was made", after.clone()),
        (None, before) => ("before it expires", before.clone().unwrap_or_default()),
    };
    (name, format!("{time}: {}", action.action.kind))
}
