//! `.../providers`: which namespaces there are, with their types and versions. All of them are always registered.

use axum::response::Response;
use serde_json::{Value, json};

use super::versions::{self, Api};
use super::{App, Call, reply};
use crate::app::refusal::{Kind, Refusal};

/// Namespace, the versions of its routes, its types.
const NAMESPACES: &[(&str, Api, &[&str])] = &[
    (
        "Microsoft.Attestation",
        Api::Attestation,
        &["attestationProviders", "defaultProviders", "locations", "locations/defaultProvider", "operations"],
    ),
    (
        "Microsoft.Compute",
        Api::Compute,
        &[
            "virtualMachines",
            "disks",
            "diskEncryptionSets",
            "images",
            "skus",
            "locations",
            "locations/publishers",
            "locations/usages",
            "locations/vmSizes",
            "locations/operations",
        ],
    ),
    ("Microsoft.Authorization", Api::Authorization, &["roleAssignments", "roleDefinitions"]),
    (
        "Microsoft.KeyVault",
        Api::KeyVault,
        &[
            "vaults",
            "vaults/accessPolicies",
            "managedHSMs",
            "deletedVaults",
            "checkNameAvailability",
            "locations",
            "locations/deletedVaults",
        ],
    ),
    (
        "Microsoft.Network",
        Api::Network,
        &[
            "virtualNetworks",
            "virtualNetworks/subnets",
            "networkInterfaces",
            "publicIPAddresses",
            "networkSecurityGroups",
        ],
    ),
    (
        "Microsoft.Resources",
        Api::Core,
        &[
            "subscriptions",
            "subscriptions/locations",
            "subscriptions/resourceGroups",
            "resources",
            "providers",
            "tenants",
        ],
    ),
];

/// `GET .../providers`.
pub async fn list(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::list(NAMESPACES.iter().map(|namespace| view(&app, &call, namespace)).collect()))
}

/// `GET .../providers/{namespace}`, and `POST .../providers/{namespace}/register`, which changes nothing.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    let given = call.parameter("namespace");
    let found = NAMESPACES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(given));
    let found = found.ok_or_else(|| {
        let message = format!("The resource namespace '{given}' is invalid.");
        Refusal::new(Kind::NotFound, "InvalidResourceNamespace", message)
    })?;
    Ok(reply::ok(&view(&app, &call, found)))
}

fn view(app: &App, call: &Call, (namespace, api, types): &(&str, Api, &[&str])) -> Value {
    let shown = |name: &&str| {
        json!({
            "resourceType": name,
            "locations": [app.config.region],
            "apiVersions": versions::newest_first(*api),
            "capabilities": "None",
        })
    };
    json!({
        "id": format!("/subscriptions/{}/providers/{namespace}", call.parameter("sub")),
        "namespace": namespace,
        "registrationPolicy": "RegistrationFree",
        "registrationState": "Registered",
        "resourceTypes": types.iter().map(shown).collect::<Vec<_>>(),
    })
}
