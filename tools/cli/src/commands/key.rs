//! `casemate key`: keys of the key service, public parts only.

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use public_api::keys::{KeyAttributes, KeyBundle, KeyCreateParameters, KeyReleasePolicy};
use serde_json::json;

use crate::printer::Printer;
use crate::profile::Profile;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All keys.
    List,
    /// One key: its id, its policy, whether it may be released.
    Show {
        /// The key's name.
        name: String,
    },
    /// A customer key for confidential disks: exportable, released only to VMs that attest.
    Create {
        /// The key's name.
        name: String,
        /// RSA modulus in bits.
        #[arg(long, default_value_t = 3072)]
        size: u32,
    },
}

/// Runs the command.
pub async fn run(command: Command, data_dir: &Path, printer: &Printer) -> Result<()> {
    let profile = Profile::load(data_dir)?;
    let keys = profile.key_client().await?;
    match command {
        Command::List => {
            let answer: serde_json::Value = keys.0.get("/keys?api-version=7.4").await?;
            let items = answer["value"].as_array().cloned().unwrap_or_default();
            let row = |item: &serde_json::Value| {
                vec![crate::arm::text(&item["kid"]), crate::arm::text(&item["attributes"]["enabled"])]
            };
            printer.result(&answer, &["key", "enabled"], items.iter().map(row).collect());
        }
        Command::Show { name } => show(&keys.key(&name, "").await?, printer)?,
        Command::Create { name, size } => {
            let bundle = keys.create(&name, &customer_key(&profile, size)?).await?;
            show(&bundle, printer)?;
        }
    }
    Ok(())
}

/// A key as Azure's documentation wants it for confidential disks: RSA-HSM, exportable, wrapKey and unwrapKey.
fn customer_key(profile: &Profile, size: u32) -> Result<KeyCreateParameters> {
    let attributes = KeyAttributes { exportable: Some(true), ..KeyAttributes::default() };
    Ok(KeyCreateParameters {
        kty: "RSA-HSM".to_owned(),
        key_size: Some(size),
        public_exponent: None,
        key_ops: vec!["wrapKey".to_owned(), "unwrapKey".to_owned()],
        attributes: Some(attributes),
        tags: std::collections::BTreeMap::new(),
        release_policy: Some(KeyReleasePolicy {
            content_type: None,
            data: serde_json::to_vec(&release_policy(profile))?,
            immutable: false,
        }),
        crv: None,
    })
}

/// The default policy for confidential VMs; on a development installation it says so in a condition of its own.
fn release_policy(profile: &Profile) -> serde_json::Value {
    let mut conditions = vec![
        json!({"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"}),
        json!({"claim": "x-casemate-nonce-source", "equals": "server"}),
    ];
    if profile.development_root.is_some() {
        conditions.push(json!({"claim": "x-casemate-trust-root", "equals": "development"}));
    }
    json!({"version": "1.0.0", "anyOf": [{"authority": profile.attestation, "allOf": conditions}]})
}

fn show(bundle: &KeyBundle, printer: &Printer) -> Result<()> {
    let policy =
        bundle.release_policy.as_ref().map(|policy| String::from_utf8_lossy(&policy.data).into_owned());
    let facts = [
        ("id", bundle.key.kid.clone().unwrap_or_default()),
        ("type", bundle.key.kty.clone()),
        ("operations", bundle.key.key_ops.join(", ")),
        ("exportable", bundle.attributes.exportable.unwrap_or(false).to_string()),
        ("release policy", policy.unwrap_or_else(|| "none".to_owned())),
    ];
    printer.facts(&serde_json::to_value(bundle)?, &facts);
    Ok(())
}
