//! The checker itself, on the smallest thing that there is: a register. It tells histories that have an order from those
//! that have none, and agrees with trying every order.

use std::collections::HashSet;

use proptest::prelude::*;

use super::checker::{Event, Model, Wanted, ends};

/// A number that is written and read.
struct Register;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Write(u8),
    Read(u8),
}
use Access::{Read, Write};

impl Model for Register {
    type State = u8;
    type Call = Access;

    fn step(state: &u8, call: &Access) -> Vec<u8> {
        match call {
            Write(value) => vec![*value],
            Read(value) if value == state => vec![*state],
            Read(_) => vec![],
        }
    }

    fn only_looks(call: &Access) -> bool {
        matches!(call, Read(_))
    }
}

fn event((start, end, call): (u64, u64, Access)) -> Event<Access> {
    Event { start, end, answered: true, call }
}

/// A call whose server was dead at `end`.
fn unanswered(start: u64, end: u64, call: Access) -> Event<Access> {
    Event { answered: false, ..event((start, end, call)) }
}

/// The values with which the history can end, if it begins with 0.
fn values(history: &[Event<Access>]) -> Vec<u8> {
    let found = ends::<Register>(&HashSet::from([0]), history, Wanted::AllEnds).unwrap_or_default();
    let mut found: Vec<u8> = found.into_iter().collect();
    found.sort_unstable();
    found
}

fn check(calls: &[(u64, u64, Access)], expected: &[u8]) {
    let history: Vec<_> = calls.iter().copied().map(event).collect();
    assert_eq!(values(&history), expected, "{calls:?}");
    let any = ends::<Register>(&HashSet::from([0]), &history, Wanted::AnyEnd);
    assert_eq!(any.is_ok(), !expected.is_empty(), "{calls:?}");
}

#[test]
fn histories_that_have_an_order() {
    check(&[], &[0]);
    check(&[(1, 2, Write(1)), (3, 4, Read(1))], &[1]);
    // A read beside a write sees what was before or what comes.
    check(&[(1, 4, Write(1)), (2, 3, Read(0))], &[1]);
    check(&[(1, 4, Write(1)), (2, 3, Read(1))], &[1]);
    check(&[(1, 8, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))], &[1]);
    // Writes beside each other, in either order; a read afterwards says in which.
    check(&[(1, 4, Write(1)), (2, 3, Write(2))], &[1, 2]);
    check(&[(1, 4, Write(1)), (2, 3, Write(2)), (5, 6, Read(1))], &[1]);
    check(&[(1, 9, Write(1)), (2, 10, Write(2)), (3, 4, Read(2)), (5, 6, Read(1))], &[1]);
}

#[test]
fn histories_that_have_none() {
    // A write that was answered is gone.
    check(&[(1, 2, Write(1)), (3, 4, Read(0))], &[]);
    // Nobody wrote that.
    check(&[(1, 4, Write(1)), (2, 3, Read(2))], &[]);
    // What was seen is unseen.
    check(&[(1, 8, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))], &[]);
    // Two readers see two writes in different orders.
    check(
        &[
            (1, 20, Write(1)),
            (2, 21, Write(2)),
            (3, 4, Read(1)),
            (5, 6, Read(2)),
            (7, 8, Read(1)),
            (9, 10, Read(2)),
        ],
        &[],
    );
    // The older of two writes, one after the other, is what stays.
    check(&[(1, 2, Write(1)), (3, 4, Write(2)), (5, 6, Read(1))], &[]);
}

#[test]
fn a_call_without_an_answer_happened_before_its_servers_death_or_never() {
    let write = unanswered(1, 5, Write(1));
    let with = |reads: &[(u64, u64, Access)]| {
        let mut history: Vec<_> = reads.iter().copied().map(event).collect();
        history.push(write.clone());
        values(&history)
    };
    assert_eq!(with(&[]), [0, 1]);
    assert_eq!(with(&[(6, 7, Read(0))]), [0]);
    assert_eq!(with(&[(6, 7, Read(1))]), [1]);
    assert_eq!(with(&[(2, 3, Read(0)), (6, 7, Read(1))]), [1]);
    assert_eq!(with(&[(2, 3, Read(1)), (6, 7, Read(0))]), [] as [u8; 0], "it was seen, so it stays");
    assert_eq!(with(&[(6, 7, Read(0)), (8, 9, Read(1))]), [] as [u8; 0], "it comes after the death");
    assert_eq!(with(&[(6, 7, Read(1)), (8, 9, Read(0))]), [] as [u8; 0], "it happens once");
}

#[test]
fn a_search_that_finds_nothing_says_where_it_stood() {
    let history = [event((1, 2, Write(7))), event((3, 4, Read(8)))];
    let stuck = ends::<Register>(&HashSet::from([0]), &history, Wanted::AllEnds).unwrap_err();
    assert_eq!(stuck.done, 1);
    assert!(stuck.place.starts_with("7\n") && stuck.place.contains("Read(8)"), "{}", stuck.place);
}

/// Every order of the calls, without any cleverness.
fn brute(done: &mut Vec<usize>, state: u8, history: &[Event<Access>], found: &mut HashSet<u8>) {
    let left = |call: &usize| !done.contains(call);
    let rest: Vec<usize> = (0..history.len()).filter(left).collect();
    if rest.iter().all(|call| !history[*call].answered) {
        found.insert(state);
    }
    for next in rest.iter().copied() {
        let begun = history[next].start;
        let late = |other: &usize| history[*other].answered && history[*other].end < begun;
        let dead = done.iter().any(|other| history[*other].start > history[next].end);
        if rest.iter().any(late) || dead {
            continue;
        }
        for after in Register::step(&state, &history[next].call) {
            done.push(next);
            brute(done, after, history, found);
            done.pop();
        }
    }
}

/// Up to six calls, on times of which each is used once.
fn histories() -> impl Strategy<Value = Vec<Event<Access>>> {
    let access = prop_oneof![(1..4_u8).prop_map(Write), (0..4_u8).prop_map(Read)];
    let call = (access, prop::bool::weighted(0.8));
    prop::collection::vec(call, 0..7).prop_flat_map(|calls| {
        let times: Vec<u64> = (1..=2 * calls.len() as u64).collect();
        Just(times).prop_shuffle().prop_map(move |times| {
            let pairs = times.chunks(2).zip(&calls);
            pairs
                .map(|(time, (call, answered))| {
                    let (start, end) = (time[0].min(time[1]), time[0].max(time[1]));
                    Event { start, end, answered: *answered, call: *call }
                })
                .collect()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_agrees_with_trying_every_order(history in histories()) {
        let mut expected = HashSet::new();
        brute(&mut Vec::new(), 0, &history, &mut expected);
        let mut expected: Vec<u8> = expected.into_iter().collect();
        expected.sort_unstable();
        prop_assert_eq!(values(&history), expected);
    }
}
