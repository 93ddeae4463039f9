//! `casemate key encrypt`, `decrypt`, `wrap` and `unwrap`. Values come as base64 or from a file, and go to a file as they
//! are, or to the terminal as base64url.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use public_api::encoding::{from_base64_any, to_base64url};
use public_api::key_operations::{KeyOperationParameters, KeyOperationResult};
use serde_json::json;

use super::backup::write_new;
use super::{Target, Vault, make};
use crate::failure::Failure;
use crate::printer::Printer;

/// Bytes on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// A value and how it is processed.
#[derive(Debug, Args)]
pub struct Cipher {
    #[command(flatten)]
    target: Target,
    /// RSA-OAEP-256, RSA-OAEP, RSA1_5; A256GCM, A256CBC, A256CBCPAD, A256KW and those of 128 and 192 bits.
    #[arg(long)]
    alg: String,
    #[command(flatten)]
    input: Input,
    /// Initialisation vector, base64: for CBC, and to decrypt GCM.
    #[arg(long, value_name = "BASE64", value_parser = base64, allow_hyphen_values = true)]
    iv: Option<Bytes>,
    /// Tag, base64: to decrypt GCM.
    #[arg(long, value_name = "BASE64", value_parser = base64, allow_hyphen_values = true)]
    tag: Option<Bytes>,
    /// What GCM authenticates beside the value, base64.
    #[arg(long, value_name = "BASE64", value_parser = base64, allow_hyphen_values = true)]
    aad: Option<Bytes>,
    /// Write the result to this new file instead of showing it.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Where the value is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Input {
    /// The value, base64.
    #[arg(long, value_name = "BASE64", value_parser = base64, allow_hyphen_values = true)]
    value: Option<Bytes>,
    /// A file with the value as it is.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Input {
    fn bytes(&self) -> Result<Vec<u8>> {
        match (&self.value, &self.file) {
            (Some(Bytes(value)), _) => Ok(value.clone()),
            (None, Some(file)) => make::read(file),
            (None, None) => Err(Failure::you("there is no value", "give --value or --file")),
        }
    }
}

/// Reads base64 in any spelling.
pub fn base64(text: &str) -> Result<Bytes, String> {
    from_base64_any(text).map(Bytes).map_err(|error| error.to_string())
}

/// Runs one operation.
pub async fn run(operation: &str, cipher: &Cipher, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let bytes = |value: &Option<Bytes>| value.as_ref().map(|Bytes(bytes)| bytes.clone());
    let parameters = KeyOperationParameters {
        alg: cipher.alg.clone(),
        value: cipher.input.bytes()?,
        iv: bytes(&cipher.iv),
        aad: bytes(&cipher.aad),
        tag: bytes(&cipher.tag),
    };
    let result: KeyOperationResult = vault.post(&cipher.target.path(operation), &parameters).await?;
    let mut facts = vec![("key", result.kid.clone())];
    let mut value = serde_json::to_value(&result)?;
    match &cipher.to {
        None => facts.push(("value", to_base64url(&result.value))),
        Some(path) => {
            write_new(path, &result.value)?;
            value["value"] = json!(null);
            facts.push(("written to", path.display().to_string()));
        }
    }
    facts.extend(result.iv.as_ref().map(|iv| ("iv", to_base64url(iv))));
    facts.extend(result.tag.as_ref().map(|tag| ("tag", to_base64url(tag))));
    printer.facts(&value, &facts);
    Ok(())
}
