//! The reading back of a move: over another connection, every row of the target is what the source's is, every key opens to
//! the same secret, every object in the token signs for its row, and the log is one chain. That a symmetric key in the token is
//! the source's was proved when it was brought in; here it is proved that the row refers to that object.

use std::sync::Arc;

use super::move_seal::Seals;
use super::{CommandError, check, refusals};
use crate::store::snapshot::Snapshot;
use crate::store::tables::{
    Generation, LogEntry, Meta, Name, RetiredGeneration, RotationPolicy, Row, UsedToken, Version, page,
};
use crate::store::{Connection, Place, meta};

/// Compares all of it.
pub(super) async fn verify(
    source: &mut Connection,
    target: &Place,
    seals: &Seals,
) -> Result<(), CommandError> {
    let mut snapshot = Snapshot::open(target).await?;
    let proved = match compare(source, &mut snapshot, seals).await {
        Ok(()) => {
            let hsm = seals.token.as_ref().map(|token| Arc::clone(&token.hsm));
            check::contents(&mut snapshot, hsm, &seals.to).await.map(drop)
        }
        differing => differing,
    };
    snapshot.close().await;
    proved
}

async fn compare(
    source: &mut Connection,
    snapshot: &mut Snapshot,
    seals: &Seals,
) -> Result<(), CommandError> {
    let target = &mut snapshot.connection;
    same::<Name>(source, target, PartialEq::eq).await?;
    same::<Version>(source, target, |one, other| seals.agree(one, other) && are_alike(one, other)).await?;
    same::<Generation>(source, target, PartialEq::eq).await?;
    same::<RetiredGeneration>(source, target, PartialEq::eq).await?;
    same::<RotationPolicy>(source, target, PartialEq::eq).await?;
    same::<UsedToken>(source, target, PartialEq::eq).await?;
    same::<LogEntry>(source, target, PartialEq::eq).await?;
    let values = [all(source).await?, all(target).await?].map(|values| {
        let kept = |value: &Meta| ![meta::MOVE, meta::READINESS].contains(&value.name.as_str());
        values.into_iter().filter(kept).collect::<Vec<Meta>>()
    });
    let [source, target] = values;
    let expected: Result<Vec<_>, _> = source.into_iter().map(|value| seals.value(value)).collect();
    let names = |values: &[Meta]| values.iter().map(|value| value.name.clone()).collect::<Vec<_>>();
    let expected: Vec<Meta> = expected?.into_iter().flatten().collect();
    let differs = |(one, other): (&Meta, &Meta)| one != other && one.name != meta::SIGNING_IDENTITY;
    if names(&expected) != names(&target) || expected.iter().zip(&target).any(differs) {
        return Err(refusals::copy_differs(Meta::NAME));
    }
    Ok(())
}

/// Everything but the seal, and the number of the row.
fn are_alike(one: &Version, other: &Version) -> bool {
    let Version {
        row_number: _,
        sealed: _,
        name,
        version,
        number,
        kty,
        modulus,
        exponent,
        curve,
        point,
        bits,
        ..
    } = one;
    (name, version, number, kty) == (&other.name, &other.version, &other.number, &other.kty)
        && (modulus, exponent, curve, point, bits)
            == (&other.modulus, &other.exponent, &other.curve, &other.point, &other.bits)
        && (&one.key_ops, &one.tags, one.enabled) == (&other.key_ops, &other.tags, other.enabled)
        && (one.not_before, one.expires, one.created, one.updated, one.revision)
            == (other.not_before, other.expires, other.created, other.updated, other.revision)
        && (one.exportable, &one.policy, &one.policy_type, one.policy_immutable)
            == (other.exportable, &other.policy, &other.policy_type, other.policy_immutable)
}

/// Fails at the first page that differs.
async fn same<R: Row>(
    source: &mut Connection,
    target: &mut Connection,
    equal: impl Fn(&R, &R) -> bool,
) -> Result<(), CommandError> {
    let (mut here, mut there) = (R::FIRST, R::FIRST);
    loop {
        let (ours, theirs): (Vec<R>, Vec<R>) = (page(source, &here).await?, page(target, &there).await?);
        let alike =
            ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(one, other)| equal(one, other));
        if !alike {
            return Err(refusals::copy_differs(R::NAME));
        }
        let (Some(last), Some(other)) = (ours.last(), theirs.last()) else { return Ok(()) };
        (here, there) = (last.cursor(), other.cursor());
    }
}

async fn all(connection: &mut Connection) -> Result<Vec<Meta>, CommandError> {
    Ok(page(connection, &Meta::FIRST).await?)
}
