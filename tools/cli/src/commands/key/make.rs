//! `casemate key create` and `import`, and what is said about a key when it is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use public_api::keys::{KeyAttributes, KeyBundle, KeyCreateParameters, KeyReleasePolicy};
use reqwest::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Name, Vault, describe};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// What is said about a key that is made or changed.
#[derive(Debug, Args)]
pub struct Properties {
    /// Operations that it permits, for example `sign,verify`; those of its type if not given.
    #[arg(long, value_delimiter = ',', value_name = "OPERATION")]
    pub ops: Vec<String>,
    /// From when it may be used (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub not_before: Option<i64>,
    /// Until when it may be used (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub expires: Option<i64>,
    /// A label, `name=value`; may be repeated.
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    pub tags: Vec<(String, String)>,
    /// File with the release policy (JSON): it makes the key exportable.
    #[arg(long, value_name = "FILE")]
    pub release_policy: Option<PathBuf>,
    /// The release policy can never be replaced.
    #[arg(long, requires = "release_policy")]
    pub immutable: bool,
}

/// `create`
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    key: Name,
    /// RSA, RSA-HSM, EC, EC-HSM, oct or oct-HSM. Without it, the key is one for confidential disks.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Bits of an RSA modulus (2048, 3072, 4096) or of a symmetric key (128, 192, 256).
    #[arg(long)]
    size: Option<u32>,
    /// P-256, P-384, P-521 or P-256K.
    #[arg(long, requires = "kind")]
    curve: Option<String>,
    /// The key answers no operation until it is enabled.
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    properties: Properties,
}

/// `import`
#[derive(Debug, Args)]
pub struct Import {
    #[command(flatten)]
    key: Name,
    /// The private key as JSON Web Key (RFC 7517).
    file: PathBuf,
    /// It becomes one of the kinds that end in -HSM, which exportable keys are.
    #[arg(long)]
    hsm: bool,
    #[command(flatten)]
    properties: Properties,
}

impl Properties {
    /// The attributes; nothing if none is given.
    pub fn attributes(&self, enabled: Option<bool>, exportable: Option<bool>) -> Option<KeyAttributes> {
        let (nbf, exp) = (self.not_before, self.expires);
        let attributes = KeyAttributes { enabled, nbf, exp, exportable, ..KeyAttributes::default() };
        (attributes != KeyAttributes::default()).then_some(attributes)
    }

    /// The labels.
    pub fn tags(&self) -> BTreeMap<String, String> {
        self.tags.iter().cloned().collect()
    }

    /// The release policy of the file.
    pub fn policy(&self) -> Result<Option<KeyReleasePolicy>> {
        let Some(file) = &self.release_policy else { return Ok(None) };
        let document: Value = read_json(file, "a release policy is JSON with `version` and `anyOf`")?;
        Ok(Some(KeyReleasePolicy {
            content_type: None,
            data: serde_json::to_vec(&document)?,
            immutable: self.immutable,
        }))
    }

    fn exportable(&self) -> Option<bool> {
        self.release_policy.as_ref().map(|_| true)
    }
}

/// Makes a key.
pub async fn create(create: &Create, profile: &Profile, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let properties = &create.properties;
    let enabled = create.disabled.then_some(false);
    let mut parameters = KeyCreateParameters {
        kty: create.kind.clone().unwrap_or_default(),
        key_size: create.size,
        public_exponent: None,
        key_ops: properties.ops.clone(),
        attributes: properties.attributes(enabled, properties.exportable()),
        tags: properties.tags(),
        release_policy: properties.policy()?,
        crv: create.curve.clone(),
    };
    if create.kind.is_none() {
        for_disks(&mut parameters, profile)?;
    }
    let bundle: KeyBundle = vault.post(&create.key.path("/create"), &parameters).await?;
    describe::show(&bundle, printer)
}

/// A key as Azure's documentation wants it for confidential disks: RSA-HSM, exportable, wrapKey and unwrapKey.
fn for_disks(parameters: &mut KeyCreateParameters, profile: &Profile) -> Result<()> {
    "RSA-HSM".clone_into(&mut parameters.kty);
    parameters.key_size.get_or_insert(3072);
    if parameters.key_ops.is_empty() {
        parameters.key_ops = vec!["wrapKey".to_owned(), "unwrapKey".to_owned()];
    }
    parameters.attributes.get_or_insert_default().exportable = Some(true);
    if parameters.release_policy.is_none() {
        let data = serde_json::to_vec(&release_policy(profile))?;
        parameters.release_policy = Some(KeyReleasePolicy { content_type: None, data, immutable: false });
    }
    Ok(())
}

/// The default policy for confidential VMs; on a development installation it says so in a condition of its own.
fn release_policy(profile: &Profile) -> Value {
    let mut conditions = vec![
        json!({"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"}),
        json!({"claim": "x-casemate-nonce-source", "equals": "server"}),
    ];
    if profile.development_root.is_some() {
        conditions.push(json!({"claim": "x-casemate-trust-root", "equals": "development"}));
    }
    json!({"version": "1.0.0", "anyOf": [{"authority": profile.attestation, "allOf": conditions}]})
}

/// Imports a key.
pub async fn import(import: &Import, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let mut jwk: Value = read_json(&import.file, "expected a private JSON Web Key (RFC 7517)")?;
    let properties = &import.properties;
    if !properties.ops.is_empty() {
        jwk["key_ops"] = json!(properties.ops);
    }
    let mut body = json!({"key": jwk, "tags": properties.tags()});
    if import.hsm {
        body["Hsm"] = json!(true);
    }
    if let Some(attributes) = properties.attributes(None, properties.exportable()) {
        body["attributes"] = serde_json::to_value(attributes)?;
    }
    if let Some(policy) = properties.policy()? {
        body["release_policy"] = serde_json::to_value(policy)?;
    }
    let bundle: KeyBundle = vault.send(Method::PUT, &import.key.path(""), &body).await?;
    describe::show(&bundle, printer)
}

/// A JSON object that the user named.
fn read_json(path: &Path, hint: &str) -> Result<Value> {
    let text = Zeroizing::new(read(path)?);
    match serde_json::from_slice(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Failure::you(format!("{} holds no JSON object", path.display()), hint)),
        Err(error) => Err(Failure::you(format!("{} is no JSON: {error}", path.display()), hint)),
    }
}

/// The bytes of a file that the user named.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Failure::you(format!("{} cannot be read: {error}", path.display()), "name a file that exists")
    })
}

fn time(text: &str) -> Result<i64, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| "expected a time such as 2027-01-31T00:00:00Z".to_owned())?;
    Ok(time.as_second())
}

fn tag(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(name, _)| !name.is_empty());
    split.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or("expected name=value".to_owned())
}
