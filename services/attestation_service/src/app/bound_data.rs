//! That a report binds the data which came with it: each is bound by its hash, in a field of its own.

use aws_lc_rs::digest;
use public_api::Denial;

use super::request::Attached;

/// REPORT_DATA is the hash of the runtime data, then zeros.
pub(super) fn check_report_data(report_data: &[u8; 64], runtime: &Attached) -> Result<(), Box<Denial>> {
    let (bound, rest) = report_data.split_at(32);
    let expected = sha256(&runtime.bytes);
    if bound != expected {
        return Err(Box::new(Denial::new(
            "RuntimeDataNotBound",
            "x-ms-sevsnpvm-reportdata",
            format!("{} (SHA-256 of the runtime data) in the first half", hex::encode(expected)),
            hex::encode(bound),
            "runtime data counts only if the report's REPORT_DATA holds its hash",
            "send the runtime data byte for byte as they were hashed for the report, with the report that was made for them",
        )));
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Box::new(Denial::new(
            "ReportDataNotZeroFilled",
            "x-ms-sevsnpvm-reportdata",
            "zeros in the second half",
            hex::encode(rest),
            "REPORT_DATA holds the SHA-256 of the runtime data and then zeros",
            "ask for a report whose REPORT_DATA is the hash followed by 32 zero bytes",
        )));
    }
    Ok(())
}

/// HOST_DATA is the hash of the init-time data.
pub(super) fn check_host_data(host_data: &[u8; 32], init_time: &Attached) -> Result<(), Box<Denial>> {
    let expected = sha256(&init_time.bytes);
    if *host_data == expected {
        return Ok(());
    }
    Err(Box::new(Denial::new(
        "InitTimeDataNotBound",
        "x-ms-sevsnpvm-hostdata",
        format!("{} (SHA-256 of the init-time data)", hex::encode(expected)),
        hex::encode(host_data),
        "init-time data counts only if the report's HOST_DATA is its hash",
        "send the init-time data byte for byte as the VM was launched with them",
    )))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
