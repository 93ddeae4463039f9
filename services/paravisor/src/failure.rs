//! Why a VM may not start or go on, as the host agent, the API and the command line will show it.
//!
//! Every error of the flow ends here as a [`Stop`]: a refusal in five parts, or a plain fault in the same shape. A fault is
//! `transient` when the same start can succeed later without a change (a peer did not answer), else not.

use std::error::Error;
use std::io;

use internal_api::paravisor::Failure;
use public_api::Denial;
use public_api::client::ClientError;
use sealed_disk::boot_region::BootRegionError;
use sealed_disk::guest_state::StateError;

use crate::tpm::identity::TpmError;

/// The reason to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop(Box<Failure>);

impl Stop {
    /// A refusal: trying again changes nothing.
    pub fn refused(
        code: &str,
        claim: impl Into<String>,
        expected: impl Into<String>,
        actual: impl Into<String>,
        rule: &str,
        remedy: &str,
    ) -> Self {
        Self(Box::new(Failure {
            code: code.to_owned(),
            claim: claim.into(),
            expected: expected.into(),
            actual: actual.into(),
            rule: rule.to_owned(),
            remedy: remedy.to_owned(),
            transient: false,
        }))
    }

    /// The same, but another try can succeed.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.0.transient = true;
        self
    }

    /// The failure to report.
    pub fn failure(&self) -> &Failure {
        &self.0
    }

    /// A file operation that failed. A full disk is told apart: nothing but room will help.
    pub fn io(doing: &str, error: &io::Error) -> Self {
        if is_disk_full(error) {
            return Self::refused(
                "DiskFull",
                doing,
                "room on the host's storage",
                "no space left on device",
                "every byte of the VM's disk and state is written before the guest runs",
                "free space on the host, or delete VMs, and start the VM again",
            );
        }
        Self::refused(
            "StorageFault",
            doing,
            "the host's storage answers",
            chain(error),
            "the VM's disk and state must be readable and writable",
            "look at the host's storage",
        )
        .transient()
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        *stop.0
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// Whether an error, or a cause of it, says that a file system is full.
pub fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let full = |io: &io::Error| {
        matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            || io.get_ref().is_some_and(|inner| is_disk_full(inner))
    };
    error.downcast_ref::<io::Error>().is_some_and(full) || error.source().is_some_and(is_disk_full)
}

/// A full disk if that is the cause, else what `otherwise` makes of it.
fn unless_full(doing: &str, error: &(dyn Error + 'static), otherwise: impl FnOnce() -> Stop) -> Stop {
    if is_disk_full(error) {
        return Stop::io(doing, &io::ErrorKind::StorageFull.into());
    }
    otherwise()
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        const CLAIM: &str = "guest state";
        const RULE: &str =
            "the guest state is used only as this VM wrote it, opened by the key that its policy releases";
        let (code, expected, remedy) = match &error {
            StateError::OtherVm { expected, found } => {
                return Self::refused(
                    "GuestStateOfAnotherVm",
                    CLAIM,
                    expected.to_string().to_uppercase(),
                    found.to_string().to_uppercase(),
                    RULE,
                    "put this VM's own guest state back in its place",
                );
            }
            StateError::WrongKey => (
                "GuestStateKeyMismatch",
                "a guest state that opens with this VM's key",
                "put this VM's own guest state back; with a changed key, restore the key's former version",
            ),
            StateError::KekRejected => {
                ("ReleasedKeyUnusable", "an RSA key of 2048 to 4096 bits", "use such a key")
            }
            StateError::NotGuestState | StateError::Truncated => (
                "GuestStateDamaged",
                "a complete guest state",
                "restore the guest state from a copy of the same generation, or recover the data with the recovery key",
            ),
            StateError::Tampered { .. } | StateError::GenerationMismatch { .. } => (
                "GuestStateTampered",
                "the bytes that this VM wrote",
                "somebody changed the guest state; restore it, or recover the data with the recovery key",
            ),
            StateError::Io(_) | StateError::Unknown => {
                return unless_full("writing the guest state", &error, || {
                    Self::refused(
                        "StorageFault",
                        CLAIM,
                        "durable storage",
                        chain(&error),
                        RULE,
                        "start the VM again",
                    )
                    .transient()
                });
            }
            _ => ("GuestStateUnusable", "a usable guest state", "report this: it should not happen"),
        };
        Self::refused(code, CLAIM, expected, chain(&error), RULE, remedy)
    }
}

