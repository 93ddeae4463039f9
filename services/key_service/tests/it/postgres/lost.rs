//! The server goes away, and comes back.

use axum::http::StatusCode;
use serde_json::json;

use crate::support::postgres::{Cluster, Durability};
use crate::support::vault::{Answer, Folder, Vault};

async fn ready(vault: &Vault) -> StatusCode {
    // The answer is reused for a moment: the check is asked for, not its last answer.
    let checks = vault.state.readiness().await;
    match checks.iter().all(|check| serde_json::to_value(check).unwrap()["status"] == "pass") {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Asks every 20 ms, for 20 s at most.
async fn wait_for(condition: impl AsyncFn() -> bool) {
    let mut interval = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..1000 {
        interval.tick().await;
        if condition().await {
            return;
        }
    }
    panic!("waited too long");
}

async fn create(vault: &Vault, name: &str) -> Answer {
    vault.officer("POST", &format!("/keys/{name}/create"), &json!({"kty": "EC"})).await
}

#[tokio::test]
async fn a_service_whose_database_is_away_says_so_and_comes_back_by_itself() {
    let mut cluster = Cluster::start(Durability::Full);
    let vault = Folder { database: cluster.section("vault"), ..Folder::in_a_file() }.open().await;
    let before = create(&vault, "before").await.ok();
    assert_eq!(ready(&vault).await, StatusCode::OK);
    cluster.kill();
    let lost = create(&vault, "meanwhile").await;
    assert_eq!(lost.status, StatusCode::SERVICE_UNAVAILABLE, "{}", lost.body);
    assert_eq!(lost.headers["retry-after"], "2");
    assert!(!lost.body.to_string().contains("postgres"), "where it is, is nobody's business: {}", lost.body);
    assert_eq!(vault.get("/keys/before").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready(&vault).await, StatusCode::SERVICE_UNAVAILABLE);
    cluster.serve();
    wait_for(async || ready(&vault).await == StatusCode::OK).await;
    assert_eq!(vault.get("/keys/before").await.ok(), before);
    assert_eq!(vault.get("/keys/meanwhile").await.status, StatusCode::NOT_FOUND, "it was refused");
    create(&vault, "after").await.ok();
    public_api::decision_log::verify(None, &vault.log().await).unwrap();
}

/// A server that was restarted between two requests is not noticed at all: nothing was under way.
#[tokio::test]
async fn a_restart_between_two_requests_is_nobodys_failure() {
    let mut cluster = Cluster::start(Durability::Full);
    let vault = Folder { database: cluster.section("vault"), ..Folder::in_a_file() }.open().await;
    create(&vault, "a").await.ok();
    cluster.stop();
    cluster.serve();
    create(&vault, "b").await.ok();
    assert_eq!(vault.get("/keys/a").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_backend_that_is_ended_under_a_service_costs_no_request() {
    let cluster = Cluster::start(Durability::None);
    let vault = Folder { database: cluster.section("vault"), ..Folder::in_a_file() }.open().await;
    create(&vault, "a").await.ok();
    let mut connection = cluster.connect("vault").await;
    let ended: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'casemate-keys'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(!ended.is_empty() && ended.iter().all(|ended| *ended));
    create(&vault, "b").await.ok();
    assert_eq!(vault.get("/keys/b").await.status, StatusCode::OK);
}

/// A database that takes no writes: nothing is answered as done.
#[tokio::test]
async fn a_database_that_became_read_only_takes_nothing_and_says_so() {
    let cluster = Cluster::start(Durability::None);
    let vault = Folder { database: cluster.section("vault"), ..Folder::in_a_file() }.open().await;
    let mut connection = cluster.connect("vault").await;
    let deny = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER full_disk BEFORE INSERT ON decisions EXECUTE FUNCTION full_disk()";
    sqlx::raw_sql(deny).execute(&mut connection).await.unwrap();
    let refused = create(&vault, "k").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    assert_eq!(vault.get("/keys/k").await.status, StatusCode::NOT_FOUND, "the key went with its entry");
    sqlx::raw_sql("DROP TRIGGER full_disk ON decisions").execute(&mut connection).await.unwrap();
    create(&vault, "k").await.ok();
}

/// Somebody holds what a write needs, and does not let go: the write gives up, and nothing of it happened.
#[tokio::test]
async fn a_write_that_waits_too_long_for_a_lock_changes_nothing_and_says_so() {
    let cluster = Cluster::start(Durability::None);
    let vault = Folder { database: cluster.section("vault"), ..Folder::in_a_file() }.open().await;
    create(&vault, "a").await.ok();
    let mut hanging = cluster.connect("vault").await;
    let hold = "BEGIN; LOCK TABLE decisions IN EXCLUSIVE MODE";
    sqlx::raw_sql(hold).execute(&mut hanging).await.unwrap();
    let waited = create(&vault, "b").await;
    assert_eq!(waited.status, StatusCode::SERVICE_UNAVAILABLE, "{}", waited.body);
    assert_eq!(vault.get("/keys/b").await.status, StatusCode::NOT_FOUND);
    sqlx::raw_sql("ROLLBACK").execute(&mut hanging).await.unwrap();
    create(&vault, "b").await.ok();
    public_api::decision_log::verify(None, &vault.log().await).unwrap();
}
