//! A guest state moves to another key, under a running guest and at a start: crashes, attacks, and a key that is revoked.

use std::panic::{AssertUnwindSafe, catch_unwind};

use internal_api::paravisor::{Event, Step};
use paravisor::flow::key_check::Answer;
use paravisor::flow::start::Running;
use sealed_disk::guest_state::{Changes, Kek, LockedState};

use crate::lab::guest::Guest;
use crate::lab::services::{KEY_ID, NEXT_KEY_ID, key, put_key, succession};
use crate::lab::{Lab, VM, put_back};
use crate::support::one_tpm_at_a_time;

fn consent(lab: &Lab, old: &str, new: &str) {
    lab.services.consents.lock().unwrap().insert((old.to_owned(), new.to_owned()));
}

/// A VM whose key's owner lets the next key follow.
fn lab_with_consent() -> Lab {
    let lab = Lab::new();
    consent(&lab, KEY_ID, NEXT_KEY_ID);
    lab
}

fn to_next(lab: &mut Lab) {
    lab.relaunch(|document| document.key_id = NEXT_KEY_ID.to_owned());
}

fn refused(lab: &Lab, running: &Running, code: &str) {
    let stop = running.change_key(NEXT_KEY_ID).expect_err("must be refused");
    assert_eq!(stop.failure().code, code, "{:?}", stop.failure());
    let events = lab.told.events.lock().unwrap();
    let Some(Event::KeyNotChanged { key_id, failure }) = events.last() else { panic!("{:?}", events.last()) };
    assert_eq!((key_id.as_str(), failure), (NEXT_KEY_ID, stop.failure()));
}

fn keys_told(lab: &Lab) -> Vec<String> {
    let key = |event: &Event| match event {
        Event::KeyInUse { key_id } => Some(key_id.clone()),
        _ => None,
    };
    lab.told.events.lock().unwrap().iter().filter_map(key).collect()
}

#[test]
fn the_key_changes_under_a_running_guest() {
    let _tpm = one_tpm_at_a_time();
    let mut lab = lab_with_consent();
    let running = lab.start().unwrap();
    let guest = Guest::boot(&running, &lab.config.vars);
    let volume = guest.open_volume().unwrap();
    running.change_key(NEXT_KEY_ID).unwrap();
    assert_eq!(lab.state_key(), (NEXT_KEY_ID.to_owned(), 2));
    assert_eq!(keys_told(&lab), [KEY_ID, NEXT_KEY_ID]);
    assert_eq!(lab.services.released(), [0, 1, 1, 1, 2]);
    running.change_key(NEXT_KEY_ID).unwrap();
    assert_eq!(lab.state_key().1, 2, "it is there already");
    // What the guest does goes on, and is kept under the new key.
    running.disk().write_at(&[7; 512], 34 * 512).unwrap();
    running.disk().flush().unwrap();
    running.reset().unwrap();
    assert_eq!(Guest::boot(&running, &lab.config.vars).open_volume().unwrap().expose(), volume.expose());
    assert_eq!(running.stop().unwrap(), 3);
    drop(running);
    lab.services.disabled.lock().unwrap().insert(KEY_ID.to_owned());
    to_next(&mut lab);
    let running = lab.start().unwrap();
    let guest = Guest::boot(&running, &lab.config.vars);
    assert_eq!(guest.open_volume().unwrap().expose(), volume.expose());
    let mut sector = [0; 512];
    running.disk().read_at(&mut sector, 34 * 512).unwrap();
    assert_eq!(sector, [7; 512]);
}

#[test]
fn a_stopped_vm_moves_at_its_next_start_and_back_again() {
    let _tpm = one_tpm_at_a_time();
    let mut lab = lab_with_consent();
    let running = lab.start().unwrap();
    let volume = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    running.stop().unwrap();
    drop(running);
    to_next(&mut lab);
    let running = lab.start().unwrap();
    assert_eq!(lab.state_key(), (NEXT_KEY_ID.to_owned(), 3));
    assert!(lab.told.steps().contains(&Step::ChangeKey));
    assert_eq!(keys_told(&lab).last().unwrap(), NEXT_KEY_ID);
    let guest = Guest::boot(&running, &lab.config.vars);
    assert_eq!(guest.open_volume().unwrap().expose(), volume.expose());
    running.stop().unwrap();
    drop(running);
    consent(&lab, NEXT_KEY_ID, KEY_ID);
    lab.relaunch(|document| document.key_id = KEY_ID.to_owned());
    let running = lab.start().unwrap();
    assert_eq!(lab.state_key().0, KEY_ID);
    assert_eq!(Guest::boot(&running, &lab.config.vars).open_volume().unwrap().expose(), volume.expose());
}

