//! Vaults, managed HSMs, and the deleted ones of both.

use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use public_api::vaults::{VaultKind, VaultView};
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::body::{self, key_vault as shapes};
use crate::app::names::{self, MANAGED_HSM, VAULT};
use crate::app::operations::failure_refusal;
use crate::app::refusal::{Kind, Refusal};
use crate::app::vaults::{self, Family, MANAGED_HSMS, PolicyChange, VAULTS};
use crate::reconcile::vault_service::{VaultService, VaultTrouble};
use crate::store::Resource;

macro_rules! family {
    ($put:ident, $get:ident, $patch:ident, $delete:ident, $list_group:ident, $list_all:ident, $family:ident, $parameter:literal) => {
        #[doc = "`PUT`."]
        pub async fn $put(app: App, call: Call) -> Result<Response, Refusal> {
            let request = (&call.body[..], call.version.as_str());
            let (view, created) = vaults::put(&app, &$family, &call.place($parameter), request).await?;
            // Clients of managed HSMs poll for an end unless they are told 200.
            Ok(reply::written(&view, created && $family.kind == VaultKind::Vault))
        }

        #[doc = "`GET`."]
        pub async fn $get(app: App, call: Call) -> Result<Response, Refusal> {
            Ok(reply::ok(&vaults::get(&app, &$family, &call.place($parameter)).await?))
        }

        #[doc = "`PATCH`."]
        pub async fn $patch(app: App, call: Call) -> Result<Response, Refusal> {
            Ok(reply::ok(&vaults::patch(&app, &$family, &call.place($parameter), &call.body).await?))
        }

        #[doc = "`DELETE`."]
        pub async fn $delete(app: App, call: Call) -> Result<Response, Refusal> {
            deleted(&app, &$family, &call, $parameter).await
        }

        #[doc = "List of a group."]
        pub async fn $list_group(app: App, call: Call) -> Result<Response, Refusal> {
            in_group(&app, &$family, &call).await
        }

        #[doc = "List of a subscription."]
        pub async fn $list_all(app: App, call: Call) -> Result<Response, Refusal> {
            let subscription = call.parameter("sub").to_ascii_lowercase();
            shown(&app, app.store.resources_of($family.key, &subscription).await?).await
        }
    };
}

family!(put, get, patch, delete, list_group, list_all, VAULTS, "vault");
family!(put_hsm, get_hsm, patch_hsm, delete_hsm, list_hsms_of_group, list_hsms, MANAGED_HSMS, "hsm");

/// 200 if it is gone, 202 if that goes on, 204 if it was not there.
async fn deleted(app: &App, family: &Family, call: &Call, parameter: &str) -> Result<Response, Refusal> {
    Ok(reply::empty(match vaults::delete(app, family, &call.place(parameter)).await? {
        Some(true) => StatusCode::OK,
        Some(false) => StatusCode::ACCEPTED,
        None => StatusCode::NO_CONTENT,
    }))
}

async fn in_group(app: &App, family: &Family, call: &Call) -> Result<Response, Refusal> {
    let key = names::group_key(call.parameter("sub"), call.parameter("group"));
    if app.store.resource(&key).await?.is_none() {
        return Err(Refusal::no_group(call.parameter("group")));
    }
    let found = app.store.resources_in(&key).await?;
    shown(app, found.into_iter().filter(|resource| resource.kind == family.key).collect()).await
}

async fn shown(app: &App, found: Vec<Resource>) -> Result<Response, Refusal> {
    let mut list: Vec<Value> = Vec::with_capacity(found.len());
    for vault in &found {
        list.push(vaults::shown(app, vault).await?);
    }
    Ok(reply::list(list))
}

/// `PUT .../accessPolicies/{operation}`.
pub async fn change_policies(app: App, call: Call) -> Result<Response, Refusal> {
    let given = call.parameter("operation");
    let words =
        [("add", PolicyChange::Add), ("replace", PolicyChange::Replace), ("remove", PolicyChange::Remove)];
    let change = words.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(given));
    let (_, change) = change
        .ok_or_else(|| Refusal::bad(format!("'{given}' is no operation; use add, replace or remove.")))?;
    Ok(reply::ok(&vaults::change_policies(&app, &call.place("vault"), change, &call.body).await?))
}

/// `POST .../checkNameAvailability`.
pub async fn check_name(app: App, call: Call) -> Result<Response, Refusal> {
    let shaped = body::parse(&call.body, &shapes::CHECK_NAME)?;
    let name = shaped["name"].as_str().unwrap_or_default();
    let family = if shaped["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case(MANAGED_HSM)) {
        &MANAGED_HSMS
    } else {
        &VAULTS
    };
    let unavailable = |reason: &str, message: &str| {
        reply::ok(&json!({"nameAvailable": false, "reason": reason, "message": message}))
    };
    if let Err(refusal) = vaults::check_name(family, name) {
        return Ok(unavailable("AccountNameInvalid", &refusal.message));
    }
    let taken = {
        let mut tx = app.store.begin().await?;
        vaults::is_taken(&mut tx, name).await?
    };
    let gone = service(&app)?.deleted().await.map_err(unreachable)?;
    if taken || gone.iter().any(|view| view.name.eq_ignore_ascii_case(name)) {
        return Ok(unavailable("AlreadyExists", "The name is already in use, perhaps by a deleted vault."));
    }
    Ok(reply::ok(&json!({"nameAvailable": true})))
}

