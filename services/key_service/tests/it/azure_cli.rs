//! The unmodified Azure CLI against the program itself. It is large, so no lane installs it: CONTRIBUTING.md says how to run
//! this.

use std::process::Stdio;

use crate::binary::{Service, caller, start};
use crate::support::softhsm::with_token_as;
use crate::support::vault::{Folder, OFFICER};

#[tokio::test]
#[ignore = "needs the Azure CLI: set CASEMATE_AZ_PYTHON"]
async fn the_azure_cli_does_all_of_keyvault_key() {
    cli(None).await;
}

/// The same commands with keys in a token.
#[test]
#[ignore = "needs the Azure CLI: set CASEMATE_AZ_PYTHON"]
fn the_azure_cli_does_the_same_with_keys_in_a_token() {
    with_token_as(("", "timeout_seconds = 120"), async |_| cli(Some("SoftHSM project SoftHSM v2")).await);
}

/// Runs `tests/clients/az_keys.py`. `CASEMATE_AZ_PYTHON` names a Python that has azure-cli.
async fn cli(hsm_platform: Option<&str>) {
    let python =
        std::env::var("CASEMATE_AZ_PYTHON").expect("CASEMATE_AZ_PYTHON names a Python with azure-cli");
    let folder = Folder::new();
    let service: Service = start(&folder).await;
    let output = tokio::process::Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/az_keys.py"))
        .env("CASEMATE_VAULT", &service.url)
        .env("CASEMATE_HSM_PLATFORM", hsm_platform.unwrap_or_default())
        .env("CASEMATE_FOLDER", folder.dir.path())
        .env("CASEMATE_OFFICER", caller(OFFICER))
        .stdin(Stdio::null())
        .output()
        .await
        .expect("Python runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.trim_end().ends_with("checks, all done"), "{out}\n{err}");
}
