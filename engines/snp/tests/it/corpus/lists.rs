//! Faults of revocation lists, and what they revoke.

use snp::{CrlScope, Revocation, SigningKey, UnixTime};
use x509_cert::der::oid::ObjectIdentifier;

use crate::corpus::case::{Bundle, Cases};
use crate::forge::{ARK_SERIAL, ASK_SERIAL, Algorithm, Forge, Key, List, extension};
use crate::support::NOW;

pub(super) fn cases(cases: &mut Cases, forge: &Forge) {
    let made = forge.parts();
    let vcek = forge.report.signing_key == SigningKey::Vcek;
    let (scope, other) =
        if vcek { (CrlScope::Vcek, CrlScope::Vlek) } else { (CrlScope::Vlek, CrlScope::Vcek) };
    let rule = Revocation::Required;
    let bundle = |lists: Vec<Vec<u8>>| Bundle { lists, scope, rule, ..Bundle::made(&made) };
    let of_the_other = Bundle { scope: other, ..bundle(vec![forge.crl(&List::new())]) };
    cases.add("no revocation list", "one for the other kind of key", of_the_other);
    let revoked = forge.crl(&List::of_the_ask());
    let revoked = Bundle { scope: other, rule: Revocation::IfPresent, ..bundle(vec![revoked]) };
    cases.add("intermediate revoked", "by the list for the other kind of key", revoked);
    cases.add("no revocation list", "required", bundle(Vec::new()));
    let mut with = |fault, form: &str, change: &dyn Fn(&mut List)| {
        let mut list = List::new();
        change(&mut list);
        cases.add(fault, form, bundle(vec![forge.crl(&list)]));
    };
    with("intermediate revoked", "alone", &|list| list.revoked = vec![ASK_SERIAL]);
    with("intermediate revoked", "among others", &|list| list.revoked = vec![9, ASK_SERIAL, 7]);
    with("root revoked", "by itself", &|list| list.revoked = vec![ARK_SERIAL]);
    with("list not current", "from the future", &|list| list.this_update = UnixTime(NOW.0 + 1));
    with("list not current", "over by a second", &|list| list.next_update = Some(UnixTime(NOW.0 - 1)));
    with("list without an end", "no nextUpdate", &|list| list.next_update = None);
    with("list of another issuer", "a stranger", &|list| list.issuer = "CN=stranger".to_owned());
    with("list of another issuer", "the intermediate", &|list| {
        (list.issuer, list.signed_by) = (forge.ask.subject.clone(), Key::Ask);
    });
    with("list signed by another key", "the intermediate's", &|list| list.signed_by = Key::Ask);
    with("list signed by another key", "a stranger's", &|list| list.signed_by = Key::Stranger);
    with("list signed by another algorithm", "PKCS#1", &|list| list.algorithm = Algorithm::Pkcs1);
    with("list signed by another algorithm", "SHA-256", &|list| list.algorithm = Algorithm::PssSha256);
    with("list signed by another algorithm", "named otherwise outside", &|list| {
        list.named = Some(Algorithm::Pkcs1);
    });
    for (form, oid) in [("delta", "2.5.29.27"), ("of some certificates", "2.5.29.28")] {
        with("list with a critical extension", form, &|list| {
            list.extensions = vec![extension(ObjectIdentifier::new_unwrap(oid), true, &[2, 1, 1])];
        });
    }
    let mut mangled = |fault, form: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut list = forge.crl(&List::of_the_ask());
        change(&mut list);
        cases.add(fault, form, bundle(vec![list]));
    };
    mangled("list is none", "empty", &|list| list.clear());
    mangled("list is none", "a byte short", &|list| list.truncate(list.len() - 1));
    mangled("list is none", "a byte more", &|list| list.push(0));
    mangled("list is none", "length one more", &|list| list[3] = list[3].wrapping_add(1));
    mangled("list is none", "a certificate", &|list| list.clone_from(&made.ask));
    mangled("list signed by another key", "altered", &|list| *list.last_mut().expect("a list") ^= 1);
}
