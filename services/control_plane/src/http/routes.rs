//! Every public route: method, path, who may, which versions, which handler. There is no other way in.

use std::future::Future;
use std::pin::Pin;

use axum::http::Method;
use axum::response::Response;

use super::path::Parameters;
use super::versions::Api;
use super::{
    App, Call, attestation_providers as attestation, authorization as roles, boot_log, disks,
    encryption_sets, groups, health, image_names, images, inventory, login, metadata, network, operations,
    path, resource_providers, sizes, subscriptions, vaults, virtual_machines as vms,
};
use crate::app::refusal::{Kind, Refusal};
use crate::config::Access;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Anybody.
    Open,
    /// Any client with a valid token.
    SignedIn,
    /// Clients with that access to the subscription in the path.
    Subscription(Access),
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send>>;

/// A route.
pub struct Route {
    /// Method.
    pub method: &'static str,
    /// Path with `{names}`.
    pub path: &'static str,
    /// Who may.
    pub guard: Guard,
    /// Which versions.
    pub api: Api,
    /// Handler.
    pub handler: fn(App, Call) -> Answer,
}

/// Why no route fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No such path.
    Path,
    /// The path, but not with this method.
    Method,
}

impl Miss {
    /// As an error.
    pub fn refusal(self, method: &Method, path: &str) -> Refusal {
        match self {
            Self::Path => {
                let message =
                    format!("The resource type or path '{path}' could not be found in this installation.");
                Refusal::new(Kind::NotFound, "InvalidResourceType", message)
            }
            Self::Method => {
                let message = format!("The resource '{path}' does not support http method '{method}'.");
                Refusal::new(Kind::MethodNotAllowed, "MethodNotAllowed", message)
            }
        }
    }
}

/// The route of a request and the values in its path.
pub fn find(method: &Method, given: &str) -> Result<(&'static Route, Parameters), Miss> {
    let mut miss = Miss::Path;
    for route in ROUTES {
        if let Some(parameters) = path::matches(route.path, given) {
            if route.method == method.as_str() {
                return Ok((route, parameters));
            }
            miss = Miss::Method;
        }
    }
    Err(miss)
}

macro_rules! routes {
    ($($method:ident $path:expr, $guard:ident, $api:ident => $handler:path;)*) => {
        &[$(Route {
            method: stringify!($method),
            path: $path,
            guard: guard::$guard,
            api: Api::$api,
            handler: |app, call| Box::pin($handler(app, call)),
        }),*]
    };
}

#[allow(non_upper_case_globals, reason = "words of the table below")]
mod guard {
    use super::{Access, Guard};
    pub const open: Guard = Guard::Open;
    pub const signed: Guard = Guard::SignedIn;
    pub const read: Guard = Guard::Subscription(Access::Read);
    pub const write: Guard = Guard::Subscription(Access::Write);
}

macro_rules! sub {
    ($($tail:literal)?) => {
        concat!("/subscriptions/{sub}", $($tail)?)
    };
}
macro_rules! group {
    ($($tail:literal)?) => {
        concat!("/subscriptions/{sub}/resourceGroups/{group}", $($tail)?)
    };
}
macro_rules! compute {
    ($tail:literal) => {
        concat!("/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.Compute", $tail)
    };
}
macro_rules! all_compute {
    ($tail:literal) => {
        concat!("/subscriptions/{sub}/providers/Microsoft.Compute", $tail)
    };
}
macro_rules! publishers {
    ($($tail:literal)?) => {
        concat!("/subscriptions/{sub}/providers/Microsoft.Compute/locations/{location}/publishers", $($tail)?)
    };
}
macro_rules! attestation {
    ($tail:literal) => {
        concat!("/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.Attestation", $tail)
    };
}
macro_rules! all_attestation {
    ($tail:literal) => {
        concat!("/subscriptions/{sub}/providers/Microsoft.Attestation", $tail)
    };
}
macro_rules! key_vault {
    ($tail:literal) => {
        concat!("/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.KeyVault", $tail)
    };
}
macro_rules! all_key_vault {
    ($tail:literal) => {
        concat!("/subscriptions/{sub}/providers/Microsoft.KeyVault", $tail)
    };
}
macro_rules! network {
    ($tail:literal) => {
        concat!("/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.Network", $tail)
    };
}
macro_rules! all_network {
    ($tail:literal) => {
        concat!("/subscriptions/{sub}/providers/Microsoft.Network", $tail)
    };
}

