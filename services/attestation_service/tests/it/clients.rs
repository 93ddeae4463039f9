//! The unmodified Azure SDK for Python against the program itself.

use std::process::Stdio;

use crate::process::running;
use crate::support::{ADMIN_TOKEN, Attempt};

/// Runs `tests/clients/sdk_attestation.py`. `CASEMATE_SDK_PYTHON` names a Python that has azure-security-attestation.
#[tokio::test]
#[ignore = "needs the Azure SDK for Python: set CASEMATE_SDK_PYTHON"]
async fn the_python_sdk_sets_policies_unsigned_and_signed_attests_and_validates_tokens() {
    let python =
        std::env::var("CASEMATE_SDK_PYTHON").expect("CASEMATE_SDK_PYTHON names a Python with the SDK");
    let running = running().await;
    let ca = running.directory.path().join("ca.pem");
    std::fs::write(&ca, &running.ca).expect("written");
    let output = tokio::process::Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sdk_attestation.py"))
        .env("CASEMATE_ATTESTATION", running.base())
        .env("CASEMATE_CA", ca)
        .env("CASEMATE_TOKEN", ADMIN_TOKEN)
        .env("CASEMATE_EVIDENCE", Attempt::honest().body().to_string())
        .env("NO_PROXY", "localhost,127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("Python runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.trim_end().ends_with("all done"), "{out}\n{err}");
}
