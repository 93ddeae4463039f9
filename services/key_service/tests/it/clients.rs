//! The unmodified Azure SDK for Python against the program itself.

use std::process::Stdio;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use serde_json::json;

use crate::binary::{Service, caller, start, unix_now};
use crate::support::issuer::{attestation, decoded, transfer_key};
use crate::support::softhsm::with_token_as;
use crate::support::vault::{Folder, OFFICER, RELEASE_USER, evidence_at, platform_conditions, policy};

#[tokio::test]
#[ignore = "needs the Azure SDK for Python: set CASEMATE_SDK_PYTHON"]
async fn the_python_sdk_makes_uses_renews_restores_and_releases_keys() {
    sdk(None).await;
}

/// The same checks on a vault whose keys of `-HSM` types live in a token.
#[test]
#[ignore = "needs the Azure SDK for Python: set CASEMATE_SDK_PYTHON"]
fn the_python_sdk_does_the_same_with_keys_in_a_token() {
    with_token_as(("", "timeout_seconds = 120"), async |_| sdk(Some("SoftHSM project SoftHSM v2")).await);
}

/// Runs `tests/clients/sdk_keys.py`. `CASEMATE_SDK_PYTHON` names a Python that has azure-keyvault-keys.
async fn sdk(hsm_platform: Option<&str>) {
    let python =
        std::env::var("CASEMATE_SDK_PYTHON").expect("CASEMATE_SDK_PYTHON names a Python with the SDK");
    let folder = Folder::new();
    let service: Service = start(&folder).await;
    let evidence: Vec<String> = (0..20).map(|_| attestation().token(&evidence_at(unix_now(), 0))).collect();
    let transfer: Pkcs8V1Der<'_> = transfer_key().as_der().expect("PKCS#8");
    let policy = String::from_utf8(decoded(&policy(&platform_conditions()))).expect("JSON");
    let output = tokio::process::Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sdk_keys.py"))
        .env("CASEMATE_VAULT", &service.url)
        .env("CASEMATE_HSM_PLATFORM", hsm_platform.unwrap_or_default())
        .env("CASEMATE_CA", folder.dir.path().join("ca.pem"))
        .env("CASEMATE_OFFICER", caller(OFFICER))
        .env("CASEMATE_RELEASER", caller(RELEASE_USER))
        .env("CASEMATE_POLICY", policy)
        .env("CASEMATE_EVIDENCE", json!(evidence).to_string())
        .env("CASEMATE_TRANSFER_KEY", public_api::encoding::to_base64(transfer.as_ref()))
        .env("NO_PROXY", "localhost,127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("Python runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.trim_end().ends_with("checks, all done"), "{out}\n{err}");
}
