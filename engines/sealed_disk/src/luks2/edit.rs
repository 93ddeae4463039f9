//! Changing a header in place: the token of the next boot, and the repair of an interrupted write.

use serde_json::Value;

use super::binary::{BinaryHeader, Copy, write_copies};
use super::check::check_copy;
use super::{COPIES_BYTES, HeaderRefusal, JSON_BYTES, check};

/// Replaces the systemd-tpm2 token (or adds it), in both copies, under the next sequence number.
///
/// Only the first [`COPIES_BYTES`] bytes change; keyslots stay as they are. Nothing is written unless the result passes
/// [`check`].
pub fn replace_token(header: &mut [u8], token: &Value) -> Result<(), HeaderRefusal> {
    let seqid = check(header)?.seqid;
    let primary = BinaryHeader::parse(header, Copy::Primary)?;
    let uuid = primary.uuid.to_owned();
    let mut metadata: Value = serde_json::from_str(primary.json)
        .map_err(|error| HeaderRefusal::Metadata { what: error.to_string() })?;
    let tokens = metadata["tokens"].as_object_mut().expect("checked to be an object");
    let of_kind = tokens.iter().find(|(_, old)| old["type"] == token["type"]).map(|(name, _)| name.clone());
    let free = || (0..).map(|number: u32| number.to_string()).find(|name| !tokens.contains_key(name));
    let name = of_kind.or_else(free).expect("numbers do not run out");
    tokens.insert(name, token.clone());
    let text = metadata.to_string();
    if text.len() >= JSON_BYTES {
        return Err(HeaderRefusal::Metadata { what: format!("{} bytes of {JSON_BYTES}", text.len()) });
    }
    let mut copies = vec![0; COPIES_BYTES];
    write_copies(&mut copies, &uuid, seqid.wrapping_add(1), &text);
    check(&copies)?;
    header[..COPIES_BYTES].copy_from_slice(&copies);
    Ok(())
}

/// Makes both copies equal again after a write that was interrupted between them: the newer valid copy wins, as in
/// cryptsetup. Returns whether anything was changed.
///
/// Only for bytes whose way is known (the authenticated boot region): on bytes from a host it would bless an old copy.
pub fn repair(header: &mut [u8]) -> Result<bool, HeaderRefusal> {
    if check(header).is_ok() {
        return Ok(false);
    }
    let primary = BinaryHeader::parse(header, Copy::Primary);
    let secondary = BinaryHeader::parse(header, Copy::Secondary);
    let newer = match (primary, secondary) {
        (Ok(primary), Ok(secondary)) if secondary.seqid > primary.seqid => secondary,
        (Ok(primary), _) => primary,
        (Err(_), Ok(secondary)) => secondary,
        (Err(refusal), Err(_)) => return Err(refusal),
    };
    check_copy(&newer)?;
    let (uuid, seqid, json) = (newer.uuid.to_owned(), newer.seqid, newer.json.to_owned());
    write_copies(header, &uuid, seqid, &json);
    Ok(true)
}
