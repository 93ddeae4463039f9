//! The published crate `az-snp-vtpm`, unmodified: reads the HCL report with user data and a quote from the guest's TPM,
//! and the certificates from the metadata service; verifies all of it with the crate's own functions.

use std::error::Error;

use az_snp_vtpm::certs::{Vcek, build_cert_chain};
use az_snp_vtpm::hcl::HclReport;
use az_snp_vtpm::report::{AttestationReport, Validateable as _};
use az_snp_vtpm::{imds, is_snp_cvm, vtpm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::bn::BigNum;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::{Value, json};

const NONCE: &[u8] = b"a nonce of the guest";

fn main() -> Result<(), Box<dyn Error>> {
    if !is_snp_cvm()? {
        return Err("the crate does not take this for an SEV-SNP VM".into());
    }
    let report = HclReport::new(vtpm::get_report_with_report_data(&[0x5A; 64])?)?;
    let claims: Value = serde_json::from_slice(report.var_data())?;
    let hash = report.var_data_sha256();
    let snp: AttestationReport = (&report).try_into()?;
    if hash != snp.report_data[..32] {
        return Err("REPORT_DATA is not the hash of the runtime claims".into());
    }
    let pem = imds::get_certs()?;
    let (vcek, chain) = (Vcek::from_pem(&pem.vcek)?, build_cert_chain(&pem.amd_chain)?);
    chain.validate()?;
    vcek.validate(&chain)?;
    snp.validate(&vcek)?;
    let key = quote()?;
    let told = claims["keys"].as_array().into_iter().flatten().find(|key| key["kid"] == "HCLAkPub");
    if told.and_then(|told| told["n"].as_str()) != Some(&URL_SAFE_NO_PAD.encode(&key)) {
        return Err("the attestation key is not the one that the report binds".into());
    }
    println!("{}", json!({ "vmpl": snp.vmpl, "userData": claims["user-data"], "verified": true }));
    Ok(())
}

/// Quotes all PCRs and verifies the quote; the key's modulus.
fn quote() -> Result<Vec<u8>, Box<dyn Error>> {
    let public = vtpm::get_ak_pub()?;
    let (n, e) = (BigNum::from_slice(public.modulus())?, BigNum::from_slice(public.exponent())?);
    let key = PKey::from_rsa(Rsa::from_public_components(n, e)?)?;
    let quote = vtpm::get_quote(NONCE)?;
    quote.verify(&key, NONCE)?;
    if quote.verify(&key, b"another nonce").is_ok() {
        return Err("a quote for another nonce verified".into());
    }
    Ok(public.modulus().to_vec())
}
