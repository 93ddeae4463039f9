//! The model of a key name under the checker: what a vault must never do is told from what it may.

use std::collections::{BTreeMap, HashSet};

use super::checker::{Event, Wanted, ends};
use super::model::{Answer, Call, Id, KeyState, Name, Request};

const A: Id = Id::Known(1);
const B: Id = Id::Known(2);
const C: Id = Id::Known(3);

/// A history: start, end, call, and the answer if there was one.
type Line = (u64, u64, Call, Option<Answer>);

fn orders(lines: &[Line]) -> HashSet<KeyState> {
    let event = |(number, (start, end, call, answer)): (usize, &Line)| {
        let number = u32::try_from(number).unwrap();
        let request = Request { number, call: call.clone(), answer: answer.clone() };
        Event { start: *start, end: *end, answered: answer.is_some(), call: request }
    };
    let history: Vec<_> = lines.iter().enumerate().map(event).collect();
    ends::<Name>(&HashSet::from([KeyState::default()]), &history, Wanted::AllEnds).unwrap_or_default()
}

fn created(start: u64, end: u64, id: Id) -> Line {
    (start, end, Call::Create { mark: 1 }, Some(Answer::Key(id, 1)))
}

fn said(start: u64, call: Call, answer: Answer) -> Line {
    (start, start + 1, call, Some(answer))
}

#[test]
fn a_life_one_thing_after_the_other() {
    let versions = BTreeMap::from([(A, 1), (B, 2), (C, 2)]);
    let life = [
        said(1, Call::Read, Answer::NotFound),
        created(3, 4, A),
        said(5, Call::Create { mark: 2 }, Answer::Key(B, 2)),
        said(7, Call::Rotate, Answer::Key(C, 2)),
        said(9, Call::List, Answer::Versions(versions)),
        said(11, Call::Update { mark: 5 }, Answer::Key(C, 5)),
        said(13, Call::Use, Answer::Disabled),
        said(15, Call::UseVersion(B), Answer::Used(B)),
        said(17, Call::Delete, Answer::Key(C, 5)),
        said(19, Call::Create { mark: 9 }, Answer::Held),
        said(21, Call::ReadVersion(A), Answer::NotFound),
        said(23, Call::ReadDeleted, Answer::Key(C, 5)),
        said(25, Call::Recover, Answer::Key(C, 5)),
        said(27, Call::Update { mark: 6 }, Answer::Key(C, 6)),
        said(29, Call::Release { generation: 1 }, Answer::Used(C)),
        said(31, Call::Release { generation: 0 }, Answer::Rollback),
        said(33, Call::Release { generation: 3 }, Answer::Ahead),
        said(35, Call::Delete, Answer::Key(C, 6)),
        said(37, Call::Purge, Answer::Purged),
        said(39, Call::List, Answer::Versions(BTreeMap::new())),
    ];
    for length in 0..=life.len() {
        assert_eq!(orders(&life[..length]).len(), 1, "{:?}", life[..length].last());
    }
}

