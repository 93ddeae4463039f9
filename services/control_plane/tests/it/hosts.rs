//! The host interface: who gets in, and what a host can and cannot say.

use std::time::{Duration, Instant};

use devkit::sim_host::{self, Options, SimHost, development_capacity};
use internal_api::client::HostClientError;
use internal_api::host::{SyncRequest, VmPhase, VmState};
use reqwest::Method;

use crate::installation::{Authority, Installation, vm_body, vm_path, wait_for};

fn report(known_revision: u64, wait_seconds: u32) -> SyncRequest {
    SyncRequest { capacity: development_capacity(4, 4096), vms: Vec::new(), known_revision, wait_seconds }
}

fn state(vm_id: &str, generation: u64, phase: VmPhase) -> VmState {
    VmState {
        vm_id: vm_id.to_owned(),
        generation,
        restarts: 0,
        phase,
        detail: String::new(),
        failure: None,
        ssh_port: None,
        evidence: None,
        timings: std::collections::BTreeMap::new(),
        key: None,
    }
}

async fn status(options: &Options) -> Option<u16> {
    match sim_host::client(options).unwrap().sync(&report(0, 0)).await {
        Ok(_) => Some(200),
        Err(HostClientError::Status { status, .. }) => Some(status),
        Err(HostClientError::Transport(_)) => None,
    }
}

#[tokio::test]
async fn only_a_host_with_its_own_certificate_gets_in() {
    let installation = Installation::new().await;
    let good = installation.options("host-1", 4, 4096);
    assert_eq!(status(&good).await, Some(200));
    let other_name = Options { name: "host-2".into(), ..good.clone() };
    assert_eq!(status(&other_name).await, Some(403));
    let (certificate, key) = Authority::new("somebody else").leaf(&["host-1"]);
    let stranger = Options { identity: format!("{certificate}{key}"), ..good.clone() };
    assert_eq!(status(&stranger).await, None, "a certificate of another authority ends the handshake");
    let nobody = installation.bare(None);
    let url = format!("{}/internal/hosts/host-1/sync", good.url);
    let roots = reqwest::Certificate::from_pem_bundle(good.ca.as_bytes()).unwrap();
    let bare = reqwest::Client::builder().tls_certs_only(roots).no_proxy().build().unwrap();
    assert!(bare.post(&url).body("{}").send().await.is_err(), "no certificate ends the handshake");
    let path = "/internal/hosts/host-1/sync";
    assert_eq!(
        nobody.send(Method::POST, path, None).await.status,
        404,
        "the public interface has no such route"
    );
}

#[tokio::test]
async fn a_wildcard_certificate_names_no_host() {
    let installation = Installation::new().await;
    let (certificate, key) = installation.authority.leaf(&["*.test"]);
    let options = Options {
        name: "host.test".into(),
        identity: format!("{certificate}{key}"),
        ..installation.options("x", 4, 4096)
    };
    assert_eq!(status(&options).await, Some(403));
}

#[tokio::test]
async fn a_name_hidden_in_another_name_does_not_count() {
    let installation = Installation::new().await;
    for names in [["x,CN=host-1", "y"], ["x+CN=host-1", "y"], ["host-1 ", "host-1.test"], ["HOST-1", "z"]] {
        let (certificate, key) = installation.authority.leaf_named(names[0], &[names[1]]);
        let options =
            Options { identity: format!("{certificate}{key}"), ..installation.options("host-1", 4, 4096) };
        assert_eq!(status(&options).await, Some(403), "{names:?}");
    }
    let (certificate, key) = installation.authority.leaf_named("host-1", &["y"]);
    let options =
        Options { identity: format!("{certificate}{key}"), ..installation.options("host-1", 4, 4096) };
    assert_eq!(status(&options).await, Some(200), "the common name is a name too");
}

