//! Single use of nonces; durability and order of the decision log; a changed log is found.

use public_api::decision_log::{Decision, verify};
use serde_json::json;

use super::*;

fn record(number: usize) -> Record {
    Record {
        decision: Decision::Attested,
        subject: format!("vm-{number}"),
        denial: None,
        detail: json!({"number": number}),
    }
}

#[tokio::test]
async fn a_nonce_is_used_once_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).await.expect("opened");
    assert!(store.use_nonce("n", 100, 50).await.expect("used"));
    assert!(!store.use_nonce("n", 100, 50).await.expect("refused"));
    drop(store);
    let store = Store::open(directory.path()).await.expect("opened again");
    assert!(!store.use_nonce("n", 100, 99).await.expect("refused"));
    assert!(store.use_nonce("m", 100, 50).await.expect("another one is used"));
}

#[tokio::test]
async fn many_writers_make_one_chain_that_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).await.expect("opened");
    let tasks: Vec<_> = (0..700)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.record(record(number)).await.expect("written") })
        })
        .collect();
    for task in tasks {
        task.await.expect("the task ends");
    }
    drop(store);
    let store = Store::open(directory.path()).await.expect("opened again");
    assert_eq!(store.record(record(0)).await.expect("written"), 701);
    let first = store.entries_after(0).await.expect("read");
    let second = store.entries_after(500).await.expect("read");
    assert_eq!((first.len(), second.len()), (500, 201));
    assert_eq!(verify(None, first.iter().chain(&second)), Ok(701));
}

#[tokio::test]
async fn entries_cannot_be_changed_or_removed_by_a_query() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).await.expect("opened");
    store.record(record(1)).await.expect("written");
    for query in ["UPDATE decision_log SET entry = ''", "DELETE FROM decision_log"] {
        let error = sqlx::query(query).execute(&store.pool).await.expect_err(query);
        assert!(error.to_string().contains("are never"), "{error}");
    }
}

#[tokio::test]
async fn a_log_that_was_changed_behind_the_services_back_is_not_continued() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).await.expect("opened");
    for number in 0..3 {
        store.record(record(number)).await.expect("written");
    }
    sqlx::query("DROP TRIGGER decision_log_keeps_entries").execute(&store.pool).await.expect("dropped");
    sqlx::query("UPDATE decision_log SET entry = replace(entry, 'vm-1', 'vm-9') WHERE sequence = 2")
        .execute(&store.pool)
        .await
        .expect("changed");
    drop(store);
    let error = Store::open(directory.path()).await.expect_err("must not open");
    assert!(matches!(error, StoreError::Chain(public_api::decision_log::ChainError::Hash(2))), "{error:?}");
}