/// The state of a former version names no key.
#[test]
fn a_state_that_names_no_key_is_under_the_first_one() {
    let _tpm = one_tpm_at_a_time();
    let mut lab = lab_with_consent();
    let generation = lab.run_once();
    {
        let file = std::fs::File::options().read(true).write(true).open(&lab.config.guest_state).unwrap();
        let kek = Kek::from_pkcs8(key(0)).unwrap();
        let mut state = LockedState::open(file, VM.parse().unwrap()).unwrap().unlock(&kek).unwrap();
        state.advance(Changes::new(), generation + 1).unwrap();
        assert_eq!(state.key_id(), None);
    }
    lab.relaunch(|document| {
        document.key_id = NEXT_KEY_ID.to_owned();
        document.first_key_id = Some(KEY_ID.to_owned());
    });
    let running = lab.start().unwrap();
    assert_eq!(lab.state_key().0, NEXT_KEY_ID);
    running.stop().unwrap();
    drop(running);
    // From now on the state says it itself, and the document's word does not matter.
    lab.relaunch(|document| document.first_key_id = Some("https://keys.example/keys/never/1".to_owned()));
    lab.run_once();
}

#[test]
fn a_launch_document_that_names_a_key_to_which_nobody_consented() {
    let _tpm = one_tpm_at_a_time();
    let mut lab = Lab::new();
    lab.run_once();
    let before = lab.keep_copy();
    to_next(&mut lab);
    lab.refused("SuccessorNotNamed");
    assert!(lab.keep_copy() == before, "nothing was touched");
    lab.relaunch(|document| document.key_id = KEY_ID.to_owned());
    lab.run_once();
}

#[test]
fn a_host_that_asks_a_running_vm_for_a_key_to_which_nobody_consented() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    refused(&lab, &running, "SuccessorNotNamed");
    assert_eq!(lab.state_key(), (KEY_ID.to_owned(), 1));
    running.stop().unwrap();
    drop(running);
    lab.run_once();
}

/// The operator's own key service in the place of the tenant's, which passes the tenant's key on and adds what it likes.
#[test]
fn an_operators_key_service_that_forges_the_consent() {
    type Spoil = fn(&mut public_api::keys::ReleasePayload, &public_api::jwk::Jwk);
    let _tpm = one_tpm_at_a_time();
    let mut lab = lab_with_consent();
    lab.run_once();
    let attacks: [(&str, Spoil, &str); 7] = [
        ("no statement", |payload, _| payload.response.succession = None, "SuccessorNotProved"),
        (
            "a statement of the operator's key",
            |payload, _| {
                let nonce = payload.request.nonce.clone().unwrap();
                let said = succession(key(3), KEY_ID, NEXT_KEY_ID, key(3), &nonce);
                payload.response.succession = Some(said);
            },
            "SuccessorNotProved",
        ),
        (
            "a statement of the old key from an earlier answer",
            |payload, _| {
                payload.response.succession =
                    Some(succession(key(0), KEY_ID, NEXT_KEY_ID, key(2), "an earlier nonce"));
            },
            "SuccessorNotProved",
        ),
        (
            "another old key's statement, replayed",
            |payload, _| {
                let nonce = payload.request.nonce.clone().unwrap();
                let said = succession(key(0), "https://keys.example/keys/vm/1", NEXT_KEY_ID, key(2), &nonce);
                payload.response.succession = Some(said);
            },
            "SuccessorNotProved",
        ),
        (
            "a true statement about another key",
            |payload, _| {
                let nonce = payload.request.nonce.clone().unwrap();
                let other = "https://keys.example/keys/other/1";
                payload.response.succession = Some(succession(key(0), KEY_ID, other, key(1), &nonce));
            },
            "SuccessorNotProved",
        ),
        (
            "another public key in a true statement",
            |payload, _| {
                if let Some(said) = &mut payload.response.succession {
                    said.public_key_digest = "00".repeat(32);
                }
            },
            "SuccessorNotProved",
        ),
        (
            "the operator's key under the name of the new one",
            |payload, transfer| {
                if payload.request.kid == NEXT_KEY_ID {
                    put_key(payload, transfer, key(3));
                }
            },
            "SuccessorReplaced",
        ),
    ];
    for (name, spoil, code) in attacks {
        // Under the running VM.
        lab.relaunch(|document| document.key_id = KEY_ID.to_owned());
        let running = lab.start().unwrap();
        let before = lab.state_key();
        *lab.services.spoil.lock().unwrap() = Some(spoil);
        let stop = running.change_key(NEXT_KEY_ID).expect_err(name);
        assert_eq!(stop.failure().code, code, "{name}");
        *lab.services.spoil.lock().unwrap() = None;
        assert_eq!(lab.state_key(), before, "{name}");
        running.stop().unwrap();
        drop(running);
        // At a start.
        to_next(&mut lab);
        *lab.services.spoil.lock().unwrap() = Some(spoil);
        let before = lab.keep_copy();
        lab.refused(code);
        *lab.services.spoil.lock().unwrap() = None;
        assert!(lab.keep_copy() == before, "{name}: nothing was touched");
    }
    lab.relaunch(|document| document.key_id = KEY_ID.to_owned());
    lab.run_once();
}

