//! Rows of `vms`, always read together with their row of `resources`.

use std::collections::BTreeMap;

use internal_api::host::VmState;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::resources::{FailureRow, Resource, resource};
use super::{Store, StoreError, Tx, decode, encode, from_column, sql, to_column};
use crate::app::vm::{VmDesired, VmFacts};

/// When a VM came how far; milliseconds since 1970 by name: `accepted`, `key`, `placed`, `assigned`, `running`, `booted`.
pub type Milestones = BTreeMap<String, i64>;

/// A VM: wanted state, fixed facts, progress, what its host saw.
#[derive(Clone, Debug, PartialEq)]
pub struct VmRow {
    /// Its row of `resources`.
    pub resource: Resource,
    /// The wanted state, parsed.
    pub desired: VmDesired,
    /// Upper-case GUID.
    pub vm_id: String,
    /// What was fixed at creation.
    pub facts: VmFacts,
    /// The provisioning data's bytes.
    pub provisioning_data: String,
    /// URL of the key-encryption key, once there is one.
    pub key_id: Option<String>,
    /// Host, once placed.
    pub host: Option<String>,
    /// The launch document's bytes, once assigned.
    pub launch_document: Option<String>,
    /// The PEM bundle whose hash the launch document holds.
    pub trust_bundle: Option<String>,
    /// Revision of the host at which the VM left its assignments.
    pub removed_revision: Option<u64>,
    /// The host was seen without the VM after that revision, or need not be asked.
    pub absent: bool,
    /// The host's newest report, without the evidence.
    pub state: Option<VmState>,
    /// JSON text of the newest evidence bundle.
    pub evidence: Option<String>,
    /// When it came.
    pub evidence_at: Option<i64>,
    /// When what was done.
    pub milestones: Milestones,
    /// What the VM waits for, for people; empty when it does not wait for the control plane.
    pub waiting: String,
    /// Why the newest generation failed, if it did.
    pub failure: Option<FailureRow>,
}

const SELECT: &str = "SELECT r.*, v.vm_id, v.facts, v.provisioning_data, v.key_id, v.host, v.launch_document,
    v.trust_bundle, v.removed_revision, v.absent, v.state, v.evidence, v.evidence_at, v.milestones, v.waiting,
    f.failure, f.at AS failed_at
    FROM resources r JOIN vms v ON v.key = r.key
    LEFT JOIN failures f ON f.incarnation = r.incarnation AND f.generation = r.generation";

fn vm(row: &SqliteRow) -> Result<VmRow, StoreError> {
    let resource = resource(row)?;
    let desired = serde_json::from_value(resource.desired.clone())
        .map_err(|source| StoreError::Content { what: "a VM's wanted state", source })?;
    let state: Option<String> = row.get("state");
    let failure: Option<String> = row.get("failure");
    let failure = failure.map(|text| {
        let failure = decode("a failure", &text)?;
        Ok(FailureRow { generation: resource.generation, failure, at: row.get("failed_at") })
    });
    Ok(VmRow {
        desired,
        vm_id: row.get("vm_id"),
        facts: decode("a VM's facts", row.get("facts"))?,
        provisioning_data: row.get("provisioning_data"),
        key_id: row.get("key_id"),
        host: row.get("host"),
        launch_document: row.get("launch_document"),
        trust_bundle: row.get("trust_bundle"),
        removed_revision: row.get::<Option<i64>, _>("removed_revision").map(from_column),
        absent: row.get::<i64, _>("absent") != 0,
        state: state.map(|text| decode("a VM's state", &text)).transpose()?,
        evidence: row.get("evidence"),
        evidence_at: row.get("evidence_at"),
        milestones: decode("a VM's milestones", row.get("milestones"))?,
        waiting: row.get("waiting"),
        failure: failure.transpose()?,
        resource,
    })
}

async fn all(connection: &mut SqliteConnection) -> Result<Vec<VmRow>, StoreError> {
    let text = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY r.created_at, r.key"));
    let rows = sqlx::query(text).fetch_all(connection).await.map_err(sql("listing VMs"))?;
    rows.iter().map(vm).collect()
}

async fn by_key(connection: &mut SqliteConnection, key: &str) -> Result<Option<VmRow>, StoreError> {
    let text = sqlx::AssertSqlSafe(format!("{SELECT} WHERE r.key = ?"));
    let row = sqlx::query(text).bind(key).fetch_optional(connection).await.map_err(sql("reading a VM"))?;
    row.as_ref().map(vm).transpose()
}

async fn on_host(connection: &mut SqliteConnection, host: &str) -> Result<Vec<VmRow>, StoreError> {
    let text = sqlx::AssertSqlSafe(format!("{SELECT} WHERE v.host = ? ORDER BY r.created_at, r.key"));
    let rows =
        sqlx::query(text).bind(host).fetch_all(connection).await.map_err(sql("listing a host's VMs"))?;
    rows.iter().map(vm).collect()
}

impl Store {
    /// Every VM of the installation, oldest first.
    pub async fn vms(&self) -> Result<Vec<VmRow>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(sql("waiting for a connection"))?;
        all(&mut connection).await
    }

    /// The VM with that key.
    pub async fn vm(&self, key: &str) -> Result<Option<VmRow>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(sql("waiting for a connection"))?;
        by_key(&mut connection, key).await
    }

    /// The VMs of a host and the revision they stand for, as one snapshot.
    pub async fn assignments(&self, host: &str) -> Result<(u64, Vec<VmRow>), StoreError> {
        let mut snapshot = self.readers.begin().await.map_err(sql("beginning to read"))?;
        let row = sqlx::query("SELECT revision FROM hosts WHERE name = ?")
            .bind(host)
            .fetch_optional(&mut *snapshot)
            .await
            .map_err(sql("reading a host's revision"))?;
        let revision = row.map_or(0, |row| from_column(row.get("revision")));
        Ok((revision, on_host(&mut snapshot, host).await?))
    }
}

