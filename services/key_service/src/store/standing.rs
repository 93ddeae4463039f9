//! Whether a database may be served: one that is being filled by a move is not yet a vault, and one that was moved away is
//! no vault any more. Served all the same, used tokens and generations would be known to one of two vaults only.

use serde::{Deserialize, Serialize};

use super::backend::Connection;
use super::postgres::ServerError;
use super::{StoreError, meta};

/// Where a database stands in a move; a vault that stands in none has no such row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Standing {
    /// Which end it is.
    pub part: Part,
    /// The other end, as a person would name it.
    pub other: String,
    /// The same at both ends.
    pub id: String,
    /// Where the target keeps keys, as its configuration said when the move began; moves of former programs do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<String>,
}

/// Which end of a move a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// It is being copied.
    Source,
    /// It was copied, and the copy is complete.
    Left,
    /// It is being filled.
    Target,
}

/// The database is one end of a move.
#[derive(Debug, thiserror::Error)]
#[error("{}", said(.0))]
pub struct NotServed(Box<Standing>);

fn said(standing: &Standing) -> String {
    let Standing { part, other, .. } = standing;
    match part {
        Part::Source => {
            format!("this vault is being moved to {other}; finish `casemate-keys move`, or call it off")
        }
        Part::Left => format!("this vault was moved to {other}; point the configuration there"),
        Part::Target => {
            format!("this vault is incomplete: a move from {other} did not end; finish `casemate-keys move`")
        }
    }
}

/// Reads where the database stands.
pub async fn read(connection: &mut Connection) -> Result<Option<Standing>, StoreError> {
    let bytes = meta::read(connection, meta::MOVE).await?;
    let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    parsed.map_err(|_| StoreError::Corrupt("mark of a move"))
}

/// Writes where it stands; a vault stands nowhere.
pub async fn write(connection: &mut Connection, standing: Option<&Standing>) -> Result<(), StoreError> {
    match standing {
        Some(standing) => {
            let bytes = serde_json::to_vec(standing).expect("a mark has only string keys");
            meta::write(connection, meta::MOVE, &bytes).await
        }
        None => meta::remove(connection, meta::MOVE).await,
    }
}

/// Passes if the database may be served.
pub async fn check(connection: &mut Connection) -> Result<(), ServerError> {
    let standing = read(connection).await.map_err(|error| ServerError::Standing(error.into()))?;
    standing.map_or(Ok(()), |standing| Err(ServerError::Standing(NotServed(Box::new(standing)).into())))
}
