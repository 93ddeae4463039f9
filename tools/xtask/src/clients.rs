//! Unmodified clients of Azure, in a virtual environment below the build folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The packages and versions, one a line.
const REQUIREMENTS: &str = "services/control_plane/tests/clients/requirements.txt";

/// A Python with the SDKs; installed at the first call, and again when the requirements changed.
pub fn python(root: &Path) -> Result<PathBuf> {
    let requirements = root.join(REQUIREMENTS);
    let wanted = std::fs::read_to_string(&requirements).with_context(|| format!("reading {REQUIREMENTS}"))?;
    let venv = root.join("target/azure-sdk");
    let (python, stamp) = (venv.join("bin/python"), venv.join("installed.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    crate::say("clients: installing the Azure SDK for Python into target/azure-sdk");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements))?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
