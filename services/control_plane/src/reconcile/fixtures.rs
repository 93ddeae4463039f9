//! VMs, hosts and reports for tables of plans and judgements.

use std::collections::BTreeMap;

use internal_api::host::{Accelerator, HostCapacity, Platform, VmPhase, VmState};
use internal_api::launch::SecurityEncryption;
use serde_json::json;

use crate::app::vm::{VmDesired, VmFacts, WantedPower};
use crate::store::{HostRow, Resource, VmRow};

/// The time of all fixtures.
pub const NOW: i64 = 1_000_000;

/// A VM that was just accepted.
pub fn vm(name: &str, vcpus: u32, memory_mib: u64) -> VmRow {
    VmRow {
        resource: Resource {
            key: name.into(),
            id: name.into(),
            kind: "vm".into(),
            subscription: "s".into(),
            group_key: "g".into(),
            name: name.into(),
            location: "local".into(),
            incarnation: name.into(),
            desired: json!({}),
            generation: 1,
            reached: 0,
            deleted: false,
            created_at: NOW,
            changed_at: NOW,
        },
        desired: VmDesired {
            tags: serde_json::Map::new(),
            properties: json!({}),
            power: WantedPower::Running,
            restarts: 0,
            asked: 1,
        },
        vm_id: name.into(),
        facts: VmFacts {
            size: "Size".into(),
            vcpus,
            memory_mib,
            image_digest: String::new(),
            disk_bytes: 0,
            encryption: SecurityEncryption::DiskWithVMGuestState,
            secure_boot: true,
            disk_id: String::new(),
            disk_encryption_set: None,
            tenant_key: None,
            platform_key: false,
            recovery_key: None,
        },
        provisioning_data: String::new(),
        key_id: None,
        host: None,
        launch_document: None,
        trust_bundle: None,
        removed_revision: None,
        absent: false,
        state: None,
        evidence: None,
        evidence_at: None,
        milestones: BTreeMap::new(),
        waiting: String::new(),
        failure: None,
    }
}

/// A host that just reported.
pub fn host(name: &str, vcpus: u32, memory_mib: u64) -> HostRow {
    HostRow {
        name: name.into(),
        capacity: HostCapacity {
            region: "local".into(),
            platform: Platform::Development,
            accelerator: Accelerator::Tcg,
            vcpus,
            memory_mib,
            chip: None,
        },
        synced_at: NOW,
        revision: 1,
    }
}

/// A report.
pub fn state(generation: u64, phase: VmPhase) -> VmState {
    VmState {
        vm_id: "vm".into(),
        generation,
        restarts: 0,
        phase,
        detail: String::new(),
        failure: None,
        ssh_port: None,
        evidence: None,
        timings: BTreeMap::new(),
        key: None,
    }
}
