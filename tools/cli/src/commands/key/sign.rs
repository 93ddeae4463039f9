//! `casemate key sign` and `verify`: over a digest, or over a file that is hashed here. The file does not leave this machine.

use std::path::PathBuf;

use anyhow::Result;
use aws_lc_rs::digest;
use clap::Args;
use public_api::encoding::to_base64url;
use public_api::key_operations::{
    KeyOperationResult, KeySignParameters, KeyVerifyParameters, KeyVerifyResult,
};

use super::value::{Bytes, base64};
use super::{Target, Vault, make};
use crate::failure::Failure;
use crate::printer::Printer;

/// What is signed.
#[derive(Debug, Args)]
pub struct Message {
    #[command(flatten)]
    target: Target,
    /// RS256 to RS512, PS256 to PS512, ES256, ES384, ES512, ES256K.
    #[arg(long)]
    alg: String,
    /// The digest, base64.
    #[arg(long, value_name = "BASE64", value_parser = base64, allow_hyphen_values = true, conflicts_with = "file")]
    digest: Option<Bytes>,
    /// A file, whose digest is meant.
    #[arg(long, value_name = "FILE", required_unless_present = "digest")]
    file: Option<PathBuf>,
}

/// `sign`
#[derive(Debug, Args)]
pub struct Sign {
    #[command(flatten)]
    message: Message,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    message: Message,
    /// The signature, base64.
    #[arg(long, value_name = "BASE64", value_parser = base64, allow_hyphen_values = true)]
    signature: Bytes,
}

impl Message {
    fn digest(&self) -> Result<Vec<u8>> {
        match (&self.digest, &self.file) {
            (Some(Bytes(digest)), _) => Ok(digest.clone()),
            (None, Some(file)) => {
                Ok(digest::digest(hash_of(&self.alg)?, &make::read(file)?).as_ref().to_vec())
            }
            (None, None) => Err(Failure::you("there is nothing to sign", "give --file or --digest")),
        }
    }
}

/// The hash of a signature algorithm: the number in its name (RFC 7518 section 3.1).
fn hash_of(alg: &str) -> Result<&'static digest::Algorithm> {
    match alg.get(2..5) {
        Some("256") => Ok(&digest::SHA256),
        Some("384") => Ok(&digest::SHA384),
        Some("512") => Ok(&digest::SHA512),
        _ => Err(Failure::you(
            format!("{alg:?} is no signature algorithm"),
            "expected RS256 to RS512, PS256 to PS512, ES256, ES384, ES512 or ES256K",
        )),
    }
}

/// Signs.
pub async fn sign(sign: &Sign, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let message = &sign.message;
    let parameters = KeySignParameters { alg: message.alg.clone(), value: message.digest()? };
    let result: KeyOperationResult = vault.post(&message.target.path("sign"), &parameters).await?;
    let facts = [("key", result.kid.clone()), ("signature", to_base64url(&result.value))];
    printer.facts(&serde_json::to_value(&result)?, &facts);
    Ok(())
}

/// Verifies; a signature that does not hold is a refusal.
pub async fn verify(verify: &Verify, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let (message, Bytes(signature)) = (&verify.message, &verify.signature);
    let (alg, digest, value) = (message.alg.clone(), message.digest()?, signature.clone());
    let parameters = KeyVerifyParameters { alg, digest, value };
    let result: KeyVerifyResult = vault.post(&message.target.path("verify"), &parameters).await?;
    if !result.value {
        let hint = "compare the key's version, the algorithm and the file with those of the signature";
        return Err(Failure::refused("the signature does not hold", hint));
    }
    printer.facts(&serde_json::to_value(result)?, &[("signature", "holds".to_owned())]);
    Ok(())
}
