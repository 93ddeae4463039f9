//! The ports of one platform, checked before anything starts.

use std::net::TcpListener;

use anyhow::Result;

use crate::failure::Failure;

/// Consecutive ports from a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Resource Manager, tokens.
    pub control_plane: u16,
    /// Host agents, mutual TLS.
    pub hosts: u16,
    /// Attestation.
    pub attestation: u16,
    /// Keys.
    pub keys: u16,
    /// The secure processor's certificates (development hosts).
    pub certificates: u16,
}

impl Ports {
    /// Ports `base` to `base + 4`.
    pub fn from_base(base: u16) -> Self {
        Self {
            control_plane: base,
            hosts: base + 1,
            attestation: base + 2,
            keys: base + 3,
            certificates: base + 4,
        }
    }

    /// Says which port is taken, and by what it was wanted.
    pub fn check_free(self) -> Result<()> {
        let wanted = [
            (self.control_plane, "control plane"),
            (self.hosts, "host interface"),
            (self.attestation, "attestation service"),
            (self.keys, "key service"),
            (self.certificates, "secure processor's certificates"),
        ];
        for (port, what) in wanted {
            if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
                let message = format!("port {port}, wanted for the {what}, cannot be used: {error}");
                return Err(Failure::you(message, "choose other ports with `casemate up --base-port PORT`"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let ports = Ports { keys: port, ..Ports::from_base(port.wrapping_add(10)) };
        let error = ports.check_free().unwrap_err().to_string();
        assert!(error.contains(&format!("port {port}, wanted for the key service")), "{error}");
    }
}
