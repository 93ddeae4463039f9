//! What `backup`, `check` and `move` refuse, in the five parts.

use std::path::Path;

use public_api::decision_log::ChainError;
use token_verifier::refusal;

use super::CommandError;
use crate::hsm::HsmError;
use crate::store::keys::KeyRecord;
use crate::store::standing::{Part, Standing};
use crate::store::tables::Version;
use crate::store::{Place, StoreError};

/// Primary result codes of a file that is damaged, or that is no database. Source: SQLite, "Result and Error Codes".
const CORRUPT: [i32; 2] = [11, 26];
/// The extended code of a file that ends in the middle of a page.
const SHORT_READ: i32 = 522;
const RESTORE: &str = "restore a copy that `casemate-keys check` found whole";

/// The target of a backup is taken.
pub fn target_exists(target: &Path) -> CommandError {
    let rule = "a backup writes over nothing";
    let actual = format!("{} is there", target.display());
    let remedy = "name another file, or move that one away";
    refused("BackupTargetExists", "--to", "a file that there is not", actual, rule, remedy)
}

/// A PostgreSQL database is not copied by us.
pub fn backup_of_server(server: &str) -> CommandError {
    let rule = "a database server is backed up by its own tools, which know its log and its other databases";
    let remedy =
        "run `pg_dump --schema` or the server's base backups; to get a SQLite file, `casemate-keys move`";
    refused("BackupOfServer", "[database]", "a SQLite file in data_dir", server, rule, remedy)
}

/// SQLite's structures do not hold.
pub fn damaged(found: String) -> CommandError {
    let rule = "SQLite's integrity_check and foreign_key_check find nothing";
    refused("DatabaseDamaged", "database file", "a whole database", found, rule, RESTORE)
}

/// Not the tables that this program reads.
pub fn schema(version: i64) -> CommandError {
    let rule = "check reads the schema of its own program and changes none";
    let actual = match version {
        0 => "no schema of a key service".to_owned(),
        version => format!("schema {version}, of another program"),
    };
    let remedy = "check it with the program that made it, or let this program's service start on it first; if it is empty, \
                  name the right file";
    refused("SchemaUnknown", "schema", "the schema of this program", actual, rule, remedy)
}

/// There is no master key id, so no service ever started on it.
pub fn never_used() -> CommandError {
    let rule = "a database knows the master key that it was sealed under";
    let expected = "the id of a master key";
    refused("MasterKeyUnnamed", "master-key-id", expected, "none", rule, RESTORE)
}

/// A key that does not open.
pub fn sealed(record: &KeyRecord) -> CommandError {
    let rule =
        "a stored key is sealed under the master key to its name, version, type, exportability and policy";
    let actual = "it does not open: the row was changed or damaged";
    refused("StoredKeyBroken", subject(record), "it opens under the master key", actual, rule, RESTORE)
}

/// A key whose public part is another's.
pub fn public_part(record: &KeyRecord) -> CommandError {
    let rule = "what is answered as a key's public part is its own";
    let expected = "the public part of its private key";
    refused("PublicPartWrong", subject(record), expected, "another public part", rule, RESTORE)
}

/// A key in a token, and no token to look into.
pub fn no_token(record: &KeyRecord) -> CommandError {
    let rule = "a key in an HSM is proved by the HSM";
    let remedy = "name the token that holds the key in the configuration ([hsm])";
    refused("HsmNotConfigured", subject(record), "the token that holds it", "no token", rule, remedy)
}

/// A key whose object is not as its row says; other faults of the token are no finding.
pub fn token_object(record: &KeyRecord, error: HsmError) -> CommandError {
    match error {
        HsmError::KeyMissing(_) | HsmError::KeyAmbiguous { .. } | HsmError::KeyUnprotected(_) => {
            let rule = "a key in an HSM is one object of the token, as protected as it was made";
            let remedy = "restore the token from its own backup, or purge the key";
            let expected = "its object in the token";
            refused("HsmKeyObject", subject(record), expected, error.to_string(), rule, remedy)
        }
        other => CommandError::Hsm(other),
    }
}

