//! What `backup` and `check` refuse, in the five parts.

use std::path::Path;

use public_api::decision_log::ChainError;
use token_verifier::refusal;

use super::CommandError;
use crate::hsm::HsmError;
use crate::store::StoreError;
use crate::store::keys::KeyRecord;

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
