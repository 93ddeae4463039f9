//! Making, changing, deleting, recovering and purging named vaults: what the control plane asks for.
//!
//! Each change is in the default vault's decision log in the same transaction; who may use a vault's keys is in that vault's
//! own log too, before it holds. All of them can be asked for any number of times, and none touches the vault of another resource.

use std::io;

use aws_lc_rs::rand;
use public_api::decision_log::Decision;
use public_api::vaults::{VaultAccess, VaultDeletion, VaultResource, VaultSettings, VaultView};
use serde_json::{Value, json};
use token_verifier::{Refusal, refusal};

use super::{Named, Vaults, host, rules, settings};
use crate::app::AppError;
use crate::store::vaults::{self as registry, VaultRecord};
use crate::store::{StoreError, decisions};
use crate::token::caller::Caller;

const DAY: i64 = 86_400;

/// What a transaction does to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Insert,
    Update,
    Remove,
}

impl Vaults {
    /// Makes a vault, or changes what may change of it; says whether it is new.
    pub async fn put(
        &self,
        caller: &Caller,
        name: &str,
        wanted: VaultSettings,
    ) -> Result<(VaultView, bool), AppError> {
        settings::check(&wanted)?;
        self.check_name(name, &wanted)?;
        let _changes = self.changes.lock().await;
        match self.record(name).await? {
            None => self.make(caller, name, wanted).await.map(|view| (view, true)),
            Some(record) if record.deletion.is_some() => Err(deleted(name)),
            Some(record) if record.settings.resource != wanted.resource => Err(taken(name)),
            Some(record) if record.settings == wanted => Ok((self.view(&record), false)),
            Some(record) => self.change(caller, record, wanted).await.map(|view| (view, false)),
        }
    }

    async fn make(&self, caller: &Caller, name: &str, wanted: VaultSettings) -> Result<VaultView, AppError> {
        let record = VaultRecord {
            name: name.to_owned(),
            id: new_id(),
            settings: wanted,
            deletion: None,
            purging: false,
        };
        self.write(Some(caller), "createVault", &record, Write::Insert).await?;
        let opened = self.load(&record).await?;
        note_access(&opened.state, caller, &record.settings).await?;
        Ok(self.view(&record))
    }

    async fn change(
        &self,
        caller: &Caller,
        mut record: VaultRecord,
        wanted: VaultSettings,
    ) -> Result<VaultView, AppError> {
        settings::check_change(&record.settings, &wanted)?;
        let opened = match self.opened(&record.name, record.settings.kind) {
            Some(opened) => opened,
            None => self.load(&record).await?,
        };
        note_access(&opened.state, caller, &wanted).await?;
        record.settings = wanted;
        self.write(Some(caller), "updateVault", &record, Write::Update).await?;
        opened.state.set_rules(rules(&record.settings)).await?;
        Ok(self.view(&record))
    }

    /// A live vault.
    pub async fn live_view(&self, name: &str) -> Result<VaultView, AppError> {
        let record = self.record(name).await?.filter(|record| record.deletion.is_none());
        record.map(|record| self.view(&record)).ok_or_else(|| AppError::VaultNotFound(name.to_owned()))
    }

    /// A deleted vault.
    pub async fn deleted_view(&self, name: &str) -> Result<VaultView, AppError> {
        self.deleted_record(name).await.map(|record| self.view(&record))
    }

    /// All live vaults, or all deleted ones.
    pub async fn views(&self, deleted: bool) -> Result<Vec<VaultView>, AppError> {
        let all = registry::all(self.default.state.store.readers()).await?;
        let wanted = |record: &&VaultRecord| record.deletion.is_some() == deleted && !record.purging;
        Ok(all.iter().filter(wanted).map(|record| self.view(record)).collect())
    }

    /// Deletes the vault of this life of its name. It answers nobody from now on, and can be recovered.
    pub async fn delete(
        &self,
        caller: &Caller,
        name: &str,
        incarnation: &str,
    ) -> Result<VaultView, AppError> {
        let _changes = self.changes.lock().await;
        let record = self.record(name).await?.filter(|record| record.deletion.is_none());
        let mut record = record.ok_or_else(|| AppError::VaultNotFound(name.to_owned()))?;
        if record.settings.resource.incarnation != incarnation {
            return Err(taken(name));
        }
        let deleted_date = self.default.state.now();
        let days = i64::from(record.settings.soft_delete_retention_in_days);
        let scheduled_purge_date = deleted_date + days * DAY;
        record.deletion = Some(VaultDeletion { deleted_date, scheduled_purge_date });
        self.write(Some(caller), "deleteVault", &record, Write::Update).await?;
        self.close(name);
        Ok(self.view(&record))
    }

    /// A deleted vault is live again, for a new life of the resource that it belonged to.
    pub async fn recover(
        &self,
        caller: &Caller,
        name: &str,
        resource: VaultResource,
    ) -> Result<VaultView, AppError> {
        settings::resource(&resource)?;
        let _changes = self.changes.lock().await;
        let record = self.record(name).await?.filter(|record| !record.purging);
        let mut record = record.ok_or_else(|| AppError::VaultNotFound(name.to_owned()))?;
        if record.deletion.is_none() && record.settings.resource == resource {
            return Ok(self.view(&record));
        }
        let same = record.settings.resource.id.eq_ignore_ascii_case(&resource.id);
        if record.deletion.is_none() || !same {
            return Err(taken(name));
        }
        record.deletion = None;
        record.settings.resource = resource;
        self.write(Some(caller), "recoverVault", &record, Write::Update).await?;
        Ok(self.view(&record))
    }

