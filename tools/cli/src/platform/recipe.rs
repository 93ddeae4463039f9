//! Where the guest image recipe lies: beside an installed `casemate`, or in the source tree it was built from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::failure::Failure;

/// Path of the recipe's script.
pub fn script(data_dir: &Path) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding casemate's own path")?;
    let candidates = [
        own.ancestors().nth(2).map(|dir| dir.join("share/casemate/images")),
        own.ancestors().nth(3).map(|dir| dir.join("images")),
    ];
    let found = candidates.into_iter().flatten().map(|dir| dir.join("build.sh")).find(|path| path.exists());
    found.ok_or_else(|| {
        let message = format!("the image recipe is not installed with {}", own.display());
        let hint = format!(
            "import an image instead: `casemate image import FILE --name NAME` (into {})",
            data_dir.display()
        );
        Failure::you(message, hint)
    })
}
