//! The vendor's shared library, and the token in it.
//!
//! `cryptoki` loads the library and calls it; this crate has no unsafe code of its own for that. What runs is the vendor's
//! code in this process: the path in the configuration is trusted as the program itself is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::slot::{Slot, TokenInfo};

use super::error::{Doing as _, HsmError};

/// C_Initialize is once a process, whoever asks.
static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// Loads a module, or gives the one that is loaded.
pub fn load(path: &Path) -> Result<Pkcs11, HsmError> {
    let failed = |source| HsmError::Module { path: path.to_owned(), source };
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(failed)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(error)),
    }
    loaded.insert(path.to_owned(), module.clone());
    Ok(module)
}

/// The slot whose token has this label or serial number.
pub fn slot(module: &Pkcs11, wanted: &str) -> Result<(Slot, TokenInfo), HsmError> {
    let slots = module.get_slots_with_token().doing("list its slots")?;
    let tokens = slots.into_iter().filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)));
    let is_wanted = |info: &TokenInfo| {
        info.token_initialized()
            && (info.label().trim_end() == wanted || info.serial_number().trim_end() == wanted)
    };
    let mut tokens: Vec<_> = tokens.filter(|(_, info)| is_wanted(info)).collect();
    match (tokens.pop(), tokens.len()) {
        (Some(token), 0) => Ok(token),
        (Some(_), others) => Err(HsmError::ManyTokens { wanted: wanted.to_owned(), count: others + 1 }),
        (None, _) => Err(HsmError::NoToken(wanted.to_owned())),
    }
}