/// All routes.
#[rustfmt::skip]
pub static ROUTES: &[Route] = routes! {
    GET "/health", open, None => health::get;
    GET "/metadata/endpoints", open, None => metadata::endpoints;
    GET "/common/discovery/keys", open, None => login::keys;
    GET "/{tenant}/v2.0/.well-known/openid-configuration", open, None => login::discovery;
    GET "/{tenant}/.well-known/openid-configuration", open, None => login::discovery;
    POST "/{tenant}/oauth2/v2.0/token", open, None => login::token;
    POST "/{tenant}/oauth2/token", open, None => login::token;
    GET "/serial-logs/{vm}", open, None => boot_log::get;
    GET "/tenants", signed, Core => subscriptions::tenants;
    GET "/subscriptions", signed, Core => subscriptions::list;
    GET sub!(), read, Core => subscriptions::get;
    GET sub!("/locations"), read, Core => subscriptions::locations;
    GET sub!("/resourceGroups"), read, Core => groups::list;
    GET sub!("/providers"), read, Core => resource_providers::list;
    GET sub!("/providers/{namespace}"), read, Core => resource_providers::get;
    POST sub!("/providers/{namespace}/register"), write, Core => resource_providers::get;
    GET sub!("/resources"), read, Core => inventory::list_all;
    GET group!("/resources"), read, Core => inventory::list_group;
    PUT group!(), write, Core => groups::put;
    GET group!(), read, Core => groups::get;
    HEAD group!(), read, Core => groups::head;
    DELETE group!(), write, Core => groups::delete;
    PUT compute!("/virtualMachines/{vm}"), write, Compute => vms::put;
    GET compute!("/virtualMachines/{vm}"), read, Compute => vms::get;
    PATCH compute!("/virtualMachines/{vm}"), write, Compute => vms::patch;
    DELETE compute!("/virtualMachines/{vm}"), write, Compute => vms::delete;
    GET compute!("/virtualMachines"), read, Compute => vms::list_group;
    GET all_compute!("/virtualMachines"), read, Compute => vms::list_all;
    GET all_compute!("/locations/{location}/virtualMachines"), read, Compute => vms::list_all;
    GET compute!("/virtualMachines/{vm}/instanceView"), read, Compute => vms::instance_view;
    GET compute!("/virtualMachines/{vm}/vmSizes"), read, Compute => sizes::vm_sizes;
    GET compute!("/virtualMachines/{vm}/attestationEvidence"), read, Compute => vms::evidence;
    POST compute!("/virtualMachines/{vm}/start"), write, Compute => vms::start;
    POST compute!("/virtualMachines/{vm}/restart"), write, Compute => vms::restart;
    POST compute!("/virtualMachines/{vm}/powerOff"), write, Compute => vms::power_off;
    POST compute!("/virtualMachines/{vm}/deallocate"), write, Compute => vms::deallocate;
    POST compute!("/virtualMachines/{vm}/retrieveBootDiagnosticsData"), write, Compute => boot_log::retrieve;
    PUT compute!("/disks/{disk}"), write, Compute => disks::put;
    GET compute!("/disks/{disk}"), read, Compute => disks::get;
    PATCH compute!("/disks/{disk}"), write, Compute => disks::patch;
    DELETE compute!("/disks/{disk}"), write, Compute => disks::delete;
    GET compute!("/disks"), read, Compute => disks::list_group;
    GET all_compute!("/disks"), read, Compute => disks::list_all;
    PUT compute!("/diskEncryptionSets/{set}"), write, Compute => encryption_sets::put;
    GET compute!("/diskEncryptionSets/{set}"), read, Compute => encryption_sets::get;
    PATCH compute!("/diskEncryptionSets/{set}"), write, Compute => encryption_sets::patch;
    DELETE compute!("/diskEncryptionSets/{set}"), write, Compute => encryption_sets::delete;
    GET compute!("/diskEncryptionSets"), read, Compute => encryption_sets::list_group;
    GET all_compute!("/diskEncryptionSets"), read, Compute => encryption_sets::list_all;
    GET compute!("/diskEncryptionSets/{set}/associatedResources"), read, Compute => encryption_sets::associated;
    PUT compute!("/images/{image}"), write, Compute => images::put;
    GET compute!("/images/{image}"), read, Compute => images::get;
    DELETE compute!("/images/{image}"), write, Compute => images::delete;
    GET compute!("/images"), read, Compute => images::list_group;
    GET all_compute!("/images"), read, Compute => images::list_all;
    GET all_compute!("/skus"), read, Compute => sizes::skus;
    GET all_compute!("/locations/{location}/vmSizes"), read, Compute => sizes::vm_sizes;
    GET all_compute!("/locations/{location}/usages"), read, Compute => sizes::usages;
    GET all_compute!("/locations/{location}/operations/{operation}"), read, Compute => operations::get;
    GET publishers!(), read, Compute => image_names::publishers;
    GET publishers!("/{publisher}/artifacttypes/vmimage/offers"), read, Compute => image_names::offers;
    GET publishers!("/{publisher}/artifacttypes/vmimage/offers/{offer}/skus"), read, Compute => image_names::skus;
    GET publishers!("/{publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions"), read, Compute => image_names::versions;
    GET publishers!("/{publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions/{version}"), read, Compute => image_names::version;
    PUT attestation!("/attestationProviders/{provider}"), write, Attestation => attestation::put;
    GET attestation!("/attestationProviders/{provider}"), read, Attestation => attestation::get;
    PATCH attestation!("/attestationProviders/{provider}"), write, Attestation => attestation::patch;
    DELETE attestation!("/attestationProviders/{provider}"), write, Attestation => attestation::delete;
    GET attestation!("/attestationProviders"), read, Attestation => attestation::list_group;
    GET all_attestation!("/attestationProviders"), read, Attestation => attestation::list_all;
    GET all_attestation!("/defaultProviders"), read, Attestation => attestation::list_default;
    GET all_attestation!("/locations/{location}/defaultProvider"), read, Attestation => attestation::default_of_location;
    GET "/providers/Microsoft.Attestation/operations", signed, Attestation => attestation::operations;
    PUT key_vault!("/vaults/{vault}"), write, KeyVault => vaults::put;
    GET key_vault!("/vaults/{vault}"), read, KeyVault => vaults::get;
    PATCH key_vault!("/vaults/{vault}"), write, KeyVault => vaults::patch;
    DELETE key_vault!("/vaults/{vault}"), write, KeyVault => vaults::delete;
    GET key_vault!("/vaults"), read, KeyVault => vaults::list_group;
    GET all_key_vault!("/vaults"), read, KeyVault => vaults::list_all;
    PUT key_vault!("/vaults/{vault}/accessPolicies/{operation}"), write, KeyVault => vaults::change_policies;
    PUT key_vault!("/managedHSMs/{hsm}"), write, KeyVault => vaults::put_hsm;
    GET key_vault!("/managedHSMs/{hsm}"), read, KeyVault => vaults::get_hsm;
    PATCH key_vault!("/managedHSMs/{hsm}"), write, KeyVault => vaults::patch_hsm;
    DELETE key_vault!("/managedHSMs/{hsm}"), write, KeyVault => vaults::delete_hsm;
    GET key_vault!("/managedHSMs"), read, KeyVault => vaults::list_hsms_of_group;
    GET all_key_vault!("/managedHSMs"), read, KeyVault => vaults::list_hsms;
    POST all_key_vault!("/checkNameAvailability"), write, KeyVault => vaults::check_name;
    GET all_key_vault!("/deletedVaults"), read, KeyVault => vaults::list_deleted;
    GET all_key_vault!("/locations/{location}/deletedVaults/{name}"), read, KeyVault => vaults::get_deleted;
    POST all_key_vault!("/locations/{location}/deletedVaults/{name}/purge"), write, KeyVault => vaults::purge;
    GET all_key_vault!("/deletedManagedHSMs"), read, KeyVault => vaults::list_deleted_hsms;
    GET all_key_vault!("/locations/{location}/deletedManagedHSMs/{name}"), read, KeyVault => vaults::get_deleted_hsm;
    POST all_key_vault!("/locations/{location}/deletedManagedHSMs/{name}/purge"), write, KeyVault => vaults::purge_hsm;
    PUT sub!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::put;
    GET sub!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"), read, Authorization => roles::get;
    DELETE sub!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::delete;
    GET sub!("/providers/Microsoft.Authorization/roleAssignments"), read, Authorization => roles::list;
    GET sub!("/providers/Microsoft.Authorization/roleDefinitions"), read, Authorization => roles::definitions;
    GET sub!("/providers/Microsoft.Authorization/roleDefinitions/{role}"), read, Authorization => roles::definition;
    PUT group!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::put;
    GET group!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"), read, Authorization => roles::get;
    DELETE group!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::delete;
    GET group!("/providers/Microsoft.Authorization/roleAssignments"), read, Authorization => roles::list;
    GET group!("/providers/Microsoft.Authorization/roleDefinitions"), read, Authorization => roles::definitions;
    GET group!("/providers/Microsoft.Authorization/roleDefinitions/{role}"), read, Authorization => roles::definition;
    PUT key_vault!("/vaults/{vault}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::put;
    GET key_vault!("/vaults/{vault}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), read, Authorization => roles::get;
    DELETE key_vault!("/vaults/{vault}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::delete;
    GET key_vault!("/vaults/{vault}/providers/Microsoft.Authorization/roleAssignments"), read, Authorization => roles::list;
    GET key_vault!("/vaults/{vault}/providers/Microsoft.Authorization/roleDefinitions"), read, Authorization => roles::definitions;
    GET key_vault!("/vaults/{vault}/providers/Microsoft.Authorization/roleDefinitions/{role}"), read, Authorization => roles::definition;
    PUT key_vault!("/vaults/{vault}/keys/{key}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::put;
    GET key_vault!("/vaults/{vault}/keys/{key}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), read, Authorization => roles::get;
    DELETE key_vault!("/vaults/{vault}/keys/{key}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::delete;
    GET key_vault!("/vaults/{vault}/keys/{key}/providers/Microsoft.Authorization/roleAssignments"), read, Authorization => roles::list;
    GET key_vault!("/vaults/{vault}/keys/{key}/providers/Microsoft.Authorization/roleDefinitions"), read, Authorization => roles::definitions;
    GET key_vault!("/vaults/{vault}/keys/{key}/providers/Microsoft.Authorization/roleDefinitions/{role}"), read, Authorization => roles::definition;
    PUT key_vault!("/managedHSMs/{hsm}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::put;
    GET key_vault!("/managedHSMs/{hsm}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), read, Authorization => roles::get;
    DELETE key_vault!("/managedHSMs/{hsm}/providers/Microsoft.Authorization/roleAssignments/{assignment}"), write, Authorization => roles::delete;
    GET key_vault!("/managedHSMs/{hsm}/providers/Microsoft.Authorization/roleAssignments"), read, Authorization => roles::list;
    GET key_vault!("/managedHSMs/{hsm}/providers/Microsoft.Authorization/roleDefinitions"), read, Authorization => roles::definitions;
    GET key_vault!("/managedHSMs/{hsm}/providers/Microsoft.Authorization/roleDefinitions/{role}"), read, Authorization => roles::definition;
    PUT network!("/{type}/{name}"), write, Network => network::put;
    GET network!("/{type}/{name}"), read, Network => network::get;
    DELETE network!("/{type}/{name}"), write, Network => network::delete;
    GET network!("/{type}"), read, Network => network::list_group;
    GET all_network!("/{type}"), read, Network => network::list_all;
    PUT network!("/virtualNetworks/{name}/subnets/{subnet}"), write, Network => network::put_subnet;
    GET network!("/virtualNetworks/{name}/subnets/{subnet}"), read, Network => network::get_subnet;
};