/// Old key, statement and new key all of the operator's making: consistent, but the state was never under that old key.
#[test]
fn an_operators_key_in_the_place_of_the_old_one() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab_with_consent();
    let running = lab.start().unwrap();
    *lab.services.spoil.lock().unwrap() = Some(|payload, transfer| {
        put_key(payload, transfer, key(3));
        let nonce = payload.request.nonce.clone().unwrap();
        if payload.response.succession.is_some() {
            payload.response.succession = Some(succession(key(3), KEY_ID, NEXT_KEY_ID, key(3), &nonce));
        }
    });
    refused(&lab, &running, "SuccessorNotProved");
    assert_eq!(lab.state_key(), (KEY_ID.to_owned(), 1));
    *lab.services.spoil.lock().unwrap() = None;
    running.change_key(NEXT_KEY_ID).unwrap();
}

#[test]
fn the_older_key_and_an_older_state_again_after_the_move() {
    let _tpm = one_tpm_at_a_time();
    let mut lab = lab_with_consent();
    lab.run_once();
    let older = lab.keep_copy();
    let running = lab.start().unwrap();
    running.change_key(NEXT_KEY_ID).unwrap();
    running.stop().unwrap();
    drop(running);
    // The launch document of before: nobody consented to the way back.
    lab.refused("SuccessorNotNamed");
    // With the state of before.
    put_back(&older);
    lab.refused("RollbackRefused");
    to_next(&mut lab);
    lab.refused("RollbackRefused");
}

#[test]
fn a_crash_at_any_step_of_a_move_leaves_the_state_under_one_of_both_keys() {
    let _tpm = one_tpm_at_a_time();
    let steps = [Step::ChangeKey, Step::AdvanceGeneration];
    let begun = steps.map(|step| Event::Step { step });
    let done = steps.map(|step| Event::StepDone { step, millis: 0 });
    let mut seen = Vec::new();
    for point in begun.into_iter().chain(done) {
        let mut lab = lab_with_consent();
        let running = lab.start().unwrap();
        let volume = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
        *lab.told.crash_at.lock().unwrap() = Some(point.clone());
        let crashed = catch_unwind(AssertUnwindSafe(|| running.change_key(NEXT_KEY_ID)));
        assert!(crashed.is_err(), "{point:?} was never reached");
        *lab.told.crash_at.lock().unwrap() = None;
        drop(running);
        seen.push(lab.state_key().0);
        to_next(&mut lab);
        let running = lab.start().unwrap_or_else(|stop| panic!("after {point:?}: {:?}", stop.failure()));
        assert_eq!(lab.state_key().0, NEXT_KEY_ID);
        let again = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
        assert_eq!(again.expose(), volume.expose());
        running.stop().unwrap();
    }
    assert_eq!(seen, [KEY_ID, KEY_ID, KEY_ID, NEXT_KEY_ID]);
}

