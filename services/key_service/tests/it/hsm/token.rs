//! What the token holds, asked of the token itself by who has the PIN.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

use crate::support::softhsm::{LABEL, MODULE, PIN};

/// A session of its own, logged in.
pub fn session() -> Session {
    let module = Pkcs11::new(MODULE).unwrap();
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => panic!("{error}"),
    }
    let slots = module.get_slots_with_initialized_token().unwrap();
    let is_ours =
        |slot: &&cryptoki::slot::Slot| module.get_token_info(**slot).unwrap().label().trim_end() == LABEL;
    let session = module.open_rw_session(*slots.iter().find(is_ours).unwrap()).unwrap();
    match session.login(UserType::User, Some(&AuthPin::new(PIN.into()))) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => session,
        Err(error) => panic!("{error}"),
    }
}

/// Every private and secret key in the token.
pub fn objects(session: &Session) -> Vec<ObjectHandle> {
    let classes = [ObjectClass::PRIVATE_KEY, ObjectClass::SECRET_KEY];
    let of = |class| session.find_objects(&[Attribute::Token(true), Attribute::Class(class)]).unwrap();
    classes.into_iter().flat_map(of).collect()
}

/// The last words of the objects' labels: how far each got.
pub fn states(session: &Session) -> Vec<String> {
    let state = |object| match session.get_attributes(object, &[AttributeType::Label]).unwrap().pop() {
        Some(Attribute::Label(label)) => {
            String::from_utf8(label).unwrap().rsplit(' ').next().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    };
    let mut states: Vec<String> = objects(session).into_iter().map(state).collect();
    states.sort();
    states
}
