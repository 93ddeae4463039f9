//! Attestation tokens: what a release reads from them. Nothing is read before the signature holds.

use public_api::attestation::{CLAIM_TRUST_ROOT, GuestStateClaim};
use public_api::encoding::from_base64_any;
use public_api::jwk::Jwk;
use serde_json::Value;
use uuid::Uuid;

use crate::crypto::rsa::{self, PublicParts, RsaPadding};
use crate::crypto::wrap::TargetKey;
use token_verifier::{Issuer, TokenError, VerifiedToken, missing, shown};
use token_verifier::{Refusal, refusal};

/// A token releases a key for this long after its issue, in seconds.
pub const MAX_AGE: i64 = 600;
/// Smallest modulus that a key is wrapped to.
const MIN_TARGET_BITS: usize = 2048;
const MAX_TARGET_BITS: usize = 8192;
const MAX_TOKEN_ID: usize = 256;

/// The attestation services whose tokens are believed.
pub struct Authorities(Vec<Issuer>);

impl Authorities {
    /// From the configuration.
    pub fn new(issuers: Vec<Issuer>) -> Self {
        Self(issuers)
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|issuer| issuer.name().to_owned()).collect()
    }

    /// Checks a token at the time `now`.
    pub async fn verify(&self, token: &str, now: i64) -> Result<Evidence, TokenError> {
        Ok(Evidence(token_verifier::verify(&self.0, token, now, Some(MAX_AGE)).await?))
    }
}

/// What kind of root vouched for the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustRoot {
    /// AMD's.
    Amd,
    /// A root of an installation without confidential hardware.
    Development,
}

/// A guest state that a key is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestState {
    /// Upper-case GUID.
    pub vm_id: String,
    /// See `app::generation`.
    pub generation: u64,
}

/// A verified attestation token.
pub struct Evidence(VerifiedToken);

impl Evidence {
    /// The token.
    pub fn token(&self) -> &VerifiedToken {
        &self.0
    }

    /// `jti`: a token without one cannot be used, because its reuse could not be seen.
    pub fn token_id(&self) -> Result<&str, Refusal> {
        let id = self.0.text("jti").filter(|id| (1..=MAX_TOKEN_ID).contains(&id.len()));
        id.ok_or_else(|| missing("jti", "an id of this token, of 1 to 256 bytes"))
    }

    /// Which root vouched. A token that does not say is refused: it could be a development root's.
    pub fn trust_root(&self) -> Result<TrustRoot, Refusal> {
        match self.0.text(CLAIM_TRUST_ROOT) {
            Some("amd") => Ok(TrustRoot::Amd),
            Some("development") => Ok(TrustRoot::Development),
            Some(other) => {
                let rule = "the root of trust is known or the key stays here";
                let remedy = "use an attestation service that this key service knows";
                let expected = "amd or development";
                Err(refusal("TrustRootUnknown", CLAIM_TRUST_ROOT, expected, shown(other), rule, remedy))
            }
            None => Err(missing(CLAIM_TRUST_ROOT, "amd or development")),
        }
    }

