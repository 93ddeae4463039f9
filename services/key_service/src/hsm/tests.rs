//! Against SoftHSM2, an independent token in software. Each test runs in a process of its own (the test binary starts
//! itself again): the module reads `SOFTHSM2_CONF` once, at its first use in a process.

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rand;
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};

use super::error::Doing as _;
use super::pool::Connection;
use super::*;
use crate::crypto::ec::Curve;
use crate::crypto::oct::OctBits;
use crate::crypto::rsa::Bits;
use crate::crypto::seal::PrivateKey;
use crate::crypto::{kind, oct, rsa, sign};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const LABEL: &str = "casemate";
const PIN: &str = "271828";
const VAULT: &str = "0123456789abcdef";
/// Tells the process of a test apart from the one that starts it.
const FOLDER: &str = "CASEMATE_TEST_TOKENS";

/// Runs `body` in a process of its own, with a token of its own in a folder of its own.
fn with_token<F: Fn(&Path)>(body: F) {
    if let Ok(folder) = std::env::var(FOLDER) {
        return body(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("softhsm2.conf");
    std::fs::create_dir(folder.path().join("tokens")).unwrap();
    let text = format!("directories.tokendir = {}/tokens\nlog.level = ERROR\n", folder.path().display());
    std::fs::write(&config, text).unwrap();
    init_token(&config, LABEL);
    let name = std::any::type_name::<F>();
    let name = name.strip_prefix("key_service::").unwrap().trim_end_matches("::{{closure}}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("SOFTHSM2_CONF", &config)
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // SoftHSM's destructors run beside threads that still hang in it, and the process may die of that when all is over.
    assert!(said.contains("test result: ok. 1 passed"), "{name}: {said}");
}

fn init_token(config: &Path, label: &str) {
    let status = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "31415926"])
        .env("SOFTHSM2_CONF", config)
        .output()
        .expect("softhsm2-util runs (Debian: softhsm2)");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}

fn config(folder: &Path, pin: &str) -> HsmConfig {
    use std::os::unix::fs::PermissionsExt as _;
    let pin_file = folder.join("pin");
    std::fs::write(&pin_file, pin).unwrap();
    std::fs::set_permissions(&pin_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (module, token) = (PathBuf::from(MODULE), LABEL.to_owned());
    HsmConfig { module, token, pin_file, all_keys: false, sessions: 3, timeout_seconds: 20 }
}

fn open(folder: &Path) -> Hsm {
    Hsm::open(&config(folder, PIN)).unwrap()
}

fn new(extractable: bool) -> NewKey {
    let label = Label { vault: VAULT.to_owned(), made: 1_800_000_000, state: State::Made };
    NewKey { label, extractable }
}

fn kek() -> Zeroizing<Vec<u8>> {
    let mut kek = Zeroizing::new(vec![0; 32]);
    rand::fill(&mut kek).unwrap();
    kek
}

fn import(hsm: &Hsm, private: &PrivateKey, public: &PublicKey, extractable: bool) -> KeyId {
    let kek = kek();
    let mut wrapped = vec![0; private.as_bytes().len() + 16];
    let key = AesKek::new(&AES_256, &kek).unwrap();
    let length = key.wrap_with_padding(private.as_bytes(), &mut wrapped).unwrap().len();
    wrapped.truncate(length);
    hsm.import(public.clone(), new(extractable), kek, wrapped).unwrap()
}

fn opened(kek: &[u8], wrapped: &[u8]) -> PrivateKey {
    let mut output = Zeroizing::new(vec![0; wrapped.len()]);
    let key = AesKek::new(&AES_256, kek).unwrap();
    let plain = key.unwrap_with_padding(wrapped, &mut output).unwrap().to_vec();
    PrivateKey::new(Zeroizing::new(plain))
}

/// What a test asks the token itself, past this module's own operations.
fn ask<T: Send + 'static>(
    hsm: &Hsm,
    work: impl Fn(&Connection<'_>) -> Result<T, HsmError> + Send + 'static,
) -> Result<T, HsmError> {
    hsm.pool.run(work)
}

fn signs(hsm: &Hsm, id: KeyId, public: &PublicKey, name: &str) {
    let algorithm = SignatureAlgorithm::from_name(name).unwrap();
    let mut message = vec![0; algorithm.digest_len()];
    rand::fill(&mut message).unwrap();
    let signature = hsm.sign(id, algorithm, message.clone()).unwrap();
    assert_eq!(sign::verify(public, algorithm, &message, &signature), Ok(true), "{name}");
    message[0] ^= 1;
    assert_eq!(sign::verify(public, algorithm, &message, &signature), Ok(false), "{name}");
    assert!(matches!(hsm.sign(id, algorithm, vec![1; 31]), Err(HsmError::Value)), "{name}");
}

const RSA_SIGNATURES: [&str; 6] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
const CURVES: [(Curve, &str); 4] =
    [(Curve::P256, "ES256"), (Curve::P384, "ES384"), (Curve::P521, "ES512"), (Curve::P256K, "ES256K")];
const PADDINGS: [RsaPadding; 3] = [RsaPadding::Oaep, RsaPadding::Oaep256, RsaPadding::Pkcs1];

#[test]
fn an_rsa_key_that_the_token_made_signs_and_decrypts() {
    with_token(|folder| {
        let hsm = open(folder);
        for bits in [Bits::Rsa2048, Bits::Rsa3072, Bits::Rsa4096] {
            let (id, public) = hsm.generate(KeySpec::Rsa(bits), new(false)).unwrap();
            let PublicKey::Rsa(parts) = &public else { panic!("not RSA") };
            assert_eq!(parts.bits(), bits.number() as usize);
            RSA_SIGNATURES.iter().for_each(|name| signs(&hsm, id, &public, name));
            for padding in PADDINGS {
                let value = rsa::encrypt(parts, padding, b"a secret").unwrap();
                assert_eq!(&*hsm.decrypt(id, padding, value.clone()).unwrap(), b"a secret", "{padding:?}");
                let mut changed = value.clone();
                changed[200] ^= 1;
                let wrong =
                    [changed, value[1..].to_vec(), vec![0xFF; value.len()], vec![0; value.len()], vec![]];
                for value in wrong {
                    let refused = hsm.decrypt(id, padding, value);
                    assert!(matches!(refused, Err(HsmError::Value)), "{padding:?} {:?}", refused.err());
                }
                // The session goes on after what did not decrypt.
                assert!(hsm.decrypt(id, padding, value).is_ok());
            }
        }
    });
}

#[test]
fn keys_on_every_curve_sign() {
    with_token(|folder| {
        let hsm = open(folder);
        for (curve, name) in CURVES {
            let (id, public) = hsm.generate(KeySpec::Ec(curve), new(false)).unwrap();
            signs(&hsm, id, &public, name);
        }
    });
}

/// The token and this crate's own AES do the same with the same key.
#[test]
fn an_aes_key_that_was_brought_in_does_what_it_did_outside() {
    with_token(|folder| {
        let hsm = open(folder);
        for bits in [OctBits::Aes128, OctBits::Aes192, OctBits::Aes256] {
            let key = oct::generate(bits);
            let id = import(&hsm, &key, &PublicKey::Oct(bits), false);
            for length in [0, 1, 16, 33, 5000] {
                let value = vec![7; length];
                let sealed = hsm.gcm_encrypt(id, value.clone(), b"aad".to_vec()).unwrap();
                let parts = (sealed.iv.as_slice(), sealed.tag.as_slice(), &b"aad"[..]);
                assert_eq!(*oct::gcm_decrypt(&key, bits, &sealed.value, parts).unwrap(), value);
                let parts = (sealed.iv.clone(), sealed.tag.clone(), b"aad".to_vec());
                assert_eq!(*hsm.gcm_decrypt(id, sealed.value.clone(), parts).unwrap(), value);
                let parts = (sealed.iv, sealed.tag, b"other".to_vec());
                assert!(matches!(hsm.gcm_decrypt(id, sealed.value, parts), Err(HsmError::Value)));
            }
            for padding in [CbcPadding::None, CbcPadding::Pkcs7] {
                let (value, iv) = (vec![9; 48], vec![3; 16]);
                let sealed = hsm.cbc_encrypt(id, padding, value.clone(), iv.clone()).unwrap();
                assert_eq!(sealed, oct::cbc_encrypt(&key, bits, padding, &value, &iv).unwrap());
                assert_eq!(*hsm.cbc_decrypt(id, padding, sealed, iv.clone()).unwrap(), value);
                let wrong = hsm.cbc_decrypt(id, CbcPadding::Pkcs7, vec![1; 32], iv);
                assert!(matches!(wrong, Err(HsmError::Value)), "{:?}", wrong.err());
            }
            for length in [16, 24, 32, 64] {
                let value = vec![5; length];
                let wrapped = hsm.wrap(id, value.clone()).unwrap();
                assert_eq!(wrapped, oct::wrap(&key, bits, &value).unwrap());
                assert_eq!(*hsm.unwrap(id, wrapped).unwrap(), value);
            }
            let wrong = hsm.unwrap(id, vec![1; 24]);
            assert!(matches!(wrong, Err(HsmError::Value)), "{:?}", wrong.err());
        }
        let (id, _) = hsm.generate(KeySpec::Oct(OctBits::Aes256), new(false)).unwrap();
        let sealed = hsm.gcm_encrypt(id, b"x".to_vec(), vec![]).unwrap();
        let parts = (sealed.iv, sealed.tag, vec![]);
        assert_eq!(&*hsm.gcm_decrypt(id, sealed.value, parts).unwrap(), b"x");
    });
}

#[test]
fn private_keys_that_were_brought_in_work_and_leave_as_what_they_were() {
    with_token(|folder| {
        let hsm = open(folder);
        let rsa = [(KeySpec::Rsa(Bits::Rsa2048), "PS256")];
        let ec = CURVES.map(|(curve, name)| (KeySpec::Ec(curve), name));
        for (spec, name) in rsa.into_iter().chain(ec) {
            let (private, public) = kind::generate(spec);
            let id = import(&hsm, &private, &public, true);
            signs(&hsm, id, &public, name);
            released(&hsm, id, &public);
        }
    });
}

#[test]
fn keys_that_the_token_made_leave_it_wrapped_and_are_the_same_keys() {
    with_token(|folder| {
        let hsm = open(folder);
        let ec = CURVES.map(|(curve, _)| KeySpec::Ec(curve));
        for spec in [KeySpec::Rsa(Bits::Rsa2048)].into_iter().chain(ec) {
            let (id, public) = hsm.generate(spec, new(true)).unwrap();
            released(&hsm, id, &public);
        }
        let (id, public) = hsm.generate(KeySpec::Oct(OctBits::Aes256), new(true)).unwrap();
        let key = wrapped(&hsm, id, &public);
        let sealed = hsm.gcm_encrypt(id, b"x".to_vec(), vec![]).unwrap();
        let parts = (sealed.iv.as_slice(), sealed.tag.as_slice(), &[][..]);
        assert_eq!(&*oct::gcm_decrypt(&key, OctBits::Aes256, &sealed.value, parts).unwrap(), b"x");
    });
}

/// The key as it leaves the token, opened.
fn wrapped(hsm: &Hsm, id: KeyId, public: &PublicKey) -> PrivateKey {
    let kek = kek();
    opened(&kek, &hsm.export(&decision(), (id, family(public)), kek.clone()).unwrap())
}

/// A decision of a policy that asks for nothing in particular.
fn decision() -> ReleaseDecision {
    let text = r#"{"version": "1.0.0", "anyOf": [{"authority": "https://a.test", "allOf": [{"claim": "c", "equals": "v"}]}]}"#;
    let claims = serde_json::json!({"c": "v"});
    let policy = policy::release::ReleasePolicy::parse(text.as_bytes()).unwrap();
    policy.evaluate("https://a.test", &claims).ok().unwrap()
}

fn family(public: &PublicKey) -> Family {
    match public {
        PublicKey::Rsa(_) => Family::Rsa,
        PublicKey::Ec(_) => Family::Ec,
        PublicKey::Oct(_) => Family::Oct,
    }
}

fn released(hsm: &Hsm, id: KeyId, public: &PublicKey) {
    let private = wrapped(hsm, id, public);
    assert_eq!(kind::public_part(&private, public).as_ref(), Some(public));
}

/// The token itself is asked for the key, in every way that there is.
#[test]
fn a_key_that_may_not_be_released_cannot_be_taken_out_by_who_has_the_pin() {
    with_token(|folder| {
        let hsm = open(folder);
        let specs = [KeySpec::Rsa(Bits::Rsa2048), KeySpec::Ec(Curve::P384), KeySpec::Oct(OctBits::Aes256)];
        for spec in specs {
            let (id, public) = hsm.generate(spec, new(false)).unwrap();
            let family = family(&public);
            ask(&hsm, move |connection| {
                let key = object::find(connection, id, family)?;
                let secrets = [AttributeType::Value, AttributeType::PrivateExponent, AttributeType::Prime1];
                for secret in secrets {
                    let seen = connection.session.get_attributes(key, &[secret]);
                    assert!(seen.as_ref().is_err() || seen.unwrap().is_empty(), "{secret:?}");
                }
                let kek = kek::Kek::put(connection, &[1; 32], kek::KekUse::Wraps)?;
                let taken = connection.session.wrap_key(&Mechanism::AesKeyWrapPad, kek.handle(), key);
                let code = taken.doing("x").unwrap_err().code();
                assert_eq!(code, Some(RvError::KeyUnextractable));
                for change in [Attribute::Extractable(true), Attribute::Sensitive(false)] {
                    assert!(connection.session.update_attributes(key, &[change]).is_err());
                }
                let copy = [Attribute::Extractable(true), Attribute::Token(false)];
                assert!(connection.session.copy_object(key, &copy).is_err());
                Ok(())
            })
            .unwrap();
            let taken = hsm.export(&decision(), (id, family), kek());
            assert!(matches!(taken, Err(HsmError::KeyUnprotected(_))));
        }
    });
}

#[test]
fn what_a_key_may_be_used_for_is_no_more_than_asked() {
    with_token(|folder| {
        let hsm = open(folder);
        let (id, _) = hsm.generate(KeySpec::Ec(Curve::P256), new(false)).unwrap();
        ask(&hsm, move |connection| {
            let key = object::find(connection, id, Family::Ec)?;
            let asked =
                [AttributeType::Sign, AttributeType::Decrypt, AttributeType::Unwrap, AttributeType::Derive];
            let seen = connection.session.get_attributes(key, &asked).doing("read")?;
            let wanted = [
                Attribute::Sign(true),
                Attribute::Decrypt(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
            ];
            assert_eq!(seen, wanted);
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn objects_are_told_relabelled_and_destroyed_by_their_id_and_others_stay() {
    with_token(|folder| {
        let hsm = open(folder);
        let (one, _) = hsm.generate(KeySpec::Oct(OctBits::Aes128), new(false)).unwrap();
        let (two, _) = hsm.generate(KeySpec::Ec(Curve::P256), new(true)).unwrap();
        let strangers =
            NewKey { label: Label { vault: "another".to_owned(), ..new(false).label }, extractable: false };
        let (stranger, _) = hsm.generate(KeySpec::Ec(Curve::P256), strangers).unwrap();
        ask(&hsm, |connection| {
            let template = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(KeyType::GENERIC_SECRET),
                Attribute::Token(true),
                Attribute::Label(b"somebody else's".to_vec()),
                Attribute::Value(vec![1; 16]),
            ];
            connection.session.create_object(&template).map(drop).doing("create")
        })
        .unwrap();
        let ids = |hsm: &Hsm| hsm.held(VAULT).unwrap().into_iter().map(|held| held.id).collect::<Vec<_>>();
        let mut seen = ids(&hsm);
        seen.sort();
        let mut both = vec![one, two];
        both.sort();
        assert_eq!(seen, both);
        let kept = Label { state: State::Kept, ..new(false).label };
        hsm.relabel(one, kept.clone()).unwrap();
        assert!(hsm.held(VAULT).unwrap().contains(&Held { id: one, label: kept }));
        hsm.destroy(one).unwrap();
        hsm.destroy(one).unwrap();
        assert_eq!(ids(&hsm), [two]);
        assert!(matches!(hsm.holds(one, Family::Oct, false), Err(HsmError::KeyMissing(_))));
        assert!(hsm.holds(two, Family::Ec, true).is_ok() && hsm.holds(stranger, Family::Ec, false).is_ok());
        assert!(matches!(hsm.holds(two, Family::Ec, false), Err(HsmError::KeyUnprotected(_))));
        assert!(matches!(hsm.gcm_encrypt(one, vec![1], vec![]), Err(HsmError::KeyMissing(_))));
    });
}

#[test]
fn only_the_key_itself_is_taken_for_it_in_each_way() {
    with_token(|folder| {
        let hsm = open(folder);
        for bits in [OctBits::Aes128, OctBits::Aes192, OctBits::Aes256] {
            let (key, other, public) = (oct::generate(bits), oct::generate(bits), PublicKey::Oct(bits));
            hsm.takes(&public, true).unwrap();
            let id = import(&hsm, &key, &public, false);
            assert!(hsm.is_key(id, &public, &key).unwrap() && !hsm.is_key(id, &public, &other).unwrap());
            for way in [proof::cbc_agrees, proof::wrap_agrees, proof::gcm_agrees] {
                assert!(way(&hsm, id, (&key, bits), &[3; 16]).unwrap());
                assert!(!way(&hsm, id, (&other, bits), &[3; 16]).unwrap());
            }
        }
        let ((key, public), (_, other)) =
            (kind::generate(KeySpec::Ec(Curve::P256)), kind::generate(KeySpec::Ec(Curve::P256)));
        let id = import(&hsm, &key, &public, false);
        assert!(hsm.is_key(id, &public, &key).unwrap() && !hsm.is_key(id, &other, &key).unwrap());
    });
}

#[test]
fn a_key_that_is_brought_in_again_under_its_id_is_one_object() {
    with_token(|folder| {
        let (hsm, id) = (open(folder), KeyId::random());
        for bits in [OctBits::Aes128, OctBits::Aes256] {
            let (kek, wrapped) = crate::crypto::wrap::for_token(&oct::generate(bits));
            hsm.import_as((id, PublicKey::Oct(bits)), new(true), kek, wrapped).unwrap();
            hsm.holds(id, Family::Oct, true).unwrap();
        }
        assert_eq!(hsm.held(VAULT).unwrap().len(), 1);
    });
}

/// A second object with a key's id, put there by who has the PIN, is not used in its place.
#[test]
fn two_objects_with_one_id_are_refused() {
    with_token(|folder| {
        let hsm = open(folder);
        let (id, _) = hsm.generate(KeySpec::Oct(OctBits::Aes128), new(false)).unwrap();
        ask(&hsm, move |connection| {
            let mut template = new(false).template(id, Family::Oct);
            template.push(Attribute::ValueLen(16.into()));
            connection.session.generate_key(&Mechanism::AesKeyGen, &template).map(drop).doing("make")
        })
        .unwrap();
        assert!(matches!(hsm.gcm_encrypt(id, vec![1], vec![]), Err(HsmError::KeyAmbiguous { count: 2, .. })));
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    with_token(|folder| {
        let refused = Hsm::open(&config(folder, "0000")).err().unwrap();
        assert!(matches!(refused, HsmError::PinRefused), "{refused}");
        let hsm = open(folder);
        hsm.check().unwrap();
        let token = Token {
            module: module::load(Path::new(MODULE)).unwrap(),
            name: LABEL.to_owned(),
            mechanisms: ask(&hsm, |connection| {
                let (slot, _) = module::slot(&connection.token.module, LABEL)?;
                Mechanisms::read(&connection.token.module, slot)
            })
            .unwrap(),
            pin: Pin::load(&config(folder, PIN).pin_file).unwrap(),
            oaep_is_sha1_only: AtomicBool::new(false),
            pin_refused: AtomicBool::new(true),
        };
        let pool = Pool::start(Arc::new(token), 1, Duration::from_secs(5)).unwrap();
        let refused = pool.run(object::probe);
        assert!(
            matches!(refused, Err(HsmError::PinRefused)),
            "a right PIN is not tried either before a restart"
        );
    });
}

#[test]
fn a_module_or_a_token_that_is_not_there_is_named() {
    with_token(|folder| {
        let usual = config(folder, PIN);
        let missing = HsmConfig { module: "/nowhere/pkcs11.so".into(), ..usual.clone() };
        let error = Hsm::open(&missing).err().unwrap();
        assert_eq!(error.to_string(), "could not load the PKCS#11 module /nowhere/pkcs11.so");
        let no_module = HsmConfig { module: "/etc/hostname".into(), ..usual.clone() };
        assert!(matches!(Hsm::open(&no_module), Err(HsmError::Module { .. })));
        let other = HsmConfig { token: "other".to_owned(), ..usual.clone() };
        assert!(matches!(Hsm::open(&other), Err(HsmError::NoToken(_))));
        let serial = open(folder);
        let serial = ask(&serial, |connection| Ok(module::slot(&connection.token.module, LABEL)?.1)).unwrap();
        let by_serial = HsmConfig { token: serial.serial_number().trim_end().to_owned(), ..usual };
        Hsm::open(&by_serial).unwrap().check().unwrap();
    });
}

#[test]
fn two_tokens_of_one_label_are_told_apart_by_nobody() {
    with_token(|folder| {
        init_token(&folder.join("softhsm2.conf"), LABEL);
        let refused = Hsm::open(&config(folder, PIN)).err().unwrap();
        assert!(matches!(refused, HsmError::ManyTokens { count: 2, .. }), "{refused}");
    });
}

/// Sessions that were closed under the pool are opened again, and the work is done.
#[test]
fn a_lost_session_is_replaced() {
    with_token(|folder| {
        let hsm = open(folder);
        let (id, public) = hsm.generate(KeySpec::Ec(Curve::P256), new(false)).unwrap();
        for _ in 0..5 {
            ask(&hsm, |connection| connection.session.logout().doing("log out")).unwrap();
            signs(&hsm, id, &public, "ES256");
        }
    });
}

#[test]
fn many_callers_share_few_sessions() {
    with_token(|folder| {
        let hsm = open(folder);
        let (id, public) = hsm.generate(KeySpec::Ec(Curve::P256), new(false)).unwrap();
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| (0..10).for_each(|_| signs(&hsm, id, &public, "ES256")));
            }
        });
    });
}

/// A token that hangs: its callers get an answer after the limit, later ones at once, and none waits for ever.
#[test]
fn a_hung_token_holds_its_own_threads_only() {
    with_token(|folder| {
        let hsm = Hsm::open(&HsmConfig { timeout_seconds: 1, ..config(folder, PIN) }).unwrap();
        let (hang, go_on) = (Arc::new(std::sync::Barrier::new(4)), std::sync::Mutex::new(()));
        let go_on = Arc::new(go_on);
        let held = go_on.lock().unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                let (hang, go_on) = (Arc::clone(&hang), Arc::clone(&go_on));
                let pool = &hsm.pool;
                scope.spawn(move || {
                    let silent = pool.run(move |_| {
                        hang.wait();
                        drop(go_on.lock());
                        Ok(())
                    });
                    assert!(matches!(silent, Err(HsmError::NoAnswer(1))));
                });
            }
            hang.wait();
        });
        assert!(matches!(hsm.check(), Err(HsmError::NoAnswer(_))), "every thread hangs");
        let at_once = std::time::Instant::now();
        assert!(matches!(hsm.check(), Err(HsmError::NoAnswer(_))));
        assert!(at_once.elapsed() < Duration::from_millis(500), "later callers do not wait");
        drop(held);
        while hsm.check().is_err() {
            thread::yield_now();
        }
    });
}
