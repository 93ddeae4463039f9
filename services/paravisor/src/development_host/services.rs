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
    vault: (String, Connection),
    trust_bundle: String,
    release_token: PathBuf,
}

impl HttpServices {
    /// Clients for the services that the launch document names. The bearer token is read anew before each release.
    pub fn new(launch: &Launch, release_token: PathBuf) -> Result<Self, Stop> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Stop::io("starting the HTTP client", &error))?;
        let document = &launch.document;
        let (vault, _) = vault_and_path(&document.key_id)?;
        let connect = |base: &str| Connection::new(base, &launch.trust_bundle, TIMEOUT);
        Ok(Self {
            runtime: Mutex::new(runtime),
            attestation: AttestationClient(connect(&document.attestation_url)?),
            vault: (vault.to_owned(), connect(vault)?),
            trust_bundle: launch.trust_bundle.clone(),
            release_token,
        })
    }

    fn vault(&self, base: &str) -> Result<Connection, Stop> {
        let (known, connection) = &self.vault;
        if known == base {
            return Ok(connection.clone());
        }
        Ok(Connection::new(base, &self.trust_bundle, TIMEOUT)?)
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

    fn release(&self, key_id: &str, parameters: &KeyReleaseParameters) -> Result<String, Stop> {
        let (vault, path) = vault_and_path(key_id)?;
        let token = std::fs::read_to_string(&self.release_token);
        let token = token.map_err(|error| Stop::io("reading the release token", &error))?;
        let client = KeyClient(self.vault(vault)?.with_bearer(token.trim()));
        self.wait(client.release(path, parameters)).map(|answer| answer.value)
    }
}

/// The vault's base URL and the key's path in it.
fn vault_and_path(key_id: &str) -> Result<(&str, &str), Stop> {
    let at = key_id.find("/keys/").ok_or_else(|| malformed("keyId", "it is no key's URL"))?;
    Ok(key_id.split_at(at))
}
