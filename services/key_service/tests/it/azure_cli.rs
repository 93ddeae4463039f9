//! The unmodified Azure CLI against the program itself. It is large, so no lane installs it: CONTRIBUTING.md says how to run
//! this.

use crate::clients::Script;
use crate::support::softhsm::with_token_as;
use crate::support::vault::Folder;

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
    let folder = Folder::new();
    let mut script = Script::of(&folder, ("CASEMATE_AZ_PYTHON", "az_keys.py"), hsm_platform).await;
    script.command.env("CASEMATE_FOLDER", folder.dir.path());
    script.passes().await;
}
