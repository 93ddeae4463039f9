//! What a signed report cannot say, because firmware of AMD's never does: rules between its own fields.
//!
//! A report that breaks one was not made by the firmware that this crate knows, whatever its signature is. What firmware
//! may do, although it is unwelcome (debugging, an old TCB, a launch TCB above the current one after a migration), is
//! for a policy to judge.

use crate::error::VerifyError;
use crate::product::Product;
use crate::report::{Report, SigningKey};

/// VMPL of a report that the host asked for (ABI, SNP_HV_REPORT_REQ).
const HOST: u32 = u32::MAX;

/// All rules, in the order of the fields.
pub(crate) fn check(report: &Report, product: Product) -> Result<(), VerifyError> {
    check_policy(report)?;
    if report.vmpl > 3 && report.vmpl != HOST {
        return Err(VerifyError::Vmpl { vmpl: report.vmpl });
    }
    check_author_key(report)?;
    check_chip_id(report, product)?;
    check_tcbs(report, product)?;
    check_versions(report)
}

/// ABI section 4.3: firmware launches no guest with a policy that breaks these. A bit that is new may allow the host
/// something, as DEBUG and MIGRATE_MA do, so nobody may assume that it is harmless.
fn check_policy(report: &Report) -> Result<(), VerifyError> {
    let policy = report.policy;
    if !policy.reserved_one() {
        return Err(VerifyError::PolicyReserved { policy });
    }
    match policy.reserved_set() {
        0 => Ok(()),
        unknown => Err(VerifyError::PolicyUnknown { policy, unknown }),
    }
}

/// ABI table "ATTESTATION_REPORT": AUTHOR_KEY_DIGEST is zero unless AUTHOR_KEY_EN is one; an author key certifies an ID
/// key, so there is one.
fn check_author_key(report: &Report) -> Result<(), VerifyError> {
    let zero = [0; 48];
    match (report.author_key_en, report.author_key_digest == zero) {
        (true, true) => Err(VerifyError::AuthorKeyMissing),
        (false, false) => Err(VerifyError::AuthorKeyUnexpected),
        (true, false) if report.id_key_digest == zero => Err(VerifyError::IdKeyMissing),
        _ => Ok(()),
    }
}

/// With a VCEK the certificate says what the id is; a VLEK's says nothing of it.
fn check_chip_id(report: &Report, product: Product) -> Result<(), VerifyError> {
    let rest = report.chip_id.get(product.chip_id_len()..).unwrap_or_default();
    if report.signing_key == SigningKey::Vlek && rest.iter().any(|byte| *byte != 0) {
        return Err(VerifyError::ChipIdLength { report: hex::encode(report.chip_id), product });
    }
    Ok(())
}

/// ReportedTcb <= CommittedTcb <= CurrentTcb, each component: SNP_CONFIG refuses to report above what is committed,
/// SNP_COMMIT commits what runs, and firmware below the committed one does not load (ABI, those commands).
fn check_tcbs(report: &Report, product: Product) -> Result<(), VerifyError> {
    let decode = |tcb: crate::TcbBytes| tcb.decode(product).components();
    let reported = ("reported_tcb", decode(report.reported_tcb));
    let committed = ("committed_tcb", decode(report.committed_tcb));
    let current = ("current_tcb", decode(report.current_tcb));
    for ((name, lower), (bound, upper)) in [(reported, committed), (committed, current)] {
        for ((component, lower), (_, upper)) in lower.into_iter().zip(upper) {
            if lower > upper {
                return Err(VerifyError::TcbOrder { component, name, lower, bound, upper });
            }
        }
    }
    Ok(())
}

fn check_versions(report: &Report) -> Result<(), VerifyError> {
    let (committed, current) = (report.committed_version, report.current_version);
    if committed > current { Err(VerifyError::VersionOrder { committed, current }) } else { Ok(()) }
}
