//! Moving a guest state to another key-encryption key: while the guest runs, or at the next start.
//!
//! ```text
//! release(g, old key, "may K follow?") ─► old key's signature names K and K's public key
//!   ─► release(g, K) ─► it is that public key's ─► write state as g+1 under K, all or nothing ─► release(g+1, K)
//! ```
//! The host asks for a move, carries every message, writes the launch document and thereby chooses the services that are
//! talked to. So none of them is believed: the statement must be signed by the very key that the state is under, and the
//! next key must be the one whose public part the statement names. A crash leaves the state under the old or under the new
//! key, and the state says in clear under which.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use internal_api::paravisor::{ParavisorConfig, Step};
use public_api::keys::succession_statement;
use sealed_disk::guest_state::{Kek, LockedState};

use super::attest::{Attestor, Written};
use super::keeper::Keeper;
use super::launch::Launch;
use super::release::{Released, Wanted};
use super::reopen;
use super::world::{Observer, reach, step};
use crate::failure::Stop;

/// A successor that the present key signed for.
struct Successor {
    key_id: String,
    public_key_digest: String,
}

/// Both ends of a move.
pub(super) struct Next {
    old: Kek,
    new: Kek,
}

/// Which key a locked state says that it is under. The host could have written it: only what the key opens counts.
pub(super) fn key_of<'a>(locked: &'a LockedState, launch: &'a Launch) -> &'a str {
    let first = launch.document.first_key_id.as_deref().unwrap_or(&launch.document.key_id);
    locked.key_id().unwrap_or(first)
}

/// Opens a state under its old key, for the key that the launch document names: the next generation is for that one.
pub(super) fn at_start(
    attestor: &Attestor,
    config: &ParavisorConfig,
    locked: LockedState,
    told: &dyn Observer,
) -> Result<Keeper, Stop> {
    let launch = attestor.launch.as_ref();
    let wanted = launch.document.key_id.as_str();
    let (old, generation) = (key_of(&locked, launch).to_owned(), locked.generation());
    let asked = Wanted { key_id: &old, successor: Some(wanted) };
    let released = attestor.key(told, asked, generation)?;
    let mut keeper =
        step(told, Step::OpenState, || reopen::open(launch, config, locked, &released.kek, told))?;
    let new = step(told, Step::ChangeKey, || {
        let successor = successor(&released, &old, wanted)?;
        let written = Written { generation, key_id: old.clone(), sealed: None };
        key_of_successor(attestor, &successor, &written)
    })?;
    keeper.change_key(&new);
    Ok(keeper)
}

/// The key that shall follow, released for the state that is durable now. Nothing is written here.
pub(super) fn next(attestor: &Attestor, written: &Written, wanted: &str) -> Result<Next, Stop> {
    let asked = Wanted { key_id: &written.key_id, successor: Some(wanted) };
    let (_, released) = attestor.ask(asked, written.generation, written.sealed.as_ref())?;
    let successor = successor(&released, &written.key_id, wanted)?;
    let new = key_of_successor(attestor, &successor, written)?;
    Ok(Next { old: released.kek, new })
}

/// Writes the state as a new generation under the next key. If that fails, the state stays under the old one.
pub(super) fn write(keeper: &mut Keeper, next: &Next, generation: u64) -> Result<(), Stop> {
    if !keeper.is_under(&next.old) {
        return Err(unproved("the statement is signed by a key that the guest state is not under"));
    }
    keeper.change_key(&next.new);
    reach("before writing a generation under another key");
    keeper.write_generation(generation).inspect_err(|_| keeper.change_key(&next.old))
}

/// The statement about the successor, if the released key signed it for this request.
fn successor(released: &Released, key_id: &str, wanted: &str) -> Result<Successor, Stop> {
    let said = released.succession.as_ref().ok_or_else(|| unproved("the answer names no successor"))?;
    if said.kid != wanted {
        return Err(unproved(&format!("the answer names {}", said.kid)));
    }
    let statement = succession_statement(key_id, &said.kid, &said.public_key_digest, &released.nonce);
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, released.kek.spki())
        .verify(&statement, &said.signature)
        .map_err(|_| {
            unproved("the statement is not signed by the key that was released, for this request")
        })?;
    Ok(Successor { key_id: said.kid.clone(), public_key_digest: said.public_key_digest.clone() })
}

fn key_of_successor(attestor: &Attestor, successor: &Successor, written: &Written) -> Result<Kek, Stop> {
    let asked = Wanted { key_id: &successor.key_id, successor: None };
    let (_, released) = attestor.ask(asked, written.generation, written.sealed.as_ref())?;
    let found = hex::encode(digest(&SHA256, released.kek.spki()));
    if found == successor.public_key_digest {
        return Ok(released.kek);
    }
    Err(Stop::refused(
        "SuccessorReplaced",
        "public key of the new key",
        &successor.public_key_digest,
        found,
        "the key that follows is the one whose public part the old key signed for",
        "somebody answers in the key service's place; look at the launch document's trust bundle and at the host",
    ))
}

fn unproved(why: &str) -> Stop {
    Stop::refused(
        "SuccessorNotProved",
        "statement of the old key about the new one",
        "the old key's own signature over the new key's name and public part",
        why,
        "a guest state moves to another key only if the key that it is under says so",
        "look into the key service's log; the guest state stays under its key",
    )
}