/// The release-signing identity.
pub fn signing_identity(error: &dyn std::error::Error) -> CommandError {
    let rule = "release answers are signed under a root whose key is stored sealed";
    let expected = "an identity that opens under the master key";
    refused("SigningIdentityBroken", "release-signing-identity", expected, crate::chain(error), rule, RESTORE)
}

/// The decision log.
pub fn log(error: &ChainError) -> CommandError {
    let rule =
        "each entry has the next number and the hash of the entry before it, and its own hash is right";
    refused("LogBroken", "decision log", "one whole chain", error.to_string(), rule, RESTORE)
}

/// A key that does not open while the vault is moved.
pub fn moved_key(version: &Version) -> CommandError {
    let rule = "a vault is moved whole: each key is opened under the master key of the source and sealed under the target's";
    let subject = format!("keys/{}/{}", version.name, version.version);
    refused("StoredKeyBroken", subject, "it opens under the master key", "it does not open", rule, RESTORE)
}

/// An installation with other vaults, which a move would leave behind.
pub fn named_vaults(data_dir: &Path) -> CommandError {
    let rule = "a move carries one vault; named vaults lie in files beside the default one";
    let remedy = "leave [vaults] out of both configurations if there are no named vaults; else stay on files";
    refused(
        "NamedVaultsNotMoved",
        "vaults",
        "no [vaults] section",
        data_dir.display().to_string(),
        rule,
        remedy,
    )
}

/// Keys in a token that the target has not; the first of them.
pub fn left_behind(first: &KeyRecord, count: usize, has_token: bool) -> CommandError {
    let rule = "a key leaves its token by a release only, so a vault moves to where the token is";
    let expected = "the token that holds it, named by the target's configuration ([hsm])";
    let actual = match has_token {
        true => format!("a token without {count} of the vault's key versions"),
        false => format!("no [hsm], and {count} of the vault's key versions lie in a token"),
    };
    let remedy =
        "name the token that holds the keys in the target's [hsm]; or make new keys there, and purge these";
    refused("HsmKeyNotMoved", subject(first), expected, actual, rule, remedy)
}

/// A key that the target's token cannot take; that the token is away is no finding.
pub fn not_taken(record: &KeyRecord, error: HsmError) -> CommandError {
    if error.is_unavailable() {
        return CommandError::Hsm(error);
    }
    let rule = "by the target's configuration this key lives in the token, which must take it in and use it";
    let remedy = "name a token that can ([hsm]); for types without -HSM, `all_keys = false` leaves them sealed; or purge the \
                  key. The source is unchanged";
    let expected = "a token that takes this key";
    refused("HsmKeyNotTaken", subject(record), expected, crate::chain(&error), rule, remedy)
}

/// What the token made of a key is not that key.
pub fn not_the_key(record: &KeyRecord) -> CommandError {
    let rule =
        "what is brought into a token proves there that it is the key, and as protected as it should be";
    let remedy = "the source is unchanged; find out what is wrong with the token, or name another";
    let actual = "an object that does not";
    refused("HsmKeyNotProved", subject(record), "an object that works as the key", actual, rule, remedy)
}

/// The token holds what a move has brought in, and does not let go of it.
pub fn copies_left(error: &CommandError) -> CommandError {
    let rule = "a move that is called off takes out of the token what it has brought in";
    let remedy = "bring the token back and call off again; or leave [hsm] out of the target's configuration: then the copies \
                  stay in the token";
    let expected = "the token of the target, and its master key";
    refused("HsmCopiesLeft", "[hsm]", expected, crate::chain(error), rule, remedy)
}

/// The target's configuration is not what it was when the move began.
pub fn target_changed(begun: &str, now: &str) -> CommandError {
    let rule =
        "a move is gone on with as it was begun: what it has brought into a token is found again there only";
    let remedy = "put the target's [master_key] and [hsm] back as they were; or, as long as the source is not left, call the \
                  move off and begin another";
    refused("TargetChanged", "--to", begun, now, rule, remedy)
}

