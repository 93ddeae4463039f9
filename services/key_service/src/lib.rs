//! The key service: holds keys, and releases a private key only to a machine that proved what it is.
//!
//! It speaks the keys data plane of Azure Key Vault and Managed HSM, so Azure's clients work against it: keys of every
//! type, made or imported; encrypting, wrapping and signing with them; rotation, backup, soft delete; and *secure key
//! release*. It believes tokens, not reports: what hardware proved is the attestation service's verdict, and this crate
//! knows no report format.
//!
//! # Keys
//!
//! | `kty` | sizes | encrypt, decrypt | wrap, unwrap | sign, verify |
//! |---|---|---|---|---|
//! | `RSA`, `RSA-HSM` | 2048, 3072, 4096 | `RSA1_5`, `RSA-OAEP`, `RSA-OAEP-256` | the same | `RS256` to `RS512`, `PS256` to `PS512` |
//! | `EC`, `EC-HSM` | `P-256`, `P-384`, `P-521`, `P-256K` | - | - | `ES256`, `ES384`, `ES512`, `ES256K` |
//! | `oct`, `oct-HSM` | 128, 192, 256 | `A128GCM`, `A128CBC`, `A128CBCPAD` and so on | `A128KW` and so on | - |
//!
//! On this store a key of an `-HSM` type lies as any other: sealed under the master key. The suffix is the label that Key
//! Vault's rules need (exportable keys have it), not a promise of hardware. GCM's nonce is always the vault's own. Outside
//! of `nbf` and `exp` a key decrypts, unwraps, verifies and is released, and does nothing else. An imported key is refused
//! if its members do not belong together, or if it is weak (`crypto::import` says what that means).
//!
//! A backup opens in the installation that made it and nowhere else. It brings back policies as they were when it was
//! made, but never a generation: that of a purged key is remembered apart.
//!
//! # A release, step by step
//!
//! `POST /keys/{name}/{version}/release` with `{"target": "<attestation token>"}`. Each step can refuse, each refusal
//! is a `public_api::Denial` in the answer (403) and in the decision log:
//!
//! 1. The caller's bearer token has the role *Key Vault Crypto Service Release User*.
//! 2. The key is enabled and exportable.
//! 3. The attestation token is RS256, of a configured issuer, signed by a key that this issuer publishes, within its
//!    times, and not older than ten minutes.
//! 4. The key's release policy accepts its claims (`policy::release`; the wrap takes the `ReleaseDecision`).
//! 5. A development root needs two consents: `allow_development_roots` of this installation, and a policy that
//!    demands `x-casemate-trust-root` to equal `development`. A token that names no root is refused.
//! 6. There is a key to wrap to: the first RSA key for encryption in the token's top-level `x-ms-runtime.keys`, of
//!    2048 bits at least.
//! 7. In one transaction: the token (`jti`) was not used before, and the guest state it names is not older than the
//!    last one released (see [`app::generation`]). The transaction uses the token up, moves the generation on and
//!    writes the log entry; it is on the disk before anything is answered.
//!
//! A request that names a `successor` is answered only if the released key's owner lets that key follow it, with a statement
//! that the released key has signed (see [`app::succession`]); the guest state's generation then goes along.
//!
//! The answer is a JWS, signed by an identity that the service makes at its first start. Its root certificate lies in
//! `release-signing-root.pem` of the data folder, and `/health` shows its SHA-256.
//!
//! # The release policy of a platform key
//!
//! Claims are named by paths with dots between the members. The last condition belongs on development installations
//! only: it is the consent of step 5.
//!
//! ```json
//! {"version": "1.0.0", "anyOf": [{
//!   "authority": "https://attest.example:8444",
//!   "allOf": [
//!     {"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"},
//!     {"claim": "x-casemate-nonce-source", "equals": "server"},
//!     {"claim": "x-ms-inittime.vmId", "equals": "0F5A2C3E-1111-4222-8333-444455556666"},
//!     {"claim": "x-casemate-trust-root", "equals": "development"}
//!   ]
//! }]}
//! ```
//!
//! It goes base64url-encoded into `release_policy.data` of `POST /keys/{name}/create`, beside
//! `"kty": "RSA-HSM"` (Key Vault's rule for exportable RSA keys, `AKV.SKR.1006`) and
//! `"attributes": {"exportable": true}`.
//!
//! # Roles
//!
//! | app role in the bearer token | may |
//! |---|---|
//! | `Key Vault Crypto Officer` | everything but release |
//! | `Key Vault Crypto User` | read, use, random bytes |
//! | `Key Vault Crypto Service Release User` | release |
//! | `Monitoring Reader` | metrics, from another machine |
//!
//! # At rest
//!
//! One SQLite file (WAL, `synchronous = FULL`). Each private key is sealed with AES-256-GCM under the master key, and
//! bound to its name, version, type, exportability and release policy: who can write to the database but has no
//! master key can neither exchange keys nor give one another policy. The master key lies in a file of its own (64 hex
//! characters, mode 0600); a database knows its id and opens under no other. *Limit:* who can put the whole database
//! back to an older state also puts generations and used tokens back; keep it where the host of the VMs cannot write.
//! Two keys of 3072 bits are made ahead and wait in memory, never at rest; each is given out once.
//!
//! # Configuration
//!
//! `casemate-keys --config keys.toml`. Unknown keys are refused, paths are absolute. TLS files are PEM.
//!
//! ```toml
//! listen = "127.0.0.1:8445"
//! public_url = "https://keys.vault.casemate.test:8445"
//! data_dir = "/var/lib/casemate/keys"
//! tls_certificate = "/etc/casemate/keys.pem"
//! tls_key = "/etc/casemate/keys.key"
//! allow_development_roots = false
//!
//! [master_key]
//! file = "/etc/casemate/keys-master.key"
//! create = true                     # make it if there is neither file nor database
//!
//! [recovery]                        # may be left out
//! days = 90                         # 7 to 90; fixed at the first start
//! purge_protection = false          # true is never taken back
//!
//! [callers]                         # who issues bearer tokens
//! issuer = "https://login.casemate.test:8443/tenant/"
//! audience = "https://vault.casemate.test:8445"
//! authorization = "https://login.casemate.test:8443/tenant"
//! jwks_url = "https://login.casemate.test:8443/common/discovery/keys"
//! ca = "/etc/casemate/ca.pem"       # the only certificates trusted for jwks_url
//!
//! [[authority]]                     # an attestation service whose tokens are believed
//! issuer = "https://attest.casemate.test:8444"
//! ca = "/etc/casemate/ca.pem"       # its keys are at {issuer}/certs; jwks_url and jwks_file say otherwise
//!
//! [limits]                          # may be left out: see http_service::Limits
//! requests_per_second = 100
//!
//! [telemetry]                       # may be left out: nothing is exported without
//! otlp_endpoint = "http://127.0.0.1:4318"
//! ```
//!
//! Azure's SDKs want `audience` to be the parent domain of `public_url`'s host, with the port (they compare the two).
//!
//! # Routes
//!
//! `/keys`, `/keys/{n}[/{v}]` (PUT imports), `/keys/{n}/create`, `.../versions`, `.../backup`, `.../rotate`,
//! `.../rotationpolicy`, `/keys/restore`; `/keys/{n}[/{v}]/` with `encrypt`, `decrypt`, `wrapkey`, `unwrapkey`, `sign`,
//! `verify` and `release`; `/deletedkeys[/{n}[/recover]]`, `/rng`, `/log?after=N`; open to all are `/health`,
//! `/health/live`, `/health/ready` and `/openapi.json`, open to the machine's own callers `/metrics`. `/keys/{n}/` and
//! `/keys/{n}//release` mean the newest version, as Azure's clients spell it. Errors are
//! `{"error": {"code", "message", "target", "denial"}}`.
//!
//! # Commands
//!
//! `casemate-keys backup --config FILE --to FILE` copies the database while the service runs; `casemate-keys check
//! --config FILE [--database FILE]` proves that a database is whole. See [`command`].

pub mod app;
pub mod check;
pub mod command;
pub mod config;
mod crypto;
pub mod http;
pub mod reconcile;
mod serve;
mod store;
mod token;

pub use serve::{RunError, run};

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
