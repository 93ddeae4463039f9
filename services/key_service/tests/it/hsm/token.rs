//! What the token holds, asked of the token itself by who has the PIN.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
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
    labels(session).iter().map(|label| label.rsplit(' ').next().unwrap().to_owned()).collect()
}

/// The master key's id in the objects' labels.
pub fn vaults(session: &Session) -> Vec<String> {
    labels(session).iter().map(|label| label.split(' ').nth(1).unwrap().to_owned()).collect()
}

fn labels(session: &Session) -> Vec<String> {
    let label = |object| match session.get_attributes(object, &[AttributeType::Label]).unwrap().pop() {
        Some(Attribute::Label(label)) => String::from_utf8(label).unwrap(),
        other => panic!("{other:?}"),
    };
    let mut labels: Vec<String> = objects(session).into_iter().map(label).collect();
    labels.sort_by(|one, other| one.rsplit(' ').next().cmp(&other.rsplit(' ').next()));
    labels
}

/// How many of the objects may leave the token wrapped. Each of them must be private and sensitive.
pub fn extractable(session: &Session) -> usize {
    let asked = [AttributeType::Private, AttributeType::Sensitive, AttributeType::Extractable];
    let seen = objects(session).into_iter().map(|object| session.get_attributes(object, &asked).unwrap());
    let kept = [Attribute::Private(true), Attribute::Sensitive(true)];
    seen.filter(|seen| {
        assert_eq!(seen[..2], kept);
        seen[2] == Attribute::Extractable(true)
    })
    .count()
}

/// Puts a key into the token as a service would that then dies; its CKA_ID, as the sweep tells it.
pub fn plant(session: &Session, label: &str) -> String {
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Id(vec![7; 16]),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::ValueLen(32.into()),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    "07".repeat(16)
}

/// Puts another AES key in the place of the one there is, with the same id, label and protection.
pub fn exchange_aes(session: &Session) {
    let of_keys = [Attribute::Token(true), Attribute::Class(ObjectClass::SECRET_KEY)];
    let object = session.find_objects(&of_keys).unwrap()[0];
    let mut template = session.get_attributes(object, &[AttributeType::Id, AttributeType::Label]).unwrap();
    session.destroy_object(object).unwrap();
    template.extend([Attribute::Token(true), Attribute::Private(true), Attribute::Sensitive(true)]);
    template.extend([Attribute::Encrypt(true), Attribute::Decrypt(true)]);
    template.extend([Attribute::Wrap(true), Attribute::Unwrap(true)]);
    template.extend([Attribute::Extractable(false), Attribute::ValueLen(32.into())]);
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
}
