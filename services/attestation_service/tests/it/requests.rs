//! Requests that are malformed, too large, for something else, or only spelled unusually.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use expect_test::{Expect, expect};
use public_api::encoding::{from_base64_any, to_base64};
use serde_json::{Value, json};

use crate::support::*;

fn told(answer: &(StatusCode, Value)) -> String {
    let error = &answer.1["error"];
    let target = error["target"].as_str().map_or(String::new(), |target| format!(" at {target}"));
    format!(
        "{} {}{target}: {}",
        answer.0.as_u16(),
        error["code"].as_str().expect("a code"),
        error["message"].as_str().expect("a message")
    )
}

async fn refused(body: impl Into<Body>, expected: Expect) {
    let lab = Lab::new().await;
    expected.assert_eq(&told(&lab.post("/attest/SevSnpVm", body).await));
    assert!(lab.service.store.entries_after(0).await.expect("the log").is_empty(), "no verdict, no entry");
}

#[tokio::test]
async fn a_malformed_body_is_refused_with_the_fields_name() {
    refused("", expect!["400 InvalidParameter at body: `body`: not the expected JSON: EOF while parsing a value at line 1 column 0"]).await;
    refused("{", expect!["400 InvalidParameter at body: `body`: not the expected JSON: EOF while parsing an object at line 1 column 1"]).await;
    refused("[]", expect!["400 InvalidParameter at body: `body`: not the expected JSON: invalid type: sequence, expected an object at line 1 column 0"]).await;
    refused("{}", expect!["400 InvalidParameter at report: `report`: missing"]).await;
    refused(r#"{"report": 5}"#, expect!["400 InvalidParameter at report: `report`: not the expected JSON: invalid type: integer `5`, expected a string at line 1 column 1"]).await;
    refused(
        r#"{"report": "%%%"}"#,
        expect![
            "400 InvalidParameter at report: `report`: not base64 (neither the standard nor the URL alphabet)"
        ],
    )
    .await;
    refused(r#"{"report": "AAAA"}"#, expect!["400 InvalidParameter at report: `report`: not the expected JSON: expected value at line 1 column 1"]).await;
}

#[tokio::test]
async fn an_unknown_or_repeated_field_is_refused_by_name() {
    let mut body = Attempt::honest().body();
    body["runtimedata2"] = json!(1);
    refused(body.to_string(), expect!["400 InvalidParameter at runtimedata2: `runtimedata2`: unknown field, expected one of report, runtimeData, initTimeData, nonce, draftPolicyForAttestation"]).await;
    refused(
        r#"{"report":"e30","Report":"e30"}"#,
        expect!["400 InvalidParameter at report: `report`: given twice"],
    )
    .await;
    let mut body = Attempt::honest().body();
    body["runtimeData"]["extra"] = json!(1);
    refused(body.to_string(), expect!["400 InvalidParameter at runtimeData.extra: `runtimeData.extra`: unknown field, expected one of data, dataType"]).await;
}

#[tokio::test]
async fn an_oversized_body_is_refused_with_the_limit() {
    let body = format!(r#"{{"report":"{}"}}"#, "A".repeat(1024 * 1024));
    refused(body, expect!["413 RequestBodyTooLarge: the body is longer than 1048576 bytes"]).await;
}

#[tokio::test]
async fn every_spelling_that_azures_clients_use_is_accepted() {
    let lab = Lab::new().await;
    let body = Attempt::honest().body();
    let standard = |text: &Value| json!(to_base64(&from_base64_any(text.as_str().unwrap()).unwrap()));
    let spelled = json!({
        "Report": standard(&body["report"]),
        "RuntimeData": {"DataType": "json", "Data": standard(&body["runtimeData"]["data"])},
        "inittimedata": {"datatype": "JSON", "data": standard(&body["initTimeData"]["data"])},
        "nonce": null,
        "draftPolicyForAttestation": null,
    });
    for path in ["/attest/SevSnpVm", "/attest/sevsnpvm?api-version=2020-10-01", "/ATTEST/SEVSNPVM"] {
        let (status, answer) = lab.post(path, spelled.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    }
}

#[tokio::test]
async fn what_is_not_supported_says_so() {
    let lab = Lab::new().await;
    for (path, known) in [
        ("/attest/SgxEnclave", "SgxEnclave"),
        ("/attest/openenclave", "OpenEnclave"),
        ("/attest/TdxVm", "TdxVm"),
    ] {
        let answer = lab.post(path, "{}").await;
        let message = format!(
            "attestation type {known} is not supported by this service; SevSnpVm, AzureGuest and Tpm are"
        );
        assert_eq!(told(&answer), format!("400 AttestationTypeNotSupported: {message}"));
    }
    expect!["400 AttestationTypeNotSupported: attestation type TdxVm is not supported by this service; SevSnpVm, AzureGuest and Tpm are"].assert_eq(&told(&lab.get("/policies/TdxVm").await));
    expect!["404 NotFound: no such attestation type; SevSnpVm, AzureGuest and Tpm are supported"]
        .assert_eq(&told(&lab.post("/attest/Other", "{}").await));
    expect!["404 NotFound: there is nothing at /nowhere"].assert_eq(&told(&lab.get("/nowhere").await));
    expect!["405 MethodNotAllowed: /attest/sevsnpvm does not take GET"]
        .assert_eq(&told(&lab.get("/attest/SevSnpVm").await));
    let put = Request::put("/policies/SevSnpVm").body(Body::from("x")).expect("a request");
    expect!["401 Unauthorized: this needs a bearer token"].assert_eq(&told(&lab.send(put).await));
}
