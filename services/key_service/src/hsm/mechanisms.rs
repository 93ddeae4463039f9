//! What a token can do, read from the token: C_GetMechanismList and C_GetMechanismInfo (PKCS#11 v2.40, section 5.5).
//!
//! Every operation asks here first, so that what a token cannot do is refused by the mechanism's name and is never done
//! in software with a key that was taken out for it.

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::{MechanismInfo, MechanismType};
use cryptoki::slot::Slot;

use super::error::{Doing as _, HsmError};

/// What a mechanism is wanted for: the flags of CK_MECHANISM_INFO that this service needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Making a secret key.
    Generate,
    /// Making a key pair.
    GeneratePair,
    /// Signing.
    Sign,
    /// Encrypting.
    Encrypt,
    /// Decrypting.
    Decrypt,
    /// Wrapping a key.
    Wrap,
    /// Unwrapping a key.
    Unwrap,
}

impl Purpose {
    fn is_met_by(self, info: &MechanismInfo) -> bool {
        match self {
            Purpose::Generate => info.generate(),
            Purpose::GeneratePair => info.generate_key_pair(),
            Purpose::Sign => info.sign(),
            Purpose::Encrypt => info.encrypt(),
            Purpose::Decrypt => info.decrypt(),
            Purpose::Wrap => info.wrap(),
            Purpose::Unwrap => info.unwrap(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Purpose::Generate | Purpose::GeneratePair => "making keys",
            Purpose::Sign => "signing",
            Purpose::Encrypt => "encrypting",
            Purpose::Decrypt => "decrypting",
            Purpose::Wrap => "wrapping keys",
            Purpose::Unwrap => "unwrapping keys",
        }
    }
}

/// The table of one token.
pub struct Mechanisms(Vec<(MechanismType, MechanismInfo)>);

impl Mechanisms {
    /// Reads the table. Mechanisms that the library does not know by name are left out: none of them is used.
    pub fn read(module: &Pkcs11, slot: Slot) -> Result<Self, HsmError> {
        let names = module.get_mechanism_list(slot).doing("list its mechanisms")?;
        let mut table = Vec::with_capacity(names.len());
        for name in names {
            table.push((name, module.get_mechanism_info(slot, name).doing("describe a mechanism")?));
        }
        Ok(Self(table))
    }

    /// Whether the token has a mechanism for a purpose.
    pub fn has(&self, mechanism: MechanismType, purpose: Purpose) -> bool {
        self.0.iter().any(|(name, info)| *name == mechanism && purpose.is_met_by(info))
    }

    /// The refusal that names the mechanism, if the token has it not.
    pub fn require(&self, mechanism: MechanismType, purpose: Purpose) -> Result<(), HsmError> {
        if self.has(mechanism, purpose) {
            return Ok(());
        }
        Err(HsmError::unsupported(mechanism, purpose.name()))
    }

    /// The same, for a key of so many bits.
    pub fn require_size(
        &self,
        mechanism: MechanismType,
        purpose: Purpose,
        bits: usize,
    ) -> Result<(), HsmError> {
        self.require(mechanism, purpose)?;
        let fits = |info: &MechanismInfo| (info.min_key_size()..=info.max_key_size()).contains(&bits);
        if self.0.iter().any(|(name, info)| *name == mechanism && fits(info)) {
            return Ok(());
        }
        Err(HsmError::unsupported(mechanism, "a key of this size"))
    }
}