impl From<BootRegionError> for Stop {
    fn from(error: BootRegionError) -> Self {
        const CLAIM: &str = "boot region (partition table, boot partition, LUKS2 header)";
        const RULE: &str = "below the ciphertext, every byte is the one that this VM's guest state recorded";
        if matches!(error, BootRegionError::Io(_)) {
            return unless_full("writing the boot region", &error, || {
                Self::refused(
                    "StorageFault",
                    CLAIM,
                    "readable storage",
                    chain(&error),
                    RULE,
                    "start the VM again",
                )
                .transient()
            });
        }
        Self::refused(
            "BootRegionTampered",
            CLAIM,
            "the bytes that this VM wrote",
            chain(&error),
            RULE,
            "somebody changed the boot region's file; restore it, or recover the data with the recovery key",
        )
    }
}

impl From<TpmError> for Stop {
    fn from(error: TpmError) -> Self {
        if let TpmError::NoReport(stop) = error {
            return stop;
        }
        Self::refused(
            "VtpmUnusable",
            "vTPM",
            "a working vTPM with the platform's keys",
            chain(&error),
            "the VM does not run without its vTPM",
            "if the guest protected its owner or endorsement hierarchy with a password, remove that; else report this",
        )
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Denied { denial, .. } => {
                let Denial { code, claim, expected, actual, rule, remedy } = *denial;
                Self(Box::new(Failure { code, claim, expected, actual, rule, remedy, transient: false }))
            }
            ClientError::Status { ref service, status: 404, ref code, .. } if code == "KeyNotFound" => {
                Self::refused(
                    "KeyNotFound",
                    service.clone(),
                    "the key that the VM's guest state is under",
                    chain(&error),
                    "a VM runs only as long as its key's owner keeps the key",
                    "recover the deleted key, or recover the data with the recovery key",
                )
            }
            ClientError::Status { ref service, status, .. } => {
                let stop = Self::refused(
                    if status >= 500 { "ServiceFailed" } else { "ServiceRefused" },
                    service.clone(),
                    "an answer",
                    chain(&error),
                    "a VM starts only with a fresh token and a released key",
                    "look into that service's log",
                );
                if status >= 500 || status == 429 { stop.transient() } else { stop }
            }
            ClientError::Transport { ref service, .. } | ClientError::Setup { ref service, .. } => {
                Self::refused(
                    "ServiceUnreachable",
                    service.clone(),
                    "an answer over TLS under the tenant's trust bundle",
                    chain(&error),
                    "a VM starts only with a fresh token and a released key",
                    "start the service, or check address and certificate",
                )
                .transient()
            }
        }
    }
}

/// Another key than the volume's was measured into PCR 15.
pub fn foreign_volume(expected: [u8; 32], found: Option<[u8; 32]>) -> Stop {
    Stop::refused(
        "ForeignVolumeOpened",
        "PCR 15",
        format!("the measurement of this VM's volume key, {}", hex::encode(expected)),
        found.map_or("a measurement that cannot be read".to_owned(), hex::encode),
        "the first measurement into PCR 15 is the one of this VM's own volume key",
        "the root file system was not this VM's; the VM was stopped before it could ask for anything",
    )
}

/// The firmware and the loaders measured something else than what the volume key is sealed to.
pub fn other_boot(differences: &[String]) -> Stop {
    Stop::refused(
        "OtherBootMeasured",
        "PCRs of the boot",
        "the boot chain that the volume key is sealed to",
        differences.join("; "),
        "the volume key is released only to the loader, kernel, initramfs, command line and Secure Boot state predicted for \
         this boot",
        "the host changed what boots, or somebody typed at the boot menu; start the VM again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_through_its_wrappers() {
        let full = || io::Error::from_raw_os_error(nix::libc::ENOSPC);
        for stop in [
            Stop::io("writing", &full()),
            StateError::Io(full()).into(),
            BootRegionError::Io(full()).into(),
            BootRegionError::Io(io::Error::other(BootRegionError::Io(full()))).into(),
        ] {
            assert_eq!((stop.failure().code.as_str(), stop.failure().transient), ("DiskFull", false));
        }
        let other = Stop::io("writing", &io::ErrorKind::NotFound.into());
        assert_eq!((other.failure().code.as_str(), other.failure().transient), ("StorageFault", true));
    }

    #[test]
    fn a_service_that_says_no_is_final_and_one_that_is_away_is_not() {
        let status = |status| {
            let (service, code, message) = ("https://keys".to_owned(), "X".to_owned(), "Y".to_owned());
            Stop::from(ClientError::Status { service, status, code, message }).failure().transient
        };
        assert_eq!([status(403), status(429), status(500)], [false, true, true]);
        let denial = Denial::new("RollbackRefused", "generation", "2", "1", "rule", "remedy");
        let stop = Stop::from(ClientError::Denied { service: String::new(), denial: Box::new(denial) });
        assert_eq!((stop.failure().code.as_str(), stop.failure().transient), ("RollbackRefused", false));
    }
}
