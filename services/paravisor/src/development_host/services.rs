//! The attestation service and the key service over HTTPS, under the trust bundle that HOST_DATA binds.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use public_api::attestation::AttestSevSnpVmRequest;
use public_api::attestation_keys::AttestationKeyCertificateRequest;
use public_api::client::{AttestationClient, ClientError, Connection, KeyClient};
use public_api::keys::KeyReleaseParameters;
use tokio::runtime::{Builder, Runtime};

use crate::failure::Stop;
use crate::flow::launch::{Launch, malformed};
use crate::flow::world::Services;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Both services.
pub struct HttpServices {
    runtime: Mutex<Runtime>,
    attestation: AttestationClient,
    vault: Connection,
    key_path: String,
    release_token: PathBuf,
}

impl HttpServices {
    /// Clients for the services that the launch document names. The bearer token is read anew before each release.
    pub fn new(launch: &Launch, release_token: PathBuf) -> Result<Self, Stop> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Stop::io("starting the HTTP client", &error))?;
        let document = &launch.document;
        let at = document.key_id.find("/keys/").ok_or_else(|| malformed("keyId", "it is no key's URL"))?;
        let (vault, path) = document.key_id.split_at(at);
        let connect = |base: &str| Connection::new(base, &launch.trust_bundle, TIMEOUT);
        Ok(Self {
            runtime: Mutex::new(runtime),
            attestation: AttestationClient(connect(&document.attestation_url)?),
            vault: connect(vault)?,
            key_path: path.to_owned(),
            release_token,
        })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, Stop> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(runtime.block_on(work)?)
    }
}

impl Services for HttpServices {
    fn nonce(&self) -> Result<String, Stop> {
        self.wait(self.attestation.nonce()).map(|answer| answer.nonce)
    }

    fn attest(&self, request: &AttestSevSnpVmRequest) -> Result<String, Stop> {
        self.wait(self.attestation.attest_sev_snp_vm(request)).map(|answer| answer.token)
    }

    fn certify_attestation_key(&self, request: &AttestationKeyCertificateRequest) -> Result<Vec<u8>, Stop> {
        self.wait(self.attestation.certify_attestation_key(request)).map(|answer| answer.certificate)
    }

    fn release(&self, parameters: &KeyReleaseParameters) -> Result<String, Stop> {
        let token = std::fs::read_to_string(&self.release_token);
        let token = token.map_err(|error| Stop::io("reading the release token", &error))?;
        let client = KeyClient(self.vault.clone().with_bearer(token.trim()));
        self.wait(client.release(&self.key_path, parameters)).map(|answer| answer.value)
    }
}
