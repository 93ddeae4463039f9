//! Which key may follow another in protecting a guest state, and the statement with which the released key says so.
//!
//! The holder of the *old* key decides: a later version of the same name may always follow, another name only if the old
//! version's tag [`SUCCESSOR_TAG`] names it. The statement is signed by the old key itself. The VM gets that key's private
//! part in the same answer, so it can check the statement without trusting whoever carried it.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use public_api::keys::{KeyReleaseParameters, KeySuccession, SUCCESSOR_TAG, succession_statement};
use token_verifier::{Refusal, refusal};

use super::keys::KeyRef;
use super::{AppError, AppState, generation};
use crate::crypto::kind::PublicKey;
use crate::crypto::sign::{Sha2, SignatureAlgorithm, sign};
use crate::store::keys::{self, Among, KeyRecord};
use crate::store::{Connection, StoreError, releases};
use crate::token::evidence::GuestState;

/// A successor that was asked for.
pub(super) struct Successor {
    key: KeyRef,
    kid: String,
    digest: String,
    nonce: String,
}

impl AppState {
    /// The successor that the request names, if it names one.
    pub(super) async fn successor(
        &self,
        asked: &KeyReleaseParameters,
    ) -> Result<Option<Successor>, AppError> {
        let Some(url) = &asked.successor else { return Ok(None) };
        let key = key_of(&self.base_url, url).ok_or_else(|| {
            AppError::bad("successor", "it is not the URL of a key of this vault with its version")
        })?;
        let nonce = asked.nonce.clone();
        let nonce = nonce.ok_or_else(|| AppError::bad("nonce", "a successor is named for a nonce only"))?;
        let record = self.record(&key).await?;
        let PublicKey::Rsa(parts) = &record.public else {
            return Err(AppError::bad("successor", "only an RSA key protects a guest state"));
        };
        let spki: PublicKeyX509Der<'_> = parts
            .public_key()
            .map_err(AppError::Key)?
            .as_der()
            .map_err(|_| AppError::bad("successor", "its public key has no SubjectPublicKeyInfo"))?;
        let digest = hex::encode(digest(&SHA256, spki.as_ref()));
        Ok(Some(Successor { kid: self.kid(&record), key, digest, nonce }))
    }

    /// The statement that the released key makes about its successor. Whether it may is for [`permit`].
    pub(super) async fn succession(
        &self,
        released: &KeyRecord,
        successor: &Successor,
    ) -> Result<KeySuccession, AppError> {
        let Successor { kid, digest: key, nonce, .. } = successor;
        let statement = succession_statement(&self.kid(released), kid, key, nonce);
        let (hashed, algorithm) = (digest(&SHA256, &statement), SignatureAlgorithm::Pss(Sha2::Sha256));
        let signature = match self.in_token(released)? {
            Some(key) => key.sign(algorithm, hashed.as_ref().to_vec()).await?,
            None => {
                let private = self.opened_key(released).await?;
                sign(&private, algorithm, hashed.as_ref()).map_err(AppError::Key)?
            }
        };
        Ok(KeySuccession { kid: kid.clone(), public_key_digest: key.clone(), signature })
    }
}

/// Name and version in a key's URL, if it is one of this vault.
fn key_of(base_url: &str, url: &str) -> Option<KeyRef> {
    let (name, version) = url.strip_prefix(base_url)?.strip_prefix("/keys/")?.split_once('/')?;
    let plain = |text: &str| !text.is_empty() && !text.contains(['/', '?', '#']);
    (plain(name) && plain(version))
        .then(|| KeyRef { name: name.to_owned(), version: Some(version.to_owned()) })
}

