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
    let folder = Folder::new();
    let mut script = Script::of(&folder, ("CASEMATE_SDK_PYTHON", "sdk_keys.py"), hsm_platform).await;
    let evidence: Vec<String> = (0..20).map(|_| attestation().token(&evidence_at(unix_now(), 0))).collect();
    let transfer: Pkcs8V1Der<'_> = transfer_key().as_der().expect("PKCS#8");
    let policy = String::from_utf8(decoded(&policy(&platform_conditions()))).expect("JSON");
    let command = script.command.env("CASEMATE_CA", folder.dir.path().join("ca.pem"));
    command
        .env("CASEMATE_RELEASER", caller(RELEASE_USER))
        .env("CASEMATE_POLICY", policy)
        .env("CASEMATE_EVIDENCE", json!(evidence).to_string())
        .env("CASEMATE_TRANSFER_KEY", public_api::encoding::to_base64(transfer.as_ref()))
        .env("NO_PROXY", "localhost,127.0.0.1");
    script.passes().await;
}

/// A script of `tests/clients`, and the program that it is pointed at.
pub struct Script {
    pub command: tokio::process::Command,
    _service: Service,
}

impl Script {
    /// Starts the program; `python` names the variable that names the Python that has what the script needs.
    pub async fn of(folder: &Folder, (python, file): (&str, &str), hsm_platform: Option<&str>) -> Self {
        let python = std::env::var(python)
            .unwrap_or_else(|_| panic!("{python} names a Python that has what {file} needs"));
        let service = start(folder).await;
        let mut command = tokio::process::Command::new(python);
        command
            .arg(format!("{}/tests/clients/{file}", env!("CARGO_MANIFEST_DIR")))
            .env("CASEMATE_VAULT", &service.url)
            .env("CASEMATE_HSM_PLATFORM", hsm_platform.unwrap_or_default())
            .env("CASEMATE_OFFICER", caller(OFFICER))
            .stdin(Stdio::null());
        Self { command, _service: service }
    }

    /// Runs it to its end.
    pub async fn passes(mut self) {
        let output = self.command.output().await.expect("Python runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        assert!(out.trim_end().ends_with("checks, all done"), "{out}\n{err}");
    }
}
