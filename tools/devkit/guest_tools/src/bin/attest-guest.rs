//! The published crate `azure-guest-attestation-sdk`, unmodified: attests this VM by `AzureGuest` against the service
//! whose URL is the argument, and prints the token as the crate decrypted it.

use std::error::Error;

use azure_guest_attestation_sdk::client::{AttestOptions, AttestationClient, Provider};

fn main() -> Result<(), Box<dyn Error>> {
    let service = std::env::args().nth(1).ok_or("usage: attest-guest URL")?;
    let provider = match service.as_str() {
        "loopback" => Provider::Loopback,
        url => Provider::maa(url),
    };
    let options =
        AttestOptions { client_payload: Some(r#"{"nonce":"of the guest"}"#.to_owned()), pcr_selection: None };
    let result = AttestationClient::new()?.attest_guest(provider, Some(&options))?;
    if service == "loopback" {
        println!("{}", result.request_json);
    } else {
        println!("{}", result.token.ok_or("no token")?);
    }
    Ok(())
}
