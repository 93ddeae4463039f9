//! Faults of the host as [`Failure`]s: what was tried, what was found, what to do about it.

use std::io;
use std::path::Path;

use internal_api::paravisor::Failure;

/// Programs that the host agent starts, and the Debian package of each.
const PACKAGES: &[(&str, &str)] = &[("qemu-system-x86_64", "qemu-system-x86"), ("setsid", "util-linux")];

/// A fault that another try can cure.
pub fn transient(code: &str, claim: &str, expected: &str, actual: impl Into<String>) -> Box<Failure> {
    Box::new(Failure {
        code: code.to_owned(),
        claim: claim.to_owned(),
        expected: expected.to_owned(),
        actual: actual.into(),
        rule: "the host needs it to run the VM".to_owned(),
        remedy: "the host tries again by itself; its log has the details".to_owned(),
        transient: true,
    })
}

/// A fault that stays until somebody changes something.
pub fn lasting(
    code: &str,
    claim: &str,
    expected: &str,
    actual: impl Into<String>,
    remedy: &str,
) -> Box<Failure> {
    Box::new(Failure {
        remedy: remedy.to_owned(),
        transient: false,
        ..*transient(code, claim, expected, actual)
    })
}

/// A file operation that failed; a full disk is told apart.
pub fn io(claim: &str, path: &Path, error: &io::Error) -> Box<Failure> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => lasting(
            "DiskFull",
            claim,
            "free space on the host's disk",
            format!("{}: {error}", path.display()),
            "free space on the host, then start the VM again or delete it",
        ),
        _ => transient("HostFault", claim, "a working file system", format!("{}: {error}", path.display())),
    }
}

/// A program that could not be started; a missing one is named with its package.
pub fn start(claim: &str, program: &Path, error: &io::Error) -> Box<Failure> {
    if error.kind() != io::ErrorKind::NotFound {
        return io(claim, program, error);
    }
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let package = PACKAGES.iter().find(|(known, _)| *known == name).map(|(_, package)| *package);
    let remedy = match package {
        Some(package) => format!("apt install {package}, then start the VM again"),
        None => format!("install {}, then start the VM again", program.display()),
    };
    lasting(
        "ProgramMissing",
        claim,
        &format!("the program {name}"),
        format!("{} was not found", program.display()),
        &remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_and_not_retried() {
        let error = io::Error::from(io::ErrorKind::StorageFull);
        let failure = io("write the launch files", Path::new("/data"), &error);
        assert_eq!((failure.code.as_str(), failure.transient), ("DiskFull", false));
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        let failure = start("start the guest", Path::new("qemu-system-x86_64"), &error);
        assert_eq!(failure.code, "ProgramMissing");
        assert!(failure.remedy.contains("apt install qemu-system-x86"), "{}", failure.remedy);
    }

    #[test]
    fn another_fault_is_tried_again() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(io("read", Path::new("/x"), &error).transient);
    }
}