    /// The first RSA key in the top-level `x-ms-runtime.keys` that is for encryption.
    ///
    /// Source: Azure documentation, "Secure key release with confidential VMs".
    pub fn target_key(&self) -> Result<TargetKey, Refusal> {
        let keys = self.runtime().and_then(|runtime| runtime.get("keys")).and_then(Value::as_array);
        let keys = keys.map(Vec::as_slice).unwrap_or_default();
        let jwk =
            keys.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok()).find(encrypts);
        let jwk = jwk.ok_or_else(|| no_target("no RSA key for encryption with a key id"))?;
        let target = target(&jwk).ok_or_else(|| no_target("an RSA key that cannot be read"))?;
        let bits = target.key.bits();
        if !(MIN_TARGET_BITS..=MAX_TARGET_BITS).contains(&bits) {
            let rule = "a released key is wrapped to no smaller key (NIST SP 800-57 part 1, section 5.6)";
            let remedy = "make the transfer key with 2048 bits at least, and attest again";
            let expected = format!("{MIN_TARGET_BITS} to {MAX_TARGET_BITS} bits");
            let actual = format!("{bits} bits");
            return Err(refusal("WrapKeyTooSmall", "x-ms-runtime.keys", expected, actual, rule, remedy));
        }
        // Some numbers are found to be no key only when something is encrypted.
        rsa::encrypt(&target.key, RsaPadding::Oaep, &[])
            .map_err(|_| no_target("an RSA key with numbers that are no key"))?;
        Ok(target)
    }

    /// The guest state that the runtime claims name, if they name one.
    pub fn guest_state(&self) -> Result<Option<GuestState>, Refusal> {
        let Some(value) = self.runtime().and_then(|runtime| runtime.get("guest-state")) else {
            return Ok(None);
        };
        let claim: GuestStateClaim =
            serde_json::from_value(value.clone()).map_err(|error| bad_guest_state(&error.to_string()))?;
        let vm_id = guid(&claim.vm_id).ok_or_else(|| bad_guest_state("vm-id is not a GUID"))?;
        let launched = self.launched_vm().ok_or_else(|| missing("x-ms-inittime.vmId", "a GUID"))?;
        if launched != vm_id {
            let rule = "guest state belongs to the VM that was launched (HOST_DATA)";
            let remedy = "present the guest state of this VM";
            let claim = "x-ms-runtime.guest-state.vm-id";
            return Err(refusal("GuestStateOfAnotherVm", claim, launched, vm_id, rule, remedy));
        }
        Ok(Some(GuestState { vm_id, generation: claim.generation }))
    }

    /// `x-ms-inittime.vmId` in its canonical spelling, so that no VM has two records.
    pub fn launched_vm(&self) -> Option<String> {
        guid(self.0.claims().get("x-ms-inittime")?.get("vmId")?.as_str()?)
    }

    fn runtime(&self) -> Option<&Value> {
        self.0.claims().get("x-ms-runtime")
    }
}

fn encrypts(jwk: &Jwk) -> bool {
    let purpose = jwk.use_.as_deref() == Some("enc") || jwk.key_ops.iter().any(|op| op == "encrypt");
    jwk.kty == "RSA" && purpose && jwk.kid.as_deref().is_some_and(|kid| !kid.is_empty())
}

fn target(jwk: &Jwk) -> Option<TargetKey> {
    let number = |text: &Option<String>| {
        let bytes = from_base64_any(text.as_deref()?).ok()?;
        let start = bytes.iter().position(|byte| *byte != 0)?;
        Some(bytes.get(start..)?.to_vec())
    };
    let key = PublicParts { modulus: number(&jwk.n)?, exponent: number(&jwk.e)? };
    Some(TargetKey { kid: jwk.kid.clone()?, key })
}

/// A VM's id in its canonical spelling: a GUID in capitals, with hyphens.
pub(crate) fn guid(text: &str) -> Option<String> {
    let id = Uuid::try_parse(text).ok()?;
    Some(id.hyphenated().to_string().to_uppercase())
}

fn no_target(actual: &str) -> Refusal {
    let rule = "a released key is wrapped to the first RSA encryption key of the top-level x-ms-runtime";
    let remedy =
        "put an RSA key with `kid` and `key_ops: [\"encrypt\"]` into the runtime claims, and attest again";
    refusal("WrapKeyMissing", "x-ms-runtime.keys", "an RSA key for encryption", actual, rule, remedy)
}

fn bad_guest_state(actual: &str) -> Refusal {
    let rule = "runtime claims of a paravisor";
    let remedy = "present the claims as the paravisor made them";
    let expected = "an object with vm-id and generation";
    refusal("ClaimMalformed", "x-ms-runtime.guest-state", expected, shown(actual), rule, remedy)
}