/// The target is not that of the move.
pub fn call_off_of_another(named: &Place, other: &str) -> CommandError {
    let rule = "a move is called off with the configurations that it was begun with";
    let remedy = "name the configuration of the target that the move was begun with";
    refused("CallOffOfAnother", "--to", other, named.to_string(), rule, remedy)
}

/// Both ends are the same.
pub fn move_to_itself(place: &Place) -> CommandError {
    let rule = "a vault is moved from one database to another";
    let remedy = "name the configuration of the other database with --to";
    refused("MoveToItself", "--to", "another database than --from names", place.to_string(), rule, remedy)
}

/// The source is an end of a move, but not one from which it can go on.
pub fn not_a_vault(standing: &Standing) -> CommandError {
    let rule = "of the two ends of a move at most one is a vault";
    let (actual, remedy) = match standing.part {
        Part::Source => ("it is being moved", "run the same `casemate-keys move` again, or with --call-off"),
        Part::Left => ("it was moved", "use the database that it was moved to"),
        Part::Target => ("it is an incomplete copy", "run the same `casemate-keys move` again"),
    };
    let actual = format!("{actual}; the other end is {}", standing.other);
    refused("VaultMoved", "database", "a vault that is not being moved", actual, rule, remedy)
}

/// The target belongs to another move.
pub fn target_of_another_move(place: &Place, standing: &Standing) -> CommandError {
    let rule = "a move fills an empty database, or goes on with its own";
    let actual = format!("{place} is an end of move {}, with {}", standing.id, standing.other);
    let remedy = "run that move again to finish it; if it was called off, remove the incomplete database and move again";
    refused("TargetOfAnotherMove", "--to", "an empty database", actual, rule, remedy)
}

/// The target has something.
pub fn target_not_empty(place: &Place) -> CommandError {
    let rule = "a move writes over nothing";
    let remedy = "name an empty database: no file, or a schema that there is not";
    refused("TargetNotEmpty", "--to", "an empty database", format!("{place} holds rows"), rule, remedy)
}

/// What was written is not what is read.
pub fn copy_differs(table: &str) -> CommandError {
    let rule = "a move is done when what it wrote was read back";
    let remedy = "the source is unchanged; find out what is wrong with the target, and move to another";
    refused("CopyDiffers", table, "the rows of the source", "other rows", rule, remedy)
}

/// The source is no longer the vault.
pub fn not_to_be_called_off(standing: &Standing) -> CommandError {
    let rule = "a move is called off as long as its target has not taken over";
    let remedy = "run the same `casemate-keys move` again: it needs the last step only; then move back";
    let actual = format!("the other end, {}, has taken over or is to", standing.other);
    refused("MoveNotCalledOff", "--call-off", "a move whose source is still whole", actual, rule, remedy)
}

/// There is no move.
pub fn nothing_to_call_off(place: &Place) -> CommandError {
    let rule = "only a move that was begun is called off";
    refused(
        "NoMove",
        "--call-off",
        "a vault that is being moved",
        place.to_string(),
        rule,
        "start the service",
    )
}

/// A database's error: a refusal if the file is to blame.
pub fn of_store(error: StoreError) -> CommandError {
    match error {
        StoreError::Corrupt(_) => damaged(error.to_string()),
        StoreError::Statement(ref source) if is_damage(source) => damaged(crate::chain(&error)),
        other => CommandError::Store(other),
    }
}

fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| code == SHORT_READ || CORRUPT.contains(&(code & 0xff)))
}

fn subject(record: &KeyRecord) -> String {
    format!("keys/{}/{}", record.name, record.version)
}

fn refused(
    code: &str,
    claim: impl Into<String>,
    expected: &str,
    actual: impl Into<String>,
    rule: &str,
    remedy: &str,
) -> CommandError {
    CommandError::Refused(refusal(code, claim, expected, actual, rule, remedy))
}