    /// Destroys a deleted vault with all its keys.
    pub async fn purge(&self, caller: &Caller, name: &str, incarnation: &str) -> Result<(), AppError> {
        let _changes = self.changes.lock().await;
        let record = self.deleted_record(name).await?;
        if record.settings.resource.incarnation != incarnation {
            return Err(taken(name));
        }
        if record.settings.purge_protection {
            let detail = json!({"caller": caller.id(), "operation": "purgeVault"});
            let subject = format!("vaults/{name}");
            return Err(self.default.state.refuse(&subject, purge_protected(), detail).await);
        }
        self.destroy(Some(caller), record).await
    }

    /// Destroys a deleted vault: first nothing brings it back, then its files go, then its name is free. The caller holds
    /// `changes`.
    pub(super) async fn destroy(
        &self,
        caller: Option<&Caller>,
        mut record: VaultRecord,
    ) -> Result<(), AppError> {
        if !record.purging {
            record.purging = true;
            self.write(caller, "purgeVault", &record, Write::Update).await?;
        }
        self.close(&record.name);
        self.default.state.bury_vault(&record.id).await?;
        let folder = self.folder(&record);
        let removed = match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        removed.map_err(|source| crate::app::StartError::DataDir { path: folder, source })?;
        self.write(caller, "removeVault", &record, Write::Remove).await
    }

    /// Writes a record and the log entry of it, in one transaction.
    async fn write(
        &self,
        caller: Option<&Caller>,
        operation: &str,
        record: &VaultRecord,
        write: Write,
    ) -> Result<(), AppError> {
        let state = &self.default.state;
        let detail = json!({
            "operation": operation,
            "caller": caller.map(Caller::id),
            "vaultId": record.id,
            "resource": record.settings.resource,
            "tenantId": record.settings.tenant_id,
            "purgeProtection": record.settings.purge_protection,
        });
        let event = state.event(Decision::PolicyChanged, &format!("vaults/{}", record.name), None, detail);
        let record = record.clone();
        let written = state.store.write(move |connection| {
            Box::pin(async move {
                match write {
                    Write::Insert => registry::insert(connection, &record).await?,
                    Write::Update => registry::update(connection, &record).await?,
                    Write::Remove => registry::remove(connection, &record.id).await?,
                }
                decisions::append(connection, event).await
            })
        });
        Ok(written.await.map(drop)?)
    }

    async fn record(&self, name: &str) -> Result<Option<VaultRecord>, StoreError> {
        registry::find(self.default.state.store.readers(), name).await
    }

    async fn deleted_record(&self, name: &str) -> Result<VaultRecord, AppError> {
        let found = self.record(name).await?;
        let found = found.filter(|record| record.deletion.is_some() && !record.purging);
        found.ok_or_else(|| AppError::VaultNotFound(name.to_owned()))
    }

    fn check_name(&self, name: &str, settings: &VaultSettings) -> Result<(), AppError> {
        if !host::is_name(name) {
            let text = "expected 3 to 24 lower-case letters, digits and single hyphens, a letter first and no hyphen last";
            return Err(AppError::bad("name", text));
        }
        let Some(Named { hosts, .. }) = self.named.as_ref() else {
            return Err(AppError::VaultNotFound(name.to_owned()));
        };
        if hosts.host(settings.kind, name).is_none() {
            return Err(AppError::bad(
                "kind",
                "managed HSMs are not served: [vaults] managed_hsm_domain is not set",
            ));
        }
        if hosts.is_reserved(settings.kind, name) {
            return Err(taken(name));
        }
        Ok(())
    }

    fn view(&self, record: &VaultRecord) -> VaultView {
        let hosts = self.named.as_ref().map(|named| &named.hosts);
        let host = hosts.and_then(|hosts| Some(hosts.url(&hosts.host(record.settings.kind, &record.name)?)));
        VaultView {
            name: record.name.clone(),
            url: host.unwrap_or_default(),
            settings: record.settings.clone(),
            deletion: record.deletion,
        }
    }
}

/// Writes who may do what from now on into the vault's own log.
async fn note_access(
    state: &crate::app::AppState,
    caller: &Caller,
    settings: &VaultSettings,
) -> Result<(), AppError> {
    let access: Value = match &settings.access {
        VaultAccess::RoleAssignments { assignments } => json!({"roleAssignments": assignments}),
        VaultAccess::AccessPolicies { policies } => json!({"accessPolicies": policies}),
    };
    let detail = json!({"operation": "setAccess", "caller": caller.id(), "access": access});
    let event = state.event(Decision::PolicyChanged, "access", None, detail);
    let written = state
        .store
        .write(move |connection| Box::pin(async move { decisions::append(connection, event).await }));
    Ok(written.await.map(drop)?)
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the system has random numbers");
    hex::encode(bytes)
}

fn taken(name: &str) -> AppError {
    let message = format!("The vault name {name} is already in use.");
    AppError::VaultConflict { code: "VaultAlreadyExists", message }
}

fn deleted(name: &str) -> AppError {
    let message =
        format!("A vault named {name} exists in deleted state; recover it, or purge it to take the name.");
    AppError::VaultConflict { code: "VaultDeleted", message }
}

fn purge_protected() -> Refusal {
    let rule = "purge protection: nobody destroys a deleted vault before its time";
    let remedy = "wait for the scheduled purge date, or recover the vault";
    refusal("PurgeProtected", "purgeProtection", "false", "true", rule, remedy)
}