#[test]
fn a_crash_at_any_step_of_a_start_with_another_key_is_made_good_by_the_next() {
    let _tpm = one_tpm_at_a_time();
    let steps = [
        Step::Attest,
        Step::ReleaseKey,
        Step::OpenState,
        Step::ChangeKey,
        Step::Seal,
        Step::AdvanceGeneration,
    ];
    let begun = steps.map(|step| Event::Step { step });
    let done = steps.map(|step| Event::StepDone { step, millis: 0 });
    for point in begun.into_iter().chain(done) {
        let mut lab = lab_with_consent();
        lab.run_once();
        to_next(&mut lab);
        *lab.told.crash_at.lock().unwrap() = Some(point.clone());
        let crashed = catch_unwind(AssertUnwindSafe(|| lab.start().map(drop)));
        assert!(crashed.is_err(), "{point:?} was never reached");
        *lab.told.crash_at.lock().unwrap() = None;
        let running = lab.start().unwrap_or_else(|stop| panic!("after {point:?}: {:?}", stop.failure()));
        Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
        assert_eq!(lab.state_key().0, NEXT_KEY_ID);
    }
}

/// After each answer of a move the key service falls silent.
#[test]
fn a_key_service_that_falls_silent_within_a_move() {
    let _tpm = one_tpm_at_a_time();
    for (answers, key_after) in [(0, KEY_ID), (1, KEY_ID), (2, NEXT_KEY_ID), (3, NEXT_KEY_ID)] {
        let mut lab = lab_with_consent();
        let running = lab.start().unwrap();
        *lab.services.answers_left.lock().unwrap() = Some(answers);
        assert_eq!(running.change_key(NEXT_KEY_ID).is_ok(), key_after == NEXT_KEY_ID, "{answers}");
        assert_eq!(lab.state_key().0, key_after, "{answers}");
        // Still silent at the stop: the next start presents what the key service takes.
        *lab.services.answers_left.lock().unwrap() = Some(0);
        running.stop().unwrap();
        drop(running);
        *lab.services.answers_left.lock().unwrap() = None;
        to_next(&mut lab);
        let running = lab.start().unwrap_or_else(|stop| panic!("{answers}: {:?}", stop.failure()));
        Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
        assert_eq!(lab.state_key().0, NEXT_KEY_ID);
    }
}

#[test]
fn a_start_that_gets_only_the_old_key_touches_nothing() {
    let _tpm = one_tpm_at_a_time();
    let mut lab = lab_with_consent();
    lab.run_once();
    to_next(&mut lab);
    let before = lab.keep_copy();
    *lab.services.answers_left.lock().unwrap() = Some(1);
    assert!(lab.refused("ServiceFailed").transient);
    assert!(lab.keep_copy() == before);
    *lab.services.answers_left.lock().unwrap() = None;
    lab.run_once();
}

#[test]
fn a_revoked_key_is_noticed_by_a_running_vm_and_keeps_a_stopped_one_from_starting() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let volume = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    assert_eq!(running.check_key(), Answer::Granted);
    *lab.services.deaf.lock().unwrap() = true;
    assert_eq!(running.check_key(), Answer::Silent);
    *lab.services.deaf.lock().unwrap() = false;
    lab.services.disabled.lock().unwrap().insert(KEY_ID.to_owned());
    let Answer::Revoked(failure) = running.check_key() else { panic!("revoked") };
    assert_eq!(failure.code, "KeyDisabled");
    running.disk().write_at(&[7; 512], 34 * 512).unwrap();
    running.revoke(failure.clone());
    assert_eq!(*lab.told.refused.lock().unwrap(), [failure]);
    drop(running);
    lab.refused("KeyDisabled");
    lab.services.disabled.lock().unwrap().clear();
    let running = lab.start().unwrap();
    let mut sector = [0; 512];
    running.disk().read_at(&mut sector, 34 * 512).unwrap();
    assert_eq!(sector, [7; 512], "what the guest had written is there");
    assert_eq!(Guest::boot(&running, &lab.config.vars).open_volume().unwrap().expose(), volume.expose());
}
