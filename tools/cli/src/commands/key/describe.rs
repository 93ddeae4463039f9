//! Keys as people read them.

use anyhow::Result;
use public_api::keys::{KeyBundle, KeyItem, KeyListResult};
use serde_json::json;

use super::{Name, Vault, versioned};
use crate::printer::Printer;

/// A key's public part and what it may do.
pub fn show(bundle: &KeyBundle, printer: &Printer) -> Result<()> {
    let policy =
        bundle.release_policy.as_ref().map(|policy| String::from_utf8_lossy(&policy.data).into_owned());
    let tags: Vec<String> = bundle.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let attributes = &bundle.attributes;
    let facts = [
        ("id", bundle.key.kid.clone().unwrap_or_default()),
        ("type", bundle.key.kty.clone()),
        ("enabled", flag(attributes.enabled)),
        ("not before", date(attributes.nbf)),
        ("expires", date(attributes.exp)),
        ("operations", bundle.key.key_ops.join(", ")),
        ("tags", if tags.is_empty() { "none".to_owned() } else { tags.join(", ") }),
        ("exportable", attributes.exportable.unwrap_or(false).to_string()),
        ("release policy", policy.unwrap_or_else(|| "none".to_owned())),
    ];
    printer.facts(&serde_json::to_value(bundle)?, &facts);
    Ok(())
}

/// Every key, page by page.
pub async fn list(deleted: bool, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let mut items: Vec<KeyItem> = Vec::new();
    let mut next = Some(versioned(if deleted { "/deletedkeys" } else { "/keys" }));
    while let Some(page) = next {
        let answer: KeyListResult = vault.0.get(&page).await?;
        items.extend(answer.value);
        next = answer.next_link;
    }
    if deleted {
        let head = ["key", "deleted", "gone after"];
        printer.result(&json!({"value": items}), &head, items.iter().map(deleted_row).collect());
        return Ok(());
    }
    let row = |item: &KeyItem| vec![item.kid.clone(), flag(item.attributes.enabled)];
    printer.result(&json!({"value": items}), &["key", "enabled"], items.iter().map(row).collect());
    Ok(())
}

fn deleted_row(item: &KeyItem) -> Vec<String> {
    let deletion = item.deletion.as_ref();
    let purge = deletion.map(|deletion| deletion.scheduled_purge_date);
    vec![item.kid.clone(), date(deletion.map(|deletion| deletion.deleted_date)), date(purge)]
}

/// Every version, the oldest first.
pub async fn versions(name: &Name, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let answer: KeyListResult = vault.get(&name.path("/versions")).await?;
    let row = |item: &KeyItem| {
        let attributes = &item.attributes;
        vec![item.kid.clone(), flag(attributes.enabled), date(attributes.created), date(attributes.exp)]
    };
    let rows = answer.value.iter().map(row).collect();
    printer.result(&json!({"value": answer.value}), &["version", "enabled", "made", "expires"], rows);
    Ok(())
}

fn flag(flag: Option<bool>) -> String {
    flag.unwrap_or(false).to_string()
}

fn date(seconds: Option<i64>) -> String {
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
