//! What both faces of this program do, the commands and the socket: evidence, tokens, keys.

use std::path::PathBuf;

use public_api::encoding::to_base64url;
use serde_json::{Value, json};

use crate::azure_guest;
use crate::evidence::Evidence;
use crate::failure::Failure;
use crate::http::Client;
use crate::release::{self, Released};
use crate::token;
use crate::tpm::Device;

/// Where everything is.
#[derive(Clone, Debug, clap::Args)]
pub struct Surroundings {
    /// The TPM.
    #[arg(long, global = true, default_value = crate::tpm::DEVICE, value_name = "DEVICE")]
    tpm: PathBuf,
    /// The metadata service.
    #[arg(long, global = true, default_value = crate::evidence::METADATA_URL, value_name = "URL")]
    metadata_url: String,
    /// The attestation service.
    #[arg(long, global = true, env = "CASEMATE_ATTESTATION_URL", value_name = "URL")]
    attestation_url: Option<String>,
    /// PEM file with the authority of the services; the system's certificates without it.
    #[arg(long, global = true, env = "CASEMATE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the bearer token for the key service.
    #[arg(long, global = true, env = "CASEMATE_BEARER_FILE", value_name = "FILE")]
    bearer_file: Option<PathBuf>,
}

/// Which kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The report and what it binds.
    SevSnpVm,
    /// The same, with the TPM's quote and the event log, sealed to a key of this boot.
    AzureGuest,
}

impl Surroundings {
    fn device(&self) -> Result<Device, Failure> {
        Device::open(&self.tpm)
    }

    fn client(&self) -> Result<Client, Failure> {
        Client::new(self.ca.as_deref())
    }

    fn service(&self) -> Result<&str, Failure> {
        self.attestation_url.as_deref().ok_or_else(|| {
            let hint = "--attestation-url URL, or CASEMATE_ATTESTATION_URL";
            Failure::you("no attestation service is named", hint)
        })
    }

    /// Collects evidence.
    ///
    /// # Errors
    /// See [`Evidence::collect`].
    pub fn evidence(&self, user_data: Option<&[u8; 64]>) -> Result<Evidence, Failure> {
        Evidence::collect(&mut self.device()?, &self.metadata_url, user_data)
    }

    /// Gets a token.
    ///
    /// # Errors
    /// The service's refusal, and everything that can go wrong before.
    pub fn token(&self, kind: TokenKind, nonce: Option<&str>) -> Result<String, Failure> {
        let (service, client, mut tpm) = (self.service()?, self.client()?, self.device()?);
        let evidence = Evidence::collect(&mut tpm, &self.metadata_url, None)?;
        match kind {
            TokenKind::SevSnpVm => token::sev_snp_vm(&client, service, &evidence, nonce),
            TokenKind::AzureGuest => {
                let (token, key) = azure_guest::attest(&mut tpm, &client, service, &evidence, nonce)?;
                key.flush(&mut tpm);
                Ok(token)
            }
        }
    }

    /// Gets a key of the key service.
    ///
    /// # Errors
    /// The services' refusals, and everything that can go wrong before.
    pub fn release(&self, key: &str) -> Result<Released, Failure> {
        let (service, client, mut tpm) = (self.service()?, self.client()?, self.device()?);
        let bearer = self.bearer_file.as_deref().map(std::fs::read_to_string).transpose();
        let bearer = bearer.map_err(|error| {
            Failure::you("reading the bearer token", "--bearer-file FILE, readable").because(error)
        })?;
        let evidence = Evidence::collect(&mut tpm, &self.metadata_url, None)?;
        let (token, wrapping) = azure_guest::attest(&mut tpm, &client, service, &evidence, None)?;
        let bearer = bearer.as_deref().map(str::trim);
        let released = release::release(&mut tpm, &client, key, bearer, token, &wrapping);
        wrapping.flush(&mut tpm);
        released
    }
}

/// User data for a report from hex: up to 64 bytes, filled up with zeros.
///
/// # Errors
/// Other text.
pub fn user_data(text: &str) -> Result<[u8; 64], Failure> {
    let wrong =
        || Failure::you("user data is up to 64 bytes in hex", "for example the hash of what you bind");
    let bytes = hex::decode(text).map_err(|_| wrong())?;
    let mut data = [0; 64];
    data.get_mut(..bytes.len()).ok_or_else(wrong)?.copy_from_slice(&bytes);
    Ok(data)
}

/// A released key for programs.
pub fn shown(released: &Released) -> Value {
    json!({ "kid": released.kid, "kty": released.kty, "key": to_base64url(&released.key) })
}
