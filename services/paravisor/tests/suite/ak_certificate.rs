//! The attestation key's certificate: asked for beside the boot, kept, renewed near its end, and done without.

use vtpm::command;
use vtpm::hcl::NV_INDEX_AK_CERTIFICATE;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::lab::guest::Guest;
use crate::lab::{Lab, VM};
use crate::support::one_tpm_at_a_time;

/// Issuer and serial number of the certificate that the guest reads.
fn read(guest: &Guest<'_>) -> (String, Vec<u8>) {
    let index = NV_INDEX_AK_CERTIFICATE;
    let size = guest.tpm(&command::nv_read_public(index), command::nv_public).unwrap().size;
    let der = guest.tpm(&command::nv_read(index, b"", index, size, 0), command::nv_data).unwrap();
    let certificate = Certificate::from_der(&der).unwrap();
    let tbs = certificate.tbs_certificate();
    assert_eq!(tbs.subject().to_string(), format!("CN={VM}"));
    (tbs.issuer().to_string(), tbs.serial_number().as_bytes().to_vec())
}

const AUTHORITY: &str = "CN=Casemate vTPM CA of https://attestation.example";

#[test]
fn a_vm_asks_once_and_keeps_what_it_got() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    assert_eq!(*lab.services.certified.lock().unwrap(), 0, "not before the guest may start");
    assert!(running.ak_certificate().renew().unwrap());
    let (issuer, serial) = read(&Guest::boot(&running, &lab.config.vars));
    assert_eq!(issuer, AUTHORITY);
    assert!(!running.ak_certificate().renew().unwrap());
    running.stop().unwrap();
    drop(running);

    let running = lab.start().unwrap();
    assert!(!running.ak_certificate().renew().unwrap());
    assert_eq!(read(&Guest::boot(&running, &lab.config.vars)), (issuer, serial));
    assert_eq!(*lab.services.certified.lock().unwrap(), 1);
}

#[test]
fn a_guest_that_runs_already_reads_the_new_certificate() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let guest = Guest::boot(&running, &lab.config.vars);
    assert_eq!(read(&guest).0, format!("CN=Casemate vTPM of VM {VM}"));
    assert!(running.ak_certificate().renew().unwrap());
    assert_eq!(read(&guest).0, AUTHORITY);
    guest.open_volume().unwrap();
}

#[test]
fn a_service_that_is_away_costs_the_certificate_and_nothing_else() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    *lab.services.deaf.lock().unwrap() = true;
    assert!(running.ak_certificate().renew().is_err());
    running.ak_certificate().renew_or_log();
    let guest = Guest::boot(&running, &lab.config.vars);
    assert_eq!(read(&guest).0, format!("CN=Casemate vTPM of VM {VM}"));
    guest.open_volume().unwrap();
    *lab.services.deaf.lock().unwrap() = false;
    assert!(running.ak_certificate().renew().unwrap());
}

#[test]
fn a_certificate_near_its_end_is_renewed_at_the_next_start() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    // Given out nearly a year before: 60 days are left.
    *lab.services.clock.lock().unwrap() = Some(1_767_225_600 - 305 * 86400);
    assert!(running.ak_certificate().renew().unwrap());
    running.stop().unwrap();
    drop(running);
    *lab.services.clock.lock().unwrap() = None;
    let running = lab.start().unwrap();
    let before = read(&Guest::boot(&running, &lab.config.vars));
    assert!(running.ak_certificate().renew().unwrap());
    running.reset().unwrap();
    let after = read(&Guest::boot(&running, &lab.config.vars));
    assert_ne!(before.1, after.1);
    assert!(!running.ak_certificate().renew().unwrap());
}