/// Whether the old key's owner lets this key follow. Decided in the transaction of the release, before it writes.
pub(super) async fn permit(
    connection: &mut Connection,
    old: &KeyRecord,
    successor: &Successor,
    state: Option<&GuestState>,
) -> Result<Result<(), Refusal>, StoreError> {
    let Some(state) = state else { return Ok(Err(generation::stateless())) };
    let KeyRef { name, version } = &successor.key;
    let Some(new) = keys::find(&mut *connection, Among::Live, name, version.as_deref()).await? else {
        return Ok(Err(not_named(old, &successor.kid)));
    };
    if old.name.eq_ignore_ascii_case(&new.name) && keys::is_later(&mut *connection, old, &new).await? {
        return Ok(Ok(()));
    }
    if !names(old.tags.get(SUCCESSOR_TAG).map_or("", String::as_str), &successor.kid) {
        return Ok(Err(not_named(old, &successor.kid)));
    }
    let joins = releases::may_join(connection, (&old.name, &new.name), &state.vm_id).await?;
    Ok(if joins { Ok(()) } else { Err(other_history(&successor.kid)) })
}

/// Lets the successor go on from the generation that is released now.
pub(super) async fn join(
    connection: &mut Connection,
    old: &KeyRecord,
    successor: &Successor,
    state: Option<&GuestState>,
    now: i64,
) -> Result<(), StoreError> {
    match state {
        Some(state) if !old.name.eq_ignore_ascii_case(&successor.key.name) => {
            let names = (old.name.as_str(), successor.key.name.as_str());
            releases::join(connection, names, &state.vm_id, state.generation, now).await
        }
        _ => Ok(()),
    }
}

/// Whether a tag's value is this key's URL, with its version or without.
fn names(tag: &str, kid: &str) -> bool {
    let tag = tag.trim_end_matches('/');
    let unversioned = kid.rsplit_once('/').map_or(kid, |(key, _)| key);
    tag.eq_ignore_ascii_case(kid) || tag.eq_ignore_ascii_case(unversioned)
}

fn not_named(old: &KeyRecord, asked: &str) -> Refusal {
    let rule =
        "a VM's guest state moves to a later version of its key, or to the key that its key's owner named";
    let remedy = "let the old key's owner set the key's tag casemate-successor to the new key's URL, or keep the old key";
    let actual = format!("{asked} was asked for");
    let expected = match old.tags.get(SUCCESSOR_TAG) {
        Some(named) => format!("a later version, or {named}"),
        None => "a later version of the key".to_owned(),
    };
    refusal("SuccessorNotNamed", "successor", expected, actual, rule, remedy)
}

fn other_history(asked: &str) -> Refusal {
    let rule =
        "a key that has released this VM's guest state on its own does not take another's generation over";
    let remedy = "name a key that never protected this VM, or one that it was moved from";
    let expected = "a key without a history of its own with this VM";
    refusal("SuccessorHasHistory", "successor", expected, asked, rule, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://keys.test:8443";

    #[test]
    fn only_a_versioned_key_of_this_vault_can_be_a_successor() {
        let found = key_of(BASE, "https://keys.test:8443/keys/new/0123").expect("a key");
        assert_eq!((found.name.as_str(), found.version.as_deref()), ("new", Some("0123")));
        for url in [
            "https://keys.test:8443/keys/new",
            "https://keys.test:8443/keys/new/",
            "https://keys.test:8443/keys//1",
            "https://keys.test:8443/keys/new/1/2",
            "https://keys.test:8443/keys/new/1?x",
            "https://keys.test:84430/keys/new/1",
            "https://other.test:8443/keys/new/1",
            "http://keys.test:8443/keys/new/1",
            "",
        ] {
            assert_eq!(key_of(BASE, url), None, "{url}");
        }
    }

    #[test]
    fn a_tag_names_one_key_with_or_without_its_version() {
        let kid = "https://keys.test/keys/new/1";
        for tag in
            [kid, "https://keys.test/keys/new", "https://keys.test/keys/new/", "https://KEYS.test/keys/New/1"]
        {
            assert!(names(tag, kid), "{tag}");
        }
        for tag in
            ["", "new", "https://keys.test/keys/ne", "https://keys.test/keys/new/2", "https://keys.test/keys"]
        {
            assert!(!names(tag, kid), "{tag}");
        }
    }
}
