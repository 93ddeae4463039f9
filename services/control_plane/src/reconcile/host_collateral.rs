//! When a host names its chip, the attestation service fetches the chip's certificate: before the first VM needs it.
//!
//! Nothing waits for it. What was asked for is remembered in memory only: after a restart it is asked for again, and the
//! service has it then.

use std::collections::HashMap;

use internal_api::host::HostChip;

use super::attestation_service::Asked;
use super::{PassError, Reconcilers};
use crate::app::now_seconds;
use crate::store::HostRow;

/// The hosts whose chips are to be asked for now.
fn plan<'a>(
    hosts: &'a [HostRow],
    asked: &HashMap<HostChip, Asked>,
    now: i64,
) -> Vec<(&'a str, &'a HostChip)> {
    let due = |chip: &HostChip| match asked.get(chip) {
        None => true,
        Some(Asked::Fetched) => false,
        Some(Asked::Again(time)) => *time <= now,
    };
    let named = hosts.iter().filter_map(|host| Some((host.name.as_str(), host.capacity.chip.as_ref()?)));
    named.filter(|(_, chip)| due(chip)).collect()
}

/// Starts what is due. A server that does not answer keeps nobody waiting.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    let hosts = reconcilers.app.store.hosts().await?;
    let now = now_seconds();
    for (host, chip) in plan(&hosts, &reconcilers.attestation.asked(), now) {
        let (service, host, chip) = (reconcilers.attestation.clone(), host.to_owned(), chip.clone());
        service.note_asking(&chip, now);
        tokio::spawn(async move { service.prefetch(&host, &chip).await });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::host;

    #[test]
    fn a_chip_is_asked_for_once_it_is_named_and_again_after_a_pause() {
        let chip = HostChip { product: "Milan".into(), chip_id: "ab".repeat(64), tcb: "0".repeat(16) };
        let mut named = host("host-2", 4, 4096);
        named.capacity.chip = Some(chip.clone());
        let hosts = [host("host-1", 4, 4096), named];
        let at = |asked: &[Asked], now| {
            let asked = asked.iter().map(|asked| (chip.clone(), *asked)).collect();
            plan(&hosts, &asked, now).into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(at(&[], 0), ["host-2"]);
        assert_eq!(at(&[Asked::Again(60)], 59), [""; 0]);
        assert_eq!(at(&[Asked::Again(60)], 60), ["host-2"]);
        assert_eq!(at(&[Asked::Fetched], i64::MAX), [""; 0]);
    }
}