impl Tx {
    /// Every VM of the installation.
    pub async fn vms(&mut self) -> Result<Vec<VmRow>, StoreError> {
        all(self.connection()).await
    }

    /// The VM with that key.
    pub async fn vm(&mut self, key: &str) -> Result<Option<VmRow>, StoreError> {
        by_key(self.connection(), key).await
    }

    /// The VMs of a host, also those that it shall forget.
    pub async fn vms_on(&mut self, host: &str) -> Result<Vec<VmRow>, StoreError> {
        on_host(self.connection(), host).await
    }

    /// Writes the row that belongs to a new VM's row of `resources`.
    pub async fn insert_vm(
        &mut self,
        key: &str,
        vm_id: &str,
        facts: &VmFacts,
        provisioning_data: &str,
        now: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO vms (key, vm_id, facts, provisioning_data, milestones) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(key)
        .bind(vm_id)
        .bind(encode(facts))
        .bind(provisioning_data)
        .bind(encode(&Milestones::from([("accepted".to_owned(), now)])))
        .execute(self.connection())
        .await
        .map_err(sql("writing a VM"))?;
        Ok(())
    }

    /// Replaces the facts of a VM (its size changed).
    pub async fn set_facts(&mut self, key: &str, facts: &VmFacts) -> Result<(), StoreError> {
        self.set("UPDATE vms SET facts = ? WHERE key = ?", &encode(facts), key).await
    }

    /// Notes the VM's key-encryption key. The first one stays.
    pub async fn set_key(&mut self, key: &str, key_id: &str) -> Result<(), StoreError> {
        self.set("UPDATE vms SET key_id = coalesce(key_id, ?) WHERE key = ?", key_id, key).await
    }

    /// Places a VM that has no host yet.
    pub async fn set_host(&mut self, key: &str, host: &str) -> Result<(), StoreError> {
        self.set("UPDATE vms SET host = coalesce(host, ?) WHERE key = ?", host, key).await
    }

    /// Writes the launch document of a VM that has none yet.
    pub async fn set_launch(
        &mut self,
        key: &str,
        document: &str,
        trust_bundle: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE vms SET launch_document = ?, trust_bundle = ? WHERE key = ? AND launch_document IS NULL",
        )
        .bind(document)
        .bind(trust_bundle)
        .bind(key)
        .execute(self.connection())
        .await
        .map_err(sql("writing a launch document"))?;
        Ok(())
    }

    /// Gives a VM another key, with the launch document that names it. `false` if the document is not the one that was read.
    pub async fn replace_key(
        &mut self,
        vm: &VmRow,
        key_id: &str,
        document: &str,
    ) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "UPDATE vms SET key_id = ?, launch_document = ? WHERE key = ? AND launch_document = ?",
        )
        .bind(key_id)
        .bind(document)
        .bind(&vm.resource.key)
        .bind(vm.launch_document.as_deref())
        .execute(self.connection())
        .await
        .map_err(sql("writing another key"))?;
        Ok(result.rows_affected() == 1)
    }

    /// Forgets the key of a VM that was not assigned yet: it gets the one that is wanted now.
    pub async fn forget_key(&mut self, key: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE vms SET key_id = NULL WHERE key = ? AND launch_document IS NULL")
            .bind(key)
            .execute(self.connection())
            .await
            .map_err(sql("forgetting a key"))?;
        Ok(())
    }

    /// Notes what a VM waits for.
    pub async fn set_waiting(&mut self, key: &str, waiting: &str) -> Result<(), StoreError> {
        self.set("UPDATE vms SET waiting = ? WHERE key = ?", waiting, key).await
    }

    /// Notes when something happened to a VM for the first time.
    pub async fn set_milestones(&mut self, key: &str, milestones: &Milestones) -> Result<(), StoreError> {
        self.set("UPDATE vms SET milestones = ? WHERE key = ?", &encode(milestones), key).await
    }

    /// Notes the host's report; its evidence is kept elsewhere.
    pub async fn set_state(&mut self, key: &str, state: &VmState) -> Result<(), StoreError> {
        self.set("UPDATE vms SET state = ? WHERE key = ?", &encode(state), key).await
    }

    /// Notes new evidence.
    pub async fn set_evidence(&mut self, key: &str, evidence: &str, now: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE vms SET evidence = ?, evidence_at = ? WHERE key = ?")
            .bind(evidence)
            .bind(now)
            .bind(key)
            .execute(self.connection())
            .await
            .map_err(sql("writing evidence"))?;
        Ok(())
    }

    /// Notes the revision at which the host was told to remove the VM.
    pub async fn set_removed(&mut self, key: &str, revision: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE vms SET removed_revision = ? WHERE key = ?")
            .bind(to_column(revision))
            .bind(key)
            .execute(self.connection())
            .await
            .map_err(sql("noting a removal"))?;
        Ok(())
    }

    /// Notes that no host has the VM any more.
    pub async fn set_absent(&mut self, key: &str) -> Result<(), StoreError> {
        self.set("UPDATE vms SET absent = 1, waiting = ? WHERE key = ?", "", key).await
    }

    async fn set(&mut self, statement: &'static str, value: &str, key: &str) -> Result<(), StoreError> {
        sqlx::query(statement)
            .bind(value)
            .bind(key)
            .execute(self.connection())
            .await
            .map_err(sql("noting a VM's progress"))?;
        Ok(())
    }
}
