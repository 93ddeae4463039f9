//! Keys in a hardware security module, through PKCS#11 (OASIS, v2.40): made there, used there, and out of it only by a
//! release.
//!
//! A key is one token object: CKA_TOKEN, CKA_PRIVATE and CKA_SENSITIVE are true, and CKA_EXTRACTABLE is true for keys with a
//! release policy only. The database holds what is public about it, and a sealed reference to its CKA_ID.
//!
//! What is done where:
//!
//! | | in the token | here |
//! |---|---|---|
//! | making keys, signing digests, AES-GCM, -CBC and -KW, `RSA1_5` and `RSA-OAEP` decryption | all | - |
//! | `RSA-OAEP-256` decryption | all, or the private operation (CKM_RSA_X_509) if its OAEP is SHA-1 only | the padding, in constant time ([`oaep`]) |
//! | encrypting and verifying with RSA and EC keys | - | all: it takes the public part only |
//! | release | wrapping the key (CKM_AES_KEY_WRAP_PAD) | making the key-encryption key, and RSA-OAEP to the guest's key |
//! | import, and a vault that moves in | unwrapping the key | checking it; wrapping it |
//!
//! What a token cannot do is refused by the mechanism's name.

mod error;
mod export;
mod generate;
mod kek;
mod mechanisms;
mod module;
mod oaep;
mod object;
mod pin;
mod pool;
mod private;
mod proof;
mod reference;
mod symmetric;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use cryptoki::error::Error;
use policy::release::ReleaseDecision;
use zeroize::Zeroizing;

use crate::config::HsmConfig;
use crate::crypto::kind::{Family, KeySpec, PublicKey};
use crate::crypto::oct::{CbcPadding, GcmOutput};
use crate::crypto::rsa::RsaPadding;
use crate::crypto::sign::SignatureAlgorithm;

pub use error::HsmError;
pub use object::{Held, KeyId, Label, NewKey, State};
pub use reference::Reference;

use mechanisms::Mechanisms;
use pin::Pin;
use pool::{Pool, Token};

/// How long a check of the token's health may take.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// An open token.
pub struct Hsm {
    pool: Pool,
    platform: String,
}

impl Hsm {
    /// Loads the module, finds the token and logs in. Blocks, for the configured time limit at most.
    pub fn open(config: &HsmConfig) -> Result<Self, HsmError> {
        let pin = Pin::load(&config.pin_file)?;
        let limit = Duration::from_secs(config.timeout_seconds);
        let (token, platform) = within(limit, {
            let (module, name) = (config.module.clone(), config.token.clone());
            move || connect(&module, name, pin)
        })?;
        let pool = Pool::start(Arc::new(token), config.sessions, limit).map_err(no_thread)?;
        let hsm = Self { pool, platform };
        hsm.pool.run(object::probe)?;
        Ok(hsm)
    }

    /// What the token says it is: `hsmPlatform` of its keys.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// Whether the token answers.
    pub fn check(&self) -> Result<(), HsmError> {
        self.pool.run_within(HEALTH_LIMIT, object::probe)
    }

    /// Makes a key. A key whose caller was lost on the way stays with a label that says so.
    pub fn generate(&self, spec: KeySpec, new: NewKey) -> Result<(KeyId, PublicKey), HsmError> {
        self.pool.run_slow(move |connection| generate::generate(connection, spec, &new))
    }

    /// Brings in a key that is wrapped under `kek` (RFC 5649).
    pub fn import(
        &self,
        public: PublicKey,
        new: NewKey,
        kek: Zeroizing<Vec<u8>>,
        wrapped: Vec<u8>,
    ) -> Result<KeyId, HsmError> {
        self.pool.run(move |connection| {
            let id = KeyId::random();
            generate::import(connection, (id, &public), &new, (&kek, &wrapped)).map(|()| id)
        })
    }

    /// The same under an id that is known before, in place of what an earlier try has left under it.
    pub fn import_as(
        &self,
        (id, public): (KeyId, PublicKey),
        new: NewKey,
        kek: Zeroizing<Vec<u8>>,
        wrapped: Vec<u8>,
    ) -> Result<(), HsmError> {
        self.pool.run(move |connection| {
            object::destroy(connection, id)?;
            generate::import(connection, (id, &public), &new, (&kek, &wrapped))
        })
    }

    /// Says how far a key's object got.
    pub fn relabel(&self, id: KeyId, label: Label) -> Result<(), HsmError> {
        self.pool.run(move |connection| object::relabel(connection, id, &label))
    }

    /// Destroys a key's object, if it is there.
    pub fn destroy(&self, id: KeyId) -> Result<(), HsmError> {
        self.pool.run(move |connection| object::destroy(connection, id))
    }

