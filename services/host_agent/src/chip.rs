//! Which chip the host has, so that its certificate is fetched before the host's first VM needs it.
//!
//! Nothing is trusted for it: a host that names another chip makes the attestation service fetch a certificate too many.

use std::sync::Arc;

use internal_api::host::HostChip;
use snp::psp::PlatformStatus;
use snp::{CpuIdentity, Product};

use crate::host::Host;

/// Asks the secure processor until it has answered once. A TCB changes with a restart of the machine only.
pub async fn see(host: &Arc<Host>) {
    if host.chip.get().is_some() {
        return;
    }
    let Some(product) = product(host) else { return };
    let asked = Arc::clone(host);
    match tokio::task::spawn_blocking(move || asked.processor.status()).await {
        Ok(Ok(status)) => {
            let chip = chip(product, &status);
            tracing::info!(product = chip.product, chip = chip.chip_id, tcb = chip.tcb, "the host's chip");
            // Nobody else sets it.
            let _ = host.chip.set(chip);
        }
        Ok(Err(problem)) => tracing::debug!(problem, "the host's chip is not known yet"),
        Err(problem) => tracing::warn!(%problem, "asking the secure processor"),
    }
}

fn product(host: &Host) -> Option<Product> {
    // The configuration was checked when it was read.
    match host.config.product().ok()? {
        Some(product) => Some(product),
        None => this_machine(&std::fs::read_to_string("/proc/cpuinfo").ok()?)?.product(),
    }
}

/// Family, model and stepping of the first processor (proc(5)).
fn this_machine(cpuinfo: &str) -> Option<CpuIdentity> {
    let field = |name: &str| {
        let line =
            cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim())
    };
    if field("vendor_id")? != "AuthenticAMD" {
        return None;
    }
    let number = |name| field(name)?.parse().ok();
    Some(CpuIdentity {
        family: number("cpu family")?,
        model: number("model")?,
        stepping: number("stepping")?,
    })
}

fn chip(product: Product, status: &PlatformStatus) -> HostChip {
    HostChip {
        product: product.name().to_owned(),
        chip_id: hex::encode(&status.chip_id[..product.chip_id_len()]),
        tcb: status.reported_tcb.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use snp::TcbBytes;
    use snp::report::FirmwareVersion;

    use super::*;

    #[test]
    fn a_machine_is_named_by_its_family_and_model() {
        let text = |vendor: &str, family: u8, model: u8| {
            format!(
                "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\
                 model name\t: AMD EPYC\nstepping\t: 1\n\nprocessor\t: 1\n"
            )
        };
        let product = |text: String| this_machine(&text).and_then(CpuIdentity::product);
        assert_eq!(product(text("AuthenticAMD", 25, 1)), Some(Product::Milan));
        assert_eq!(product(text("AuthenticAMD", 25, 17)), Some(Product::Genoa));
        assert_eq!(product(text("AuthenticAMD", 26, 2)), Some(Product::Turin));
        assert_eq!(product(text("AuthenticAMD", 23, 49)), None);
        assert_eq!(product(text("GenuineIntel", 25, 1)), None);
        assert_eq!(product(String::new()), None);
    }

    #[test]
    fn a_chip_is_named_as_its_certificate_is() {
        let version = FirmwareVersion { major: 1, minor: 55, build: 40 };
        let status = PlatformStatus {
            version,
            guests: 0,
            max_guests: 1,
            reported_tcb: TcbBytes([4, 0, 0, 0, 0, 0, 24, 219]),
            chip_id: [0xAB; 64],
        };
        let named = chip(Product::Milan, &status);
        assert_eq!((named.product.as_str(), named.tcb.as_str()), ("Milan", "db18000000000004"));
        assert_eq!(named.chip_id, "ab".repeat(64));
        assert_eq!(chip(Product::Turin, &status).chip_id, "ab".repeat(8));
    }
}