/// Each of these is a fault that a vault could have. The answer that is right in its place shows that the rest holds.
#[test]
fn faults_are_found() {
    let deleted = [created(1, 2, A), said(3, Call::Delete, Answer::Key(A, 1))];
    let purged = [&deleted[..], &[said(5, Call::Purge, Answer::Purged)]].concat();
    let rotated = [created(1, 2, A), said(3, Call::Rotate, Answer::Key(B, 1))];
    let released = [created(1, 2, A), said(3, Call::Release { generation: 1 }, Answer::Used(A))];
    let cases: [(&[Line], Call, Answer, Answer); 12] = [
        (&purged, Call::Read, Answer::NotFound, Answer::Key(A, 1)),
        (&purged, Call::ReadVersion(A), Answer::NotFound, Answer::Key(A, 1)),
        (&purged, Call::UseVersion(A), Answer::NotFound, Answer::Used(A)),
        (&purged, Call::Recover, Answer::NotFound, Answer::Key(A, 1)),
        (&purged, Call::Purge, Answer::NotFound, Answer::Purged),
        (&deleted, Call::Use, Answer::NotFound, Answer::Used(A)),
        (&deleted, Call::Create { mark: 3 }, Answer::Held, Answer::Key(B, 3)),
        (&rotated, Call::Read, Answer::Key(B, 1), Answer::Key(A, 1)),
        (&rotated, Call::Delete, Answer::Key(B, 1), Answer::Key(A, 1)),
        (&rotated, Call::Rotate, Answer::Key(C, 1), Answer::Key(A, 1)),
        (&released, Call::Release { generation: 0 }, Answer::Rollback, Answer::Used(A)),
        (
            &rotated,
            Call::List,
            Answer::Versions(BTreeMap::from([(A, 1), (B, 1)])),
            Answer::Versions(BTreeMap::from([(B, 1)])),
        ),
    ];
    for (before, call, right, wrong) in cases {
        let told = |answer| orders(&[before, &[said(9, call.clone(), answer)]].concat()).len();
        assert_eq!((told(right), told(wrong)), (1, 0), "{call:?}");
    }
}

/// A change that answered the version before the newest: told after the rotation it was made on the wrong version, told
/// before it the rotation would have taken it over.
#[test]
fn a_change_that_a_rotation_overtook() {
    let update = (3, 8, Call::Update { mark: 2 }, Some(Answer::Key(A, 2)));
    let rotation = |mark| (4, 5, Call::Rotate, Some(Answer::Key(B, mark)));
    assert_eq!(orders(&[created(1, 2, A), update.clone(), rotation(2)]).len(), 1);
    assert_eq!(orders(&[created(1, 2, A), update, rotation(1)]).len(), 0);
}

#[test]
fn only_one_of_two_purges_beside_each_other_had_something_to_destroy() {
    let before = [created(1, 2, A), said(3, Call::Delete, Answer::Key(A, 1))];
    let purges = |first: Answer, second: Answer| {
        let both = [(5, 8, Call::Purge, Some(first)), (6, 7, Call::Purge, Some(second))];
        orders(&[&before[..], &both].concat()).len()
    };
    assert_eq!(purges(Answer::Purged, Answer::NotFound), 1);
    assert_eq!(purges(Answer::NotFound, Answer::Purged), 1);
    assert_eq!(purges(Answer::Purged, Answer::Purged), 0);
}

/// Versions of requests that were never answered are recognised when somebody sees them.
#[test]
fn unanswered_requests_are_recognised_by_what_they_left() {
    let lost = |mark| (3, 10, Call::Create { mark }, None);
    let begun = [created(1, 2, A), lost(2), lost(3)];
    let then = |lines: &[Line]| orders(&[&begun[..], lines].concat()).len();
    // Neither, either one, or both in either order.
    assert_eq!(then(&[]), 5);
    assert_eq!(then(&[said(11, Call::Read, Answer::Key(A, 1))]), 1);
    // Alone, or behind the other, of which nothing is known yet.
    assert_eq!(then(&[said(11, Call::Read, Answer::Key(B, 2))]), 2);
    assert_eq!(then(&[said(11, Call::Read, Answer::Key(B, 7))]), 0, "no request had this mark");
    let both = Answer::Versions(BTreeMap::from([(A, 1), (B, 2), (C, 3)]));
    let read = said(13, Call::Read, Answer::Key(B, 2));
    assert_eq!(then(&[said(11, Call::List, both.clone()), read.clone()]), 1);
    assert_eq!(
        then(&[read, said(15, Call::ReadVersion(C), Answer::Key(C, 3)), said(17, Call::List, both)]),
        1
    );
    let gone = Answer::Versions(BTreeMap::from([(B, 2)]));
    assert_eq!(then(&[said(11, Call::List, gone)]), 0, "an answered creation is lost");
}
