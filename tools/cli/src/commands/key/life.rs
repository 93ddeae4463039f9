//! `casemate key update`, `delete`, `recover`, `purge` and `rotate`.

use anyhow::Result;
use clap::Args;
use public_api::keys::{DeletedKeyBundle, KeyBundle, KeyUpdateParameters, SUCCESSOR_TAG};
use reqwest::Method;
use serde_json::json;

use super::make::Properties;
use super::{Name, Target, Vault, describe, versioned};
use crate::failure::Failure;
use crate::printer::Printer;

/// `update`: what is not given stays as it is.
#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    target: Target,
    /// The version answers again.
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// The version answers no operation.
    #[arg(long)]
    disable: bool,
    /// No tags any more.
    #[arg(long, conflicts_with = "tags")]
    clear_tags: bool,
    #[command(flatten)]
    properties: Properties,
}

impl Update {
    fn parameters(&self) -> Result<KeyUpdateParameters> {
        let properties = &self.properties;
        let enabled = (self.enable || self.disable).then_some(self.enable);
        let tags = (self.clear_tags || !properties.tags.is_empty()).then(|| properties.tags());
        let parameters = KeyUpdateParameters {
            key_ops: (!properties.ops.is_empty()).then(|| properties.ops.clone()),
            attributes: properties.attributes(enabled, None),
            tags,
            release_policy: properties.policy()?,
        };
        if parameters == KeyUpdateParameters::default() {
            let hint =
                "give what shall be otherwise, for example --disable; `casemate key update --help` lists it";
            return Err(Failure::you("there is nothing to change", hint));
        }
        Ok(parameters)
    }
}

/// Changes a version.
pub async fn update(update: &Update, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let parameters = update.parameters()?;
    let bundle: KeyBundle = vault.send(Method::PATCH, &update.target.path(""), &parameters).await?;
    describe::show(&bundle, printer)
}

/// `let-follow`.
#[derive(Debug, Args)]
pub struct LetFollow {
    #[command(flatten)]
    target: Target,
    /// URL of the key that may follow, with a version or without; nothing takes the consent back.
    #[arg(long, value_name = "URL")]
    successor: Option<String>,
}

/// Names the key that may follow a version, beside the version's other tags.
pub async fn let_follow(follow: &LetFollow, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let bundle: KeyBundle = vault.get(&follow.target.path("")).await?;
    let mut tags = bundle.tags;
    match &follow.successor {
        Some(url) => drop(tags.insert(SUCCESSOR_TAG.to_owned(), url.clone())),
        None => drop(tags.remove(SUCCESSOR_TAG)),
    }
    let parameters = KeyUpdateParameters { tags: Some(tags), ..KeyUpdateParameters::default() };
    let bundle: KeyBundle = vault.send(Method::PATCH, &follow.target.path(""), &parameters).await?;
    describe::show(&bundle, printer)
}

/// Deletes a key.
pub async fn delete(name: &Name, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let deleted: DeletedKeyBundle = vault.ask(Method::DELETE, &name.path("")).await?;
    let until = jiff::Timestamp::from_second(deleted.deletion.scheduled_purge_date)?;
    let facts =
        [("id", deleted.bundle.key.kid.clone().unwrap_or_default()), ("gone after", until.to_string())];
    printer.facts(&serde_json::to_value(&deleted)?, &facts);
    printer.note(&format!("`casemate key recover {}` brings it back until then", name.name));
    Ok(())
}

/// A deleted key is live again.
pub async fn recover(name: &Name, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let bundle: KeyBundle = vault.ask(Method::POST, &format!("{}/recover", name.deleted())).await?;
    describe::show(&bundle, printer)
}

/// Destroys a deleted key.
pub async fn purge(name: &Name, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    vault.0.send(Method::DELETE, &versioned(&name.deleted()), None).await?;
    printer.facts(&json!({"name": name.name, "purged": true}), &[("purged", name.name.clone())]);
    Ok(())
}

/// A new version.
pub async fn rotate(name: &Name, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let bundle: KeyBundle = vault.ask(Method::POST, &name.path("/rotate")).await?;
    describe::show(&bundle, printer)
}
