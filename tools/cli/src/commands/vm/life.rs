//! `casemate vm start|stop|restart|delete`.

use std::path::Path;

use anyhow::Result;
use reqwest::Method;

use super::Target;
use super::create::Expectation;
use crate::arm::OperationFailed;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// A `POST` action of the VM, followed to its end.
pub async fn act(target: &Target, action: &str, profile: &Profile, printer: &Printer) -> Result<()> {
    let arm = profile.arm().await?;
    let vm = arm.vm(&target.resource_group, &target.name);
    let operation = arm.begin(Method::POST, &format!("{vm}/{action}"), None).await?;
    let mut progress = printer.progress();
    progress.show(&format!("{}: {action}", target.name));
    let end = arm.finish(operation, Some(&vm), &mut progress).await;
    drop(progress);
    if let Err(error) = end {
        if !error.is::<OperationFailed>() {
            return Err(error.context(format!("{}: how far {action} is, is not known", target.name)));
        }
        let hint = format!("`casemate vm show {}` has the whole reason", target.name);
        return Err(Failure::refused(format!("{action} of {} failed: {error:#}", target.name), hint));
    }
    printer.note(&format!("{}: {action} done", target.name));
    Ok(())
}

/// Deletes a VM with everything that belongs to it.
pub async fn delete(target: &Target, profile: &Profile, data_dir: &Path, printer: &Printer) -> Result<()> {
    let arm = profile.arm().await?;
    let vm = arm.vm(&target.resource_group, &target.name);
    let operation = arm.begin(Method::DELETE, &vm, None).await?;
    let mut progress = printer.progress();
    progress.show(&format!("deleting {}", target.name));
    arm.finish(operation, None, &mut progress).await?;
    drop(progress);
    let expectation = Expectation::path(data_dir, &target.resource_group, &target.name);
    if expectation.exists() {
        std::fs::remove_file(expectation)?;
    }
    printer.note(&format!("{} is deleted", target.name));
    Ok(())
}
