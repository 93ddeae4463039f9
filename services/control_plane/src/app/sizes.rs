//! VM sizes: Azure's DCasv5 and ECasv5 by their public tables, and two small ones of our own for development hosts.
//!
//! The `ads` twins of Azure's series are left out because they promise a temporary disk, which our hosts do not give.
//! What a size says about disks and networks is what *we* give (one OS disk, one interface), not what Azure gives.
//! Source: Azure compute documentation, "DCasv5 size series" and "ECasv5 and ECadsv5 size series".

use std::sync::LazyLock;

use serde_json::{Value, json};

/// A size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// For example `Standard_DC2as_v5`.
    pub name: String,
    /// Quota family.
    pub family: &'static str,
    /// Virtual CPUs, as measured at launch.
    pub vcpus: u32,
    /// Memory as the guest sees it.
    pub memory_mib: u64,
}

/// Family of the sizes that are ours.
const DEVELOPMENT_FAMILY: &str = "casemateDevelopmentFamily";

/// vCPUs, GiB of DCasv5, GiB of ECasv5 (0: there is none).
const ROWS: [(u32, u64, u64); 9] = [
    (2, 8, 16),
    (4, 16, 32),
    (8, 32, 64),
    (16, 64, 128),
    (20, 0, 160),
    (32, 128, 256),
    (48, 192, 384),
    (64, 256, 512),
    (96, 384, 672),
];

static SIZES: LazyLock<Vec<Size>> = LazyLock::new(|| {
    let mut sizes = vec![
        Size { name: "Casemate_Dev1".into(), family: DEVELOPMENT_FAMILY, vcpus: 1, memory_mib: 1024 },
        Size { name: "Casemate_Dev2".into(), family: DEVELOPMENT_FAMILY, vcpus: 2, memory_mib: 1024 },
    ];
    for (vcpus, dc, ec) in ROWS {
        for (series, family, gib) in [("DC", "standardDCASv5Family", dc), ("EC", "standardECASv5Family", ec)]
        {
            if gib > 0 {
                let name = format!("Standard_{series}{vcpus}as_v5");
                sizes.push(Size { name, family, vcpus, memory_mib: gib * 1024 });
            }
        }
    }
    sizes
});

/// All sizes.
pub fn all() -> &'static [Size] {
    &SIZES
}

/// A size by its name, without regard to case.
pub fn by_name(name: &str) -> Option<&'static Size> {
    SIZES.iter().find(|size| size.name.eq_ignore_ascii_case(name))
}

/// A row of `.../vmSizes`.
pub fn size_row(size: &Size) -> Value {
    json!({
        "name": size.name,
        "numberOfCores": size.vcpus,
        "osDiskSizeInMB": 1_047_552,
        "resourceDiskSizeInMB": 0,
        "memoryInMB": size.memory_mib,
        "maxDataDiskCount": 0,
    })
}

/// A row of `.../skus`. All capability values are text, as Azure has them.
pub fn sku_row(size: &Size, region: &str) -> Value {
    let gib = size.memory_mib / 1024;
    let capabilities: Vec<Value> = [
        ("vCPUs", size.vcpus.to_string()),
        ("vCPUsAvailable", size.vcpus.to_string()),
        ("MemoryGB", gib.to_string()),
        ("MaxDataDiskCount", "0".into()),
        ("MaxResourceVolumeMB", "0".into()),
        ("OSVhdSizeMB", "1047552".into()),
        ("MaxNetworkInterfaces", "1".into()),
        ("CpuArchitectureType", "x64".into()),
        ("HyperVGenerations", "V2".into()),
        ("ConfidentialComputingType", "SNP".into()),
        ("TrustedLaunchDisabled", "True".into()),
        ("EncryptionAtHostSupported", "False".into()),
        ("EphemeralOSDiskSupported", "False".into()),
        ("AcceleratedNetworkingEnabled", "False".into()),
        ("LowPriorityCapable", "False".into()),
    ]
    .into_iter()
    .map(|(name, value)| json!({"name": name, "value": value}))
    .collect();
    let short = size.name.strip_prefix("Standard_").unwrap_or(&size.name);
    json!({
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "size": short,
        "family": size.family,
        "locations": [region],
        "locationInfo": [{"location": region, "zones": [], "zoneDetails": []}],
        "capabilities": capabilities,
        "restrictions": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_tables_are_whole() {
        assert_eq!(all().iter().filter(|size| size.family == "standardDCASv5Family").count(), 8);
        assert_eq!(all().iter().filter(|size| size.family == "standardECASv5Family").count(), 9);
        assert_eq!(by_name("standard_ec96AS_v5").unwrap().memory_mib, 672 * 1024);
        assert_eq!(by_name("Standard_DC20as_v5"), None);
        assert_eq!(by_name("Standard_D2as_v5"), None);
    }
}