/// `GET .../deletedVaults`.
pub async fn list_deleted(app: App, call: Call) -> Result<Response, Refusal> {
    deleted_of(&app, &call, VaultKind::Vault).await
}

/// `GET .../deletedManagedHSMs`.
pub async fn list_deleted_hsms(app: App, call: Call) -> Result<Response, Refusal> {
    deleted_of(&app, &call, VaultKind::ManagedHsm).await
}

async fn deleted_of(app: &App, call: &Call, kind: VaultKind) -> Result<Response, Refusal> {
    let found = own_deleted(app, call, kind).await?;
    Ok(reply::list(found.iter().map(|view| deleted_view(app, call, view)).collect()))
}

/// `GET .../locations/{location}/deletedVaults/{name}`.
pub async fn get_deleted(app: App, call: Call) -> Result<Response, Refusal> {
    let found = one_deleted(&app, &call, VaultKind::Vault).await?;
    Ok(reply::ok(&deleted_view(&app, &call, &found)))
}

/// `GET .../locations/{location}/deletedManagedHSMs/{name}`.
pub async fn get_deleted_hsm(app: App, call: Call) -> Result<Response, Refusal> {
    let found = one_deleted(&app, &call, VaultKind::ManagedHsm).await?;
    Ok(reply::ok(&deleted_view(&app, &call, &found)))
}

/// `POST .../deletedVaults/{name}/purge`.
pub async fn purge(app: App, call: Call) -> Result<Response, Refusal> {
    purged(&app, &call, VaultKind::Vault).await
}

/// `POST .../deletedManagedHSMs/{name}/purge`.
pub async fn purge_hsm(app: App, call: Call) -> Result<Response, Refusal> {
    purged(&app, &call, VaultKind::ManagedHsm).await
}

async fn purged(app: &App, call: &Call, kind: VaultKind) -> Result<Response, Refusal> {
    let found = one_deleted(app, call, kind).await?;
    service(app)?.purge(&found).await.map_err(unreachable)?;
    Ok(reply::empty(StatusCode::OK))
}

/// The deleted vaults of the path's subscription; others' do not exist for it.
async fn own_deleted(app: &App, call: &Call, kind: VaultKind) -> Result<Vec<VaultView>, Refusal> {
    let keys = &app.config.keys;
    if keys.vault_domain.is_none() && keys.managed_hsm_domain.is_none() {
        return Ok(Vec::new());
    }
    let own = format!("/subscriptions/{}/", call.parameter("sub")).to_ascii_lowercase();
    let mut found = service(app)?.deleted().await.map_err(unreachable)?;
    let is_own = |view: &VaultView| view.settings.resource.id.to_ascii_lowercase().starts_with(&own);
    found.retain(|view| view.settings.kind == kind && is_own(view));
    Ok(found)
}

async fn one_deleted(app: &App, call: &Call, kind: VaultKind) -> Result<VaultView, Refusal> {
    names::check_location(VAULT, Some(call.parameter("location")), &app.config.region)?;
    let name = call.parameter("name");
    let found =
        own_deleted(app, call, kind).await?.into_iter().find(|view| view.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let message = format!("The vault '{name}' is not in deleted state in the subscription.");
        Refusal::new(Kind::NotFound, "DeletedVaultNotFound", message)
    })
}

fn deleted_view(app: &App, call: &Call, view: &VaultView) -> Value {
    let family = if view.settings.kind == VaultKind::ManagedHsm { "ManagedHSMs" } else { "Vaults" };
    let (region, id_of) = (&app.config.region, if family == "Vaults" { "vaultId" } else { "mhsmId" });
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string();
    let deletion = view.deletion.as_ref();
    let mut properties = json!({
        "location": region,
        "tags": {},
        "deletionDate": deletion.map(|deletion| time(deletion.deleted_date)),
        "scheduledPurgeDate": deletion.map(|deletion| time(deletion.scheduled_purge_date)),
        "purgeProtectionEnabled": view.settings.purge_protection,
    });
    properties[id_of] = json!(view.settings.resource.id);
    let place =
        format!("/subscriptions/{}/providers/Microsoft.KeyVault/locations/{region}", call.parameter("sub"));
    json!({
        "id": format!("{place}/deleted{family}/{}", view.name),
        "name": view.name,
        "type": format!("Microsoft.KeyVault/deleted{family}"),
        "properties": properties,
    })
}

fn service(app: &App) -> Result<VaultService, Refusal> {
    VaultService::new(app).map_err(|error| unreachable(VaultTrouble::Transient(error.to_string())))
}

fn unreachable(trouble: VaultTrouble) -> Refusal {
    match trouble {
        VaultTrouble::Permanent(failure) => failure_refusal(&failure),
        VaultTrouble::Transient(text) => {
            tracing::warn!("the key service did not answer: {text}");
            Refusal::new(
                Kind::Internal,
                "KeyServiceUnavailable",
                "The key service does not answer now; try again.",
            )
        }
    }
}
