//! Why nothing is exported, in five parts.

use std::path::Path;

use sealed_disk::boot_region::BootRegionError;
use sealed_disk::recovery::{Damage, DocumentError, ExportError};
use uuid::Uuid;

use crate::failure::{Stop, chain};

const DOCUMENT: &str = "recovery document";
const WHOLE: &str = "every byte before the data is authenticated by the tenant's key before any data is read";
const COPY: &str =
    "take the VM's whole folder from one moment: from the host while the VM is stopped, or from one backup";

pub(super) fn missing(path: &Path) -> Stop {
    Stop::refused(
        "StorageMissing",
        path.display().to_string(),
        "the file that the VM's paravisor wrote",
        "no such file",
        "disk, boot region and recovery files of a VM belong together",
        COPY,
    )
}

pub(super) fn no_recovery(path: &Path) -> Stop {
    Stop::refused(
        "NoRecoveryKey",
        path.display().to_string(),
        "the passphrase wrapped to the tenant's recovery key",
        "no such file",
        "a disk is recovered only if its VM was deployed with `properties.casemate.recoveryKey`",
        "look whether this is the VM's folder; without a recovery key, get the data through the running VM",
    )
}

pub(super) fn no_document(path: &Path) -> Stop {
    Stop::refused(
        "NoRecoveryDocument",
        path.display().to_string(),
        "the recovery document",
        "no such file",
        "the export authenticates partition table, boot partition and LUKS2 header by the recovery document",
        "start the VM once with a paravisor that writes it; where that is impossible, docs/recovery.md opens the disk by its published header",
    )
}

pub(super) fn recovery(actual: &str) -> Stop {
    Stop::refused(
        "RecoveryFileMalformed",
        "recovery file",
        "version 1, RSA-OAEP-256",
        actual,
        "the recovery file is used only as a paravisor writes it",
        COPY,
    )
}

pub(super) fn private_key(actual: &str) -> Stop {
    Stop::refused(
        "RecoveryKeyUnusable",
        "private key",
        "an unencrypted RSA key in PKCS #8 (PEM: PRIVATE KEY)",
        actual,
        "what the paravisor wrapped is unwrapped with RSA-OAEP",
        "convert it: openssl pkcs8 -topk8 -nocrypt -in key.pem -out private.pem",
    )
}

pub(super) fn wrong_key() -> Stop {
    Stop::refused(
        "WrongRecoveryKey",
        "private key",
        "the one whose public half the VM was deployed with",
        "it does not unwrap what the VM's paravisor wrapped",
        "passphrase and document key are wrapped to `properties.casemate.recoveryKey` alone",
        "use the private key of that public key; if the files are damaged, take them from a backup",
    )
}

pub(super) fn fingerprint(kept: &str, seen: &str) -> Stop {
    Stop::refused(
        "RecoveryDocumentForged",
        "recovery document key",
        kept,
        seen,
        "the VM's evidence names the key that its own paravisor made; anybody can wrap another to a public key",
        "somebody made this document in the VM's place: take the VM's files from elsewhere",
    )
}

pub(super) fn document(error: &DocumentError) -> Stop {
    let code = match error {
        DocumentError::NotAuthentic => "RecoveryDocumentForged",
        _ => "RecoveryDocumentMalformed",
    };
    Stop::refused(code, DOCUMENT, "as the VM's paravisor sealed it", chain(error), WHOLE, COPY)
}

pub(super) fn other_vm(expected: Uuid, actual: &str) -> Stop {
    Stop::refused(
        "DocumentOfAnotherVm",
        "VM of the recovery document",
        expected.to_string().to_uppercase(),
        actual,
        "document, guest state and recovery file name one VM, the one that was asked for",
        "put this VM's own files together",
    )
}

pub(super) fn no_state() -> Stop {
    Stop::refused(
        "GenerationUnknown",
        "generation of the recovery document",
        "that of the guest state beside it",
        "there is no guest-state.vmgs",
        "a document is compared with the guest state, so that an older one is noticed",
        "put guest-state.vmgs into the folder; if it is lost, --accept-older exports what the document names",
    )
}

pub(super) fn generation(expected: &str, actual: u64) -> Stop {
    Stop::refused(
        "DocumentOfAnotherGeneration",
        "generation of the recovery document",
        expected,
        actual.to_string(),
        "an older partition table, boot partition or header is not taken for today's",
        "take the newer files; if there are none (a crash of the host leaves such a pair), --accept-older exports what is there",
    )
}

pub(super) fn running() -> Stop {
    Stop::refused(
        "VmIsRunning",
        "OS disk",
        "a VM that is stopped",
        "its paravisor has the disk locked",
        "a disk that is being written cannot be exported whole",
        "stop it first: casemate vm stop NAME",
    )
}

pub(super) fn exists(path: &Path) -> Stop {
    Stop::refused(
        "FileExists",
        path.display().to_string(),
        "no such file",
        "it exists",
        "nothing is overwritten",
        "give another name, or remove the file",
    )
}

pub(super) fn export(error: &ExportError) -> Stop {
    let refused = |code, claim: &str, expected: &str, actual: String, remedy| {
        Stop::refused(code, claim, expected, actual, WHOLE, remedy)
    };
    match error {
        ExportError::Io { doing, source } => Stop::io(doing, source),
        ExportError::Region(BootRegionError::Io(source)) => Stop::io("reading the boot region", source),
        ExportError::Region(region) => refused(
            "BootRegionTampered",
            "boot region",
            "the bytes that the recovery document names",
            chain(region),
            COPY,
        ),
        ExportError::Layout => {
            refused("RecoveryDocumentMalformed", DOCUMENT, "the layout of a disk", chain(error), COPY)
        }
        ExportError::DiskSize { expected, actual } => {
            refused("DiskTruncated", "size of disk.img", &expected.to_string(), actual.to_string(), COPY)
        }
        ExportError::Damaged(damage) => damaged(damage),
        other => refused("ExportFailed", "export", "a plain disk", chain(other), COPY),
    }
}

fn damaged(damage: &Damage) -> Stop {
    const ANYWAY: &str = "if this VM's own guest did it, --accept-damaged exports the disk as it is";
    let (code, claim, expected) = match damage {
        Damage::NoKeyslot => ("NoRecoveryKeyslot", "LUKS2 header", "a keyslot for the recovery passphrase"),
        Damage::OtherDisk => ("DiskOfAnotherVm", "disk.img", "a root file system under this VM's volume key"),
        _ => ("LuksHeaderRefused", "LUKS2 header", "this VM's volume, of the form that a VM starts with"),
    };
    let rule =
        "an export is checked as a start is: the disk must be this volume's, and the passphrase must open it";
    Stop::refused(code, claim, expected, chain(damage), rule, ANYWAY)
}
