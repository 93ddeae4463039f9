//! The unmodified Azure SDK for Python against the control plane with a simulated host, and with the attestation service.

use std::process::Stdio;

use crate::attestation::Attestation;
use crate::installation::{CLIENT, Installation, SECRET, SUBSCRIPTION, TENANT};
use crate::key_service;

/// Runs `tests/clients/sdk_compute.py`. `CASEMATE_SDK_PYTHON` names a Python that has azure-identity, azure-mgmt-compute,
/// azure-mgmt-resource and azure-mgmt-network.
#[tokio::test]
#[ignore = "needs the Azure SDK for Python: set CASEMATE_SDK_PYTHON"]
async fn the_python_sdk_creates_shows_lists_stops_starts_and_deletes_a_confidential_vm() {
    let installation = Installation::new().await;
    let _host = installation.host();
    run(&installation, "sdk_compute.py").await;
}

/// Runs `tests/clients/sdk_attestation_provider.py`, with azure-mgmt-attestation and azure-security-attestation.
#[tokio::test]
#[ignore = "needs the Azure SDK for Python: set CASEMATE_SDK_PYTHON"]
async fn the_python_sdk_creates_administers_and_deletes_attestation_providers() {
    let installation = Installation::new().await;
    let _attestation = Attestation::start(&installation).await;
    run(&installation, "sdk_attestation_provider.py").await;
}

/// Runs `tests/clients/sdk_vaults.py`, with azure-mgmt-keyvault, azure-mgmt-authorization and azure-keyvault-keys.
#[tokio::test]
#[ignore = "needs the Azure SDK for Python: set CASEMATE_SDK_PYTHON"]
async fn the_python_sdk_makes_vaults_assigns_roles_and_uses_keys_by_the_vaults_names() {
    let (installation, _keys) = key_service::start().await;
    run(&installation, "sdk_vaults.py").await;
}

async fn run(installation: &Installation, script: &str) {
    let python =
        std::env::var("CASEMATE_SDK_PYTHON").expect("CASEMATE_SDK_PYTHON names a Python with the SDK");
    let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = tokio::process::Command::new(python)
        .arg(script)
        .env("CASEMATE_URL", &installation.config.public_url)
        .env("CASEMATE_ATTESTATION", &installation.config.attestation_url)
        .env("CASEMATE_CA", installation.path("ca.pem"))
        .env("CASEMATE_TENANT", TENANT)
        .env("CASEMATE_CLIENT_ID", CLIENT)
        .env("CASEMATE_CLIENT_SECRET", SECRET)
        .env("CASEMATE_SUBSCRIPTION", SUBSCRIPTION)
        .env("CASEMATE_IMAGE", "casemate:debian-13:default:latest")
        .env("NO_PROXY", "localhost")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.trim_end().ends_with("all done"), "{out}\n{err}");
}
