//! Unmodified clients against the whole platform, with a real host below it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use toml::Table;

use super::Scenario;

/// The script of the control plane's own client test, which says what it does step by step.
pub fn python_sdk(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let python = std::env::var_os("CASEMATE_SDK_PYTHON")
        .context("CASEMATE_SDK_PYTHON names a Python with the Azure SDK; `cargo xtask test vm` sets it up")?;
    let profile: Table = std::fs::read_to_string(platform.data().join("client/profile.toml"))?.parse()?;
    let text = |key: &str| profile[key].as_str().with_context(|| format!("{key} in the profile"));
    let secret = std::fs::read_to_string(text("client_secret_file")?)?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../services/control_plane/tests/clients/sdk_compute.py");
    let output = Command::new(python)
        .arg(script)
        .env("CASEMATE_URL", text("control_plane")?)
        .env("CASEMATE_CA", text("ca")?)
        .env("CASEMATE_TENANT", text("tenant_id")?)
        .env("CASEMATE_CLIENT_ID", text("client_id")?)
        .env("CASEMATE_CLIENT_SECRET", secret.trim())
        .env("CASEMATE_SUBSCRIPTION", text("subscription_id")?)
        .env("CASEMATE_LOCATION", text("location")?)
        .env("CASEMATE_IMAGE", format!("casemate:{}:default:latest", scenario.image))
        .env("NO_PROXY", "localhost")
        .output()
        .context("running the SDK's script")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.trim_end().ends_with("all done"), "{out}\n{err}");
    Ok(())
}
