//! `casemate-guest-agent`: evidence, tokens and released keys for workloads in a confidential VM.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 done, 2 the input or the surroundings
//! were wrong, 3 a service refused (and said why), 1 something else failed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use guest_agent::agent::{Surroundings, TokenKind, shown, user_data};
use guest_agent::evidence::Evidence;
use guest_agent::failure::Failure;
use guest_agent::printer::{Format, failed};
use guest_agent::release::Released;
use guest_agent::{serve, sev_guest};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(name = "casemate-guest-agent", version, about = "Evidence, tokens and keys for workloads in a VM")]
struct Arguments {
    /// How results are printed.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    surroundings: Surroundings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The attestation report of this VM and the certificates for it.
    Evidence {
        /// Up to 64 bytes in hex that the report shall speak of.
        #[arg(long, value_name = "HEX")]
        user_data: Option<String>,
        /// Write the HCL report as it is to this file.
        #[arg(long, value_name = "FILE")]
        hcl_report: Option<PathBuf>,
    },
    /// A token of the attestation service.
    Token {
        /// A value that comes back in the token.
        #[arg(long)]
        nonce: Option<String>,
        /// With the TPM's quote and the event log (`AzureGuest`), instead of the report alone (`SevSnpVm`).
        #[arg(long)]
        guest: bool,
    },
    /// A key of the key service, released to this VM. Prints a secret.
    Release {
        /// The key: https://VAULT/keys/NAME or .../NAME/VERSION.
        key: String,
    },
    /// Serve evidence, tokens and keys on a local socket.
    Serve {
        /// The socket.
        #[arg(long, default_value = "/run/casemate/guest-agent.sock", value_name = "PATH")]
        socket: PathBuf,
        /// A group whose members may use it; without it the owner alone.
        #[arg(long)]
        group: Option<String>,
    },
    /// Serve /dev/sev-guest, on a development host.
    SevGuest {
        /// The port to the host.
        #[arg(long, default_value = concat!("/dev/virtio-ports/", "casemate.sev-guest"), value_name = "PATH")]
        port: PathBuf,
        /// The kernel's interface for character devices in user space.
        #[arg(long, default_value = "/dev/cuse", value_name = "PATH")]
        cuse: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failed(&failure);
            ExitCode::from(failure.blame().exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| Failure::us("a second TLS provider is installed"))?;
    let Arguments { output, surroundings, command } = arguments;
    match command {
        Command::Evidence { user_data: text, hcl_report } => {
            let data = text.as_deref().map(user_data).transpose()?;
            let evidence = surroundings.evidence(data.as_ref())?;
            if let Some(path) = hcl_report {
                std::fs::write(&path, &evidence.hcl_report).map_err(|error| {
                    Failure::you(format!("writing {}", path.display()), "name another file").because(error)
                })?;
            }
            output.facts(&evidence.shown(), &facts(&evidence)?);
        }
        Command::Token { nonce, guest } => {
            let kind = if guest { TokenKind::AzureGuest } else { TokenKind::SevSnpVm };
            let token = surroundings.token(kind, nonce.as_deref())?;
            output.text(&json!({ "token": token }), &token);
        }
        Command::Release { key } => {
            let released = surroundings.release(&key)?;
            output.text(&shown(&released), &text(&released));
        }
        Command::Serve { socket, group } => return serve::run(surroundings, &socket, group.as_deref()),
        Command::SevGuest { port, cuse } => return sev_guest::run(&port, &cuse),
    }
    Ok(())
}

/// What people look for in evidence.
fn facts(evidence: &Evidence) -> Result<Vec<(&'static str, String)>, Failure> {
    let report = snp::Report::parse(&evidence.snp_report)
        .map_err(|error| Failure::us("reading the SNP report").because(error))?;
    let claims: Value = serde_json::from_slice(&evidence.runtime_claims).unwrap_or_default();
    let claim = |path: &str| claims.pointer(path).and_then(Value::as_str).unwrap_or("-").to_owned();
    Ok(vec![
        ("vm", claim("/vm-configuration/vmUniqueId")),
        ("vmpl", report.vmpl.to_string()),
        ("launch measurement", hex::encode(report.measurement)),
        ("host data", hex::encode(report.host_data)),
        ("reported tcb", format!("{:016x}", u64::from_le_bytes(report.reported_tcb.0))),
        ("chip", hex::encode(report.chip_id)),
        ("user data", claim("/user-data")),
    ])
}

/// A private key as PEM, a symmetric one in hex.
fn text(released: &Released) -> String {
    if released.kty.starts_with("oct") {
        return hex::encode(&released.key);
    }
    let base64 = public_api::encoding::to_base64(&released.key);
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    for (at, character) in base64.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text + "\n-----END PRIVATE KEY-----"
}
