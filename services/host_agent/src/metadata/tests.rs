//! The metadata service, as its clients in the guest ask it.

use axum::body::to_bytes;
use expect_test::{Expect, expect};
use tower::ServiceExt as _;

use super::*;
use crate::vm::test_spec;

fn service() -> Router {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kds = "http://127.0.0.1:1".parse().expect("URL");
    let certificates = Certificates::new(kds, reqwest::Client::new());
    app(Metadata { instance: document(&test_spec(), "local"), certificates })
}

async fn ask(request: axum::http::request::Builder) -> (u16, String) {
    let response = service().oneshot(request.body(Body::empty()).expect("request")).await.expect("answer");
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

async fn get_with_flag(uri: &str) -> (u16, String) {
    ask(Request::get(uri).header("Metadata", "true")).await
}

#[track_caller]
fn check(answer: (u16, String), status: u16, body: &Expect) {
    assert_eq!(answer.0, status, "{}", answer.1);
    body.assert_eq(&answer.1);
}

#[tokio::test]
async fn leaves_are_text() {
    let path = "/metadata/instance/compute";
    let leaf =
        async |name: &str| get_with_flag(&format!("{path}/{name}?api-version=2021-12-13&format=text")).await;
    check(leaf("vmId").await, 200, &expect!["0d6f2b8c-4e0b-4e57-9b5c-2c7d9a1e3f00"]);
    check(leaf("securityProfile/securityType").await, 200, &expect!["ConfidentialVM"]);
    check(leaf("securityProfile/secureBootEnabled").await, 200, &expect!["true"]);
    check(leaf("resourceGroupName").await, 200, &expect!["rg"]);
    check(leaf("publicKeys/0/path").await, 200, &expect!["/home/tenant/.ssh/authorized_keys"]);
    check(
        leaf("plan").await,
        200,
        &expect![[r#"
        name
        product
        publisher"#]],
    );
}

#[tokio::test]
async fn the_document_is_json() {
    let (status, body) = get_with_flag("/metadata/instance?api-version=2025-04-07&extended=true").await;
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(document["compute"]["osProfile"]["computerName"], "vm-1");
    assert_eq!(document["network"]["interface"][0]["macAddress"], "5254000D6F2B");
    let (status, body) = get_with_flag("/metadata/instance/network/interface?api-version=2025-04-07").await;
    assert_eq!((status, body.starts_with('[')), (200, true));
}

#[tokio::test]
async fn a_leaf_as_json_an_unknown_name_and_an_unknown_path_are_refused() {
    let version = "api-version=2021-12-13";
    assert_eq!(get_with_flag(&format!("/metadata/instance/compute/vmId?{version}")).await.0, 400);
    assert_eq!(get_with_flag(&format!("/metadata/instance/compute/nothing?{version}")).await.0, 404);
    assert_eq!(get_with_flag("/metadata/identity/oauth2/token").await.0, 404);
}

#[tokio::test]
async fn a_version_is_required_and_named_once() {
    let answer = get_with_flag("/metadata/instance").await;
    let text = r#"{"error":"Bad request. api-version is invalid or was not specified in the request. For more information refer to aka.ms/azureimds","newest-versions":["2025-04-07","2024-07-17","2024-03-15"]}"#;
    assert_eq!(answer, (400, text.to_owned()));
    assert_eq!(get_with_flag("/metadata/instance?api-version=2031-01-01").await.0, 400);
    let twice = "/metadata/instance?api-version=2021-12-13&api-version=2021-12-13";
    assert!(get_with_flag(twice).await.1.contains("Duplicate"));
    assert_eq!(get_with_flag("/metadata/versions").await.0, 200);
}

#[tokio::test]
async fn a_request_forged_through_a_server_in_the_guest_is_refused() {
    let uri = "/metadata/instance?api-version=2021-12-13";
    assert_eq!(ask(Request::get(uri)).await.0, 400);
    assert_eq!(ask(Request::get(uri).header("Metadata", "false")).await.0, 400);
    let forwarded = Request::get(uri).header("Metadata", "true").header("X-Forwarded-For", "10.0.0.1");
    assert_eq!(ask(forwarded).await.0, 400);
    assert_eq!(ask(Request::post(uri).header("Metadata", "true")).await.0, 405);
}

#[tokio::test]
async fn certificates_that_cannot_be_had_are_an_error_not_an_empty_answer() {
    assert_eq!(get_with_flag("/metadata/THIM/amd/certification").await.0, 500);
}
