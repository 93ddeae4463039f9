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
//! Without `[hsm]` a key of an `-HSM` type lies as any other: sealed under the master key. The suffix is then the label that
//! Key Vault's rules need (exportable keys have it). With `[hsm]` it is a promise: the key is made in the token, used in the
//! token, and leaves it by a release only (module `hsm`); `hsmPlatform` of its attributes says what the token is. GCM's nonce is always the vault's own. Outside
//! of `nbf` and `exp` a key decrypts, unwraps, verifies and is released, and does nothing else. An imported key is refused
//! if its members do not belong together, or if it is weak (`crypto::import` says what that means).
//!
//! A backup opens in the vault that made it and nowhere else, not even in another vault of the same subscription (Azure lets
//! it there): a key never leaves its vault but by a release. It brings back policies as they were when it was
//! made, but never a generation: that of a purged key is remembered apart. Only a reset puts one back, by a call of its own.
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
//! A guest state that was restored from a backup is older than the last one released, and is refused. A Crypto Officer, and
//! nobody who may only release, can put the newest generation back from what it is to what the restored state has, in one
//! transaction with its log entry ([`app::reset`] says what that permits).
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
//! # Vaults
//!
//! One vault is at `public_url`. With `[vaults]` there are others in the same process, each at `{name}.{domain}` and with a
//! database, sealing key, decision log, signing identity, limits and access list of its own ([`vaults`]). The control plane
//! makes them, with the role *Casemate Vault Operator*, which sees no key.
//!
//! # Who may
//!
//! In the default vault the app roles of the bearer token decide:
//!
//! | app role | may |
//! |---|---|
//! | `Key Vault Crypto Officer` | everything but release and named vaults |
//! | `Key Vault Crypto User` | read, use, random bytes |
//! | `Key Vault Crypto Service Release User` | release |
//! | `Monitoring Reader` | metrics, from another machine |
//! | `Casemate Vault Operator` | make, change and remove named vaults; no key |
//!
//! In a named vault app roles mean nothing. Its tokens are of its tenant (`iss` and `tid`), and a role assignment or an access
//! policy names their `oid`. The roles are Azure's built-in ones with their data actions (`public_api::key_roles`), at the
//! vault's scope or at one key's. *Limit:* whoever holds the operator's role, and so the control plane, decides who is
//! assigned; each such change is in the vault's own decision log before it holds.
//!
//! # At rest
//!
//! One SQLite file (WAL, `synchronous = FULL`) for one service, or a schema of a PostgreSQL database (15 or later,
//! `synchronous_commit = on`) for any number of them: each write transaction takes one lock first, so that all services
//! append to one decision log, and what one has answered every other one knows. A database that is away costs 503s, not the
//! process; a commit whose answer was lost is never taken for done. Each private key is sealed with AES-256-GCM under the master key, and
//! bound to its name, version, type, exportability and release policy: who can write to the database but has no
//! master key can neither exchange keys nor give one another policy. The master key comes from one of five places
//! (`[master_key]` below); a database knows its id and opens under no other. A named vault has a file of its own,
//! `vaults/{name}.{id}/keys.sqlite`, and seals under a key derived from the master key and that random id (HKDF-SHA256), so
//! that no row of one vault opens in another. *Limit:* who can put the whole database
//! back to an older state also puts generations and used tokens back; keep it where the host of the VMs cannot write.
//! Two keys of 3072 bits are made ahead and wait in memory, never at rest; each is given out once. A key that is used
//! stays opened in memory until nobody used it for five minutes, or it is deleted.
//!
//! A key in the token is a sealed reference here, bound like a sealed key: who can write to the database can neither swap
//! references nor give one another policy. The bytes of a key that the token made are never in this process; those of a key
//! that is imported, or that a vault moves in with, are there until they are wrapped for the token. A backup of
//! one key refuses such a key; what order keeps token and database together stands in [`app::custody`].
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
//! file = "/etc/casemate/keys-master.key"   # 64 hex characters, mode 0600
//! create = true                     # make it if there is neither key nor database
//! # In place of `file` one of these four. The wrapped key lies in `wrapped_file`.
//! # environment = "CASEMATE_KEYS_MASTER"   # the variable holds the hex characters
//! # credential = "keys-master"             # systemd's LoadCredential= or LoadCredentialEncrypted=
//! # passphrase_file = "/run/keys/passphrase"   # or passphrase_environment, passphrase_credential: Argon2id
//! # tpm = "/dev/tpmrm0"                    # sealed to this machine's TPM ...
//! # pcrs = [0, 7]                          # ... and, if given, to these PCRs of the SHA-256 bank
//! # wrapped_file = "/etc/casemate/keys-master.wrapped"
//!
//! [database]                        # may be left out: then a SQLite file in data_dir
//! url = "postgres://casemate_keys@db.internal.example/casemate"
//! schema = "casemate_keys"          # one vault; made if it is missing
//! password_file = "/etc/casemate/keys-database.password"
//! ca = "/etc/casemate/database-ca.pem"  # needed unless the server is on this machine
//!
//! [hsm]                             # may be left out: a token of a hardware security module (PKCS#11)
//! module = "/usr/lib/softhsm/libsofthsm2.so"
//! token = "casemate"                # its label or serial number
//! pin_file = "/etc/casemate/hsm.pin"   # mode 0600
//! all_keys = false                  # true: every new key lives there, and not only those of -HSM types
//! sessions = 4
//! timeout_seconds = 20
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
//! [vaults]                          # may be left out: then there is one vault, at public_url
//! domain = "vault.casemate.test"    # the certificate must have *.vault.casemate.test
//! managed_hsm_domain = "managedhsm.casemate.test"             # may be left out
//! issuer = "https://login.casemate.test:8443/{tenant}/"       # of each tenant's tokens; signed with the keys of [callers]
//! authorization = "https://login.casemate.test:8443/{tenant}"
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
//! Azure's SDKs want `audience` to be the parent domain of `public_url`'s host, with the port (they compare the two). That of
//! named vaults is always `https://{domain}` with the port of `public_url`.
//!
//! # Routes
//!
//! `/keys`, `/keys/{n}[/{v}]` (PUT imports), `/keys/{n}/create`, `.../versions`, `.../backup`, `.../rotate`,
//! `.../rotationpolicy`, `.../generations[/{vmId}]` (ours), `/keys/restore`; `/keys/{n}[/{v}]/` with `encrypt`, `decrypt`, `wrapkey`, `unwrapkey`, `sign`,
//! `verify` and `release`; `/deletedkeys[/{n}[/recover]]`, `/rng`, `/log?after=N`; at the default vault
//! `/casemate/vaults[/{n}]` and `/casemate/deletedvaults[/{n}[/recover]]`; open to all are `/health`,
//! `/health/live`, `/health/ready` and `/openapi.json`, open to the machine's own callers `/metrics`. `/keys/{n}/` and
//! `/keys/{n}//release` mean the newest version, as Azure's clients spell it. Errors are
//! `{"error": {"code", "message", "target", "denial"}}`.
//!
//! # Commands
//!
//! `casemate-keys backup --config FILE --to FILE` copies the database while the service runs; `casemate-keys check
//! --config FILE [--database FILE]` proves that a database is whole; `casemate-keys move --from FILE --to FILE` moves a vault
//! from SQLite to PostgreSQL, or back, and from either into a token; `casemate-keys master-key --from FILE --to FILE` puts the master key where another
//! configuration wants it. See [`command`].

pub mod app;
pub mod check;
pub mod command;
pub mod config;
mod crypto;
mod hsm;
pub mod http;
pub mod reconcile;
mod serve;
mod store;
mod token;
pub mod vaults;

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
