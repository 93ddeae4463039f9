//! `casemate-keys move --call-off`: the source becomes a vault again, once the target's token holds nothing of the move.

use serde_json::{Value, json};

use super::move_seal::keeps;
use super::move_token::MoveToken;
use super::move_vault::End;
use super::{CommandError, refusals};
use crate::app::reach;
use crate::config::{Config, MasterKeyConfig};
use crate::crypto::seal::MasterKey;
use crate::store::standing::{self, Part, Standing};

/// Gives a move up whose source is not left yet.
pub(super) async fn call_off(source: &mut End, to: &Config) -> Result<Value, CommandError> {
    let standing = standing::read(&mut source.connection).await?;
    let standing = standing.ok_or_else(|| refusals::nothing_to_call_off(&source.place))?;
    if standing.part != Part::Source {
        return Err(refusals::not_to_be_called_off(&standing));
    }
    let target = to.place()?;
    if standing.other != target.to_string() {
        return Err(refusals::call_off_of_another(&target, &standing.other));
    }
    let destroyed = taken_out(source, to, &standing).await.map_err(|error| refusals::copies_left(&error))?;
    reach("the token of a move is cleared");
    source.mark(None).await?;
    let vault = source.place.to_string();
    let text = format!("the incomplete copy at {target} is never served; remove it");
    Ok(json!({
        "status": "calledOff",
        "vault": vault,
        "move": standing.id,
        "destroyed": destroyed,
        "remark": text,
    }))
}

/// Destroys what a move has brought into the token of its target.
async fn taken_out(source: &mut End, to: &Config, standing: &Standing) -> Result<usize, CommandError> {
    let Some(hsm) = &to.hsm else { return Ok(0) };
    let master = MasterKey::load(&MasterKeyConfig { create: false, ..to.master_key.clone() }, None)?;
    let now = keeps(&master, to);
    if let Some(begun) = standing.keeps.as_ref().filter(|begun| **begun != now) {
        return Err(refusals::target_changed(begun, &now));
    }
    MoveToken::open(hsm, &standing.id)?.take_out(&mut source.connection, &master).await
}