    /// The key objects of `vault`.
    pub fn held(&self, vault: &str) -> Result<Vec<Held>, HsmError> {
        let vault = vault.to_owned();
        self.pool.run(move |connection| object::held(connection, &vault))
    }

    /// Whether the key's object is there, and protected as its row says.
    pub fn holds(&self, id: KeyId, family: Family, extractable: bool) -> Result<(), HsmError> {
        self.pool.run(move |connection| {
            let handle = object::find(connection, id, family)?;
            object::check_protected(connection, handle, id, extractable)
        })
    }

    /// Signs a digest.
    pub fn sign(
        &self,
        id: KeyId,
        algorithm: SignatureAlgorithm,
        digest: Vec<u8>,
    ) -> Result<Vec<u8>, HsmError> {
        self.pool.run(move |connection| private::sign(connection, id, algorithm, &digest))
    }

    /// Decrypts with an RSA key.
    pub fn decrypt(
        &self,
        id: KeyId,
        padding: RsaPadding,
        value: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        self.pool.run(move |connection| private::decrypt(connection, id, padding, &value))
    }

    /// AES-GCM under a new nonce.
    pub fn gcm_encrypt(&self, id: KeyId, value: Vec<u8>, aad: Vec<u8>) -> Result<GcmOutput, HsmError> {
        let value = Zeroizing::new(value);
        self.pool.run(move |connection| symmetric::gcm_encrypt(connection, id, &value, &aad))
    }

    /// AES-GCM: nonce, tag, additional data.
    pub fn gcm_decrypt(
        &self,
        id: KeyId,
        value: Vec<u8>,
        (iv, tag, aad): (Vec<u8>, Vec<u8>, Vec<u8>),
    ) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        self.pool.run(move |connection| symmetric::gcm_decrypt(connection, id, &value, (&iv, &tag, &aad)))
    }

    /// AES-CBC.
    pub fn cbc_encrypt(
        &self,
        id: KeyId,
        padding: CbcPadding,
        value: Vec<u8>,
        iv: Vec<u8>,
    ) -> Result<Vec<u8>, HsmError> {
        let value = Zeroizing::new(value);
        self.pool.run(move |connection| symmetric::cbc_encrypt(connection, id, padding, &value, &iv))
    }

    /// AES-CBC.
    pub fn cbc_decrypt(
        &self,
        id: KeyId,
        padding: CbcPadding,
        value: Vec<u8>,
        iv: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        self.pool.run(move |connection| symmetric::cbc_decrypt(connection, id, padding, &value, &iv))
    }

    /// AES key wrap.
    pub fn wrap(&self, id: KeyId, value: Vec<u8>) -> Result<Vec<u8>, HsmError> {
        let value = Zeroizing::new(value);
        self.pool.run(move |connection| symmetric::wrap(connection, id, &value))
    }

    /// AES key unwrap.
    pub fn unwrap(&self, id: KeyId, value: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        self.pool.run(move |connection| symmetric::unwrap(connection, id, &value))
    }

    /// Wraps a key under `kek` for a release, under a policy's decision.
    pub fn export(
        &self,
        decision: &ReleaseDecision,
        key: (KeyId, Family),
        kek: Zeroizing<Vec<u8>>,
    ) -> Result<Vec<u8>, HsmError> {
        export::wrapped(decision, &self.pool, key, kek)
    }
}

fn connect(path: &Path, name: String, pin: Pin) -> Result<(Token, String), HsmError> {
    let module = module::load(path)?;
    let (slot, info) = module::slot(&module, &name)?;
    let mechanisms = Mechanisms::read(&module, slot)?;
    let platform = format!("{} {}", info.manufacturer_id().trim_end(), info.model().trim_end());
    let (oaep_is_sha1_only, pin_refused) = (AtomicBool::new(false), AtomicBool::new(false));
    Ok((Token { module, name, mechanisms, pin, oaep_is_sha1_only, pin_refused }, platform))
}

/// Does something in a thread that is left behind if it does not end in time.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T, HsmError> + Send + 'static,
) -> Result<T, HsmError> {
    let (tell, told) = sync_channel(1);
    let spawned = thread::Builder::new().name("hsm-open".to_owned()).spawn(move || {
        let _ = tell.send(work());
    });
    spawned.map_err(no_thread)?;
    told.recv_timeout(limit).unwrap_or(Err(HsmError::NoAnswer(limit.as_secs())))
}

fn no_thread(error: std::io::Error) -> HsmError {
    tracing::error!(%error, "a thread for the HSM could not be started");
    HsmError::Token { doing: "get a thread", source: Error::NotSupported }
}

#[cfg(test)]
mod tests;
