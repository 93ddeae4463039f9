//! The marks of a move: what stands at both ends, and whether a move begins there, goes on, or is refused.

use uuid::Uuid;

use super::move_vault::End;
use super::{CommandError, refusals};
use crate::store::standing::{self, Part, Standing};
use crate::store::tables;

/// What stands at both ends.
pub(super) struct Marks {
    /// The same at both ends.
    pub id: String,
    /// Where the source stands; `Source` for a move that begins.
    pub part: Part,
    /// Whether this is the first try.
    pub is_new: bool,
    from: String,
    to: String,
    /// Where the target keeps keys, if the move has begun and says so.
    keeps: Option<String>,
}

impl Marks {
    /// Refuses what is neither the beginning of a move nor its middle.
    pub async fn of(source: &mut End, target: &mut End) -> Result<Self, CommandError> {
        let from = standing::read(&mut source.connection).await?;
        let to = standing::read(&mut target.connection).await?;
        let keeps = from.as_ref().and_then(|standing| standing.keeps.clone());
        let is_empty = tables::are_empty(&mut target.connection).await?;
        let (id, part, is_new) = match (from, to) {
            (None, None) if is_empty => (Uuid::new_v4().to_string(), Part::Source, true),
            (Some(Standing { part: Part::Source, id, .. }), None) if is_empty => (id, Part::Source, false),
            (Some(from), Some(to)) if from.part != Part::Target && from.id == to.id => {
                (from.id, from.part, false)
            }
            (Some(from), _) if from.part != Part::Source => return Err(refusals::not_a_vault(&from)),
            (_, Some(to)) => return Err(refusals::target_of_another_move(&target.place, &to)),
            (_, None) => return Err(refusals::target_not_empty(&target.place)),
        };
        Ok(Self { id, part, is_new, from: source.place.to_string(), to: target.place.to_string(), keeps })
    }

    /// Refuses to go on towards another token or under another master key: what the first try has brought in would be
    /// left behind, and nobody would know of it.
    pub fn begin_or_go_on(&mut self, keeps: String) -> Result<(), CommandError> {
        match &self.keeps {
            Some(begun) if *begun != keeps => Err(refusals::target_changed(begun, &keeps)),
            _ => {
                self.keeps = Some(keeps);
                Ok(())
            }
        }
    }

    /// For the source.
    pub fn at_source(&self, part: Part) -> Standing {
        Standing { part, other: self.to.clone(), id: self.id.clone(), keeps: self.keeps.clone() }
    }

    /// For the target.
    pub fn at_target(&self) -> Standing {
        Standing { part: Part::Target, other: self.from.clone(), id: self.id.clone(), keeps: None }
    }
}
