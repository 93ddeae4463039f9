//! What is sent, and the cryptography that no verifier of it can do without.

use public_api::attestation_policy::TokenAlgorithm;
use public_api::encoding::from_base64_any;
use serde_json::Value;

use crate::forger::Guest;
use crate::raw;
use crate::server::Server;
use crate::support::Attempt;

/// A request that the service accepts.
#[derive(Clone)]
pub struct Evidence {
    /// As the tables name it.
    pub name: &'static str,
    /// Path with its query.
    pub path: &'static str,
    /// JSON.
    pub body: String,
}

const SEV_SNP_VM: &str = "/attest/SevSnpVm?api-version=2022-08-01";
const AZURE_GUEST: &str = "/attest/AzureGuest?api-version=2020-10-01";

/// A report with its certificates.
pub fn sev_snp_vm() -> Evidence {
    Evidence { name: "SevSnpVm", path: SEV_SNP_VM, body: Attempt::honest().body().to_string() }
}

/// A report without any certificate: the service has to have them.
pub fn without_certificates() -> Evidence {
    let mut attempt = Attempt::honest();
    attempt.chain = String::new();
    Evidence { name: "no certificates", path: SEV_SNP_VM, body: attempt.body().to_string() }
}

/// A quote with event log, report and a certificate that the service gave its attestation key.
pub fn azure_guest(server: &Server) -> Evidence {
    let mut guest = Guest::honest();
    let request = guest.certificate_request().to_string();
    let answer = server.call("POST", "/attestationKeyCertificates", &request);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    guest.aik_cert = from_base64_any(answer["certificate"].as_str().expect("a text")).expect("base64");
    Evidence { name: "AzureGuest", path: AZURE_GUEST, body: guest.body().to_string() }
}

/// Microseconds of the least that a verifier of `SevSnpVm` can do: the report's signature, and the token's.
pub fn floor_of_sev_snp_vm(algorithm: TokenAlgorithm) -> f64 {
    raw::p384_verify() + raw::sign(algorithm)
}

/// The same for `AzureGuest`: the signatures of report and attestation key certificate, of quote and certification, the
/// token's own, and the encryption of the key that the token is sealed with.
pub fn floor_of_azure_guest(algorithm: TokenAlgorithm) -> f64 {
    2.0 * raw::p384_verify() + 2.0 * raw::rsa_2048_verify() + raw::rsa_2048_encrypt() + raw::sign(algorithm)
}