#[tokio::test]
async fn a_poll_ends_with_news_and_otherwise_with_its_time() {
    let installation = Installation::new().await;
    let client = sim_host::client(&installation.options("host-1", 4, 4096)).unwrap();
    let first = client.sync(&report(0, 5)).await.unwrap();
    let started = Instant::now();
    let same = client.sync(&report(first.revision, 1)).await.unwrap();
    assert_eq!(same.revision, first.revision);
    assert!(started.elapsed() >= Duration::from_millis(900));
    let arm = installation.arm().await;
    arm.make_group().await;
    let known = report(first.revision, 20);
    let poll = tokio::spawn(async move { client.sync(&known).await });
    arm.put(&vm_path("vm1"), &vm_body()).await;
    let news = poll.await.unwrap().unwrap();
    assert!(news.revision > first.revision);
    assert_eq!(news.assignments.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_host_cannot_speak_for_another_hosts_vm() {
    let installation = Installation::new().await;
    let _host = installation.host();
    let arm = installation.arm().await;
    let vm = arm.make_vm("vm1").await;
    let id = vm["properties"]["vmId"].as_str().unwrap().to_uppercase();
    let mallory = sim_host::client(&installation.options("host-2", 4, 4096)).unwrap();
    let mut lie = report(0, 0);
    lie.vms = vec![VmState { evidence: Some("{\"forged\":true}".into()), ..state(&id, 1, VmPhase::Failed) }];
    let answer = mallory.sync(&lie).await.unwrap();
    assert_eq!(answer.assignments, [], "and it is told nothing about it");
    let after = arm.get(&vm_path("vm1")).await.body;
    assert!(after["properties"]["casemate"]["failure"].is_null());
    let evidence = arm.get(&format!("{}/attestationEvidence", vm_path("vm1"))).await;
    assert!(!evidence.text.contains("forged"));
}

#[tokio::test]
async fn an_empty_report_from_before_the_removal_is_no_confirmation() {
    let installation = Installation::new().await;
    let client = sim_host::client(&installation.options("host-1", 4, 4096)).unwrap();
    let arm = installation.arm().await;
    arm.make_group().await;
    client.sync(&report(0, 0)).await.unwrap();
    arm.put(&vm_path("vm1"), &vm_body()).await;
    let assigned = wait_for("the assignment", || async {
        let answer = client.sync(&report(0, 0)).await.unwrap();
        (!answer.assignments.is_empty()).then_some(answer)
    })
    .await;
    let answer = arm.delete(&vm_path("vm1")).await;
    let url = answer.header("azure-asyncoperation").to_owned();
    let told = client.sync(&report(assigned.revision, 0)).await.unwrap();
    assert_eq!(told.assignments, []);
    let status = arm.send(Method::GET, &url, None).await;
    assert_eq!(status.body["status"], "InProgress", "the host had not heard of the removal when it reported");
    client.sync(&report(told.revision, 0)).await.unwrap();
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
}

#[tokio::test]
async fn a_report_that_is_not_one_is_refused_by_name() {
    let installation = Installation::new().await;
    let options = installation.options("host-1", 4, 4096);
    let roots = reqwest::Certificate::from_pem_bundle(options.ca.as_bytes()).unwrap();
    let identity = reqwest::Identity::from_pem(options.identity.as_bytes()).unwrap();
    let http =
        reqwest::Client::builder().tls_certs_only(roots).identity(identity).no_proxy().build().unwrap();
    let url = format!("{}/internal/hosts/host-1/sync", options.url);
    for (body, word) in [("", "EOF"), ("{\"surprise\": 1}", "surprise"), ("{}", "capacity")] {
        let answer = http.post(&url).body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 400);
        let text = answer.text().await.unwrap();
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn what_a_silent_host_last_said_is_marked_as_old() {
    let mut installation = Installation::stopped().await;
    installation.config.hosts.timeout_seconds = 3;
    installation.start().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    drop(host);
    let view = wait_for("the silence to show", || async {
        let vm = arm.get(&format!("{}?$expand=instanceView", vm_path("vm1"))).await.body;
        let detail = vm["properties"]["casemate"]["detail"].as_str()?.to_owned();
        detail.starts_with("host host-1 has not reported since").then_some(vm)
    })
    .await;
    let statuses = view["properties"]["instanceView"]["statuses"].as_array().unwrap();
    assert!(statuses.iter().any(|status| status["code"] == "CasemateHost/silent"));
    let waiting = arm.put(&vm_path("vm2"), &vm_body()).await;
    let url = waiting.header("azure-asyncoperation").to_owned();
    assert_eq!(arm.send(Method::GET, &url, None).await.body["status"], "InProgress", "it may come back");
    let _back = installation.host();
    assert_eq!(arm.finish(&waiting).await["status"], "Succeeded");
}

#[tokio::test]
async fn too_little_memory_fails_the_operation_with_the_figures() {
    let installation = Installation::new().await;
    let _host = SimHost::start(installation.options("host-1", 2, 2048)).unwrap();
    let arm = installation.arm().await;
    arm.make_group().await;
    wait_for("the host", || async {
        let health = arm.get("/health").await;
        (health.body["hosts"]["reporting"] == 1).then_some(())
    })
    .await;
    let mut body = vm_body();
    body["properties"]["hardwareProfile"]["vmSize"] = serde_json::json!("Standard_DC2as_v5");
    let answer = arm.put(&vm_path("vm1"), &body).await;
    let end = arm.finish(&answer).await;
    assert_eq!(end["error"]["code"], "AllocationFailed");
    let actual = &end["error"]["denial"]["actual"];
    assert_eq!(actual, "host host-1: Standard_DC2as_v5 needs 8192 MiB of memory, 2048 of 2048 are free");
    let answer = arm.delete(&vm_path("vm1")).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "what failed can be deleted");
}

#[tokio::test]
async fn a_deallocated_vm_starts_only_where_its_room_is_free_again() {
    let installation = Installation::new().await;
    let _host = SimHost::start(installation.options("host-1", 1, 1024)).unwrap();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    arm.finish(&arm.post(&format!("{}/deallocate", vm_path("vm1"))).await).await;
    arm.make_vm("vm2").await;
    let full = arm.post(&format!("{}/start", vm_path("vm1"))).await;
    assert_eq!((full.status, full.code()), (409, "AllocationFailed"));
    arm.finish(&arm.delete(&vm_path("vm2")).await).await;
    let answer = arm.post(&format!("{}/start", vm_path("vm1"))).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
}
