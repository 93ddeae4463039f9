//! Vaults as resources: made, shown, listed, deleted, recovered and purged at the key service itself; roles at every scope; whose
//! they are; and a control plane that dies in between.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use reqwest::Method;
use serde_json::{Value, json};

use crate::crashes::{DiesAt, Recorder};
use crate::installation::{
    Arm, CLIENT, Installation, OTHER_SUBSCRIPTION, OTHER_TENANT, READER, STRANGER, SUBSCRIPTION, TENANT,
    group, wait_for,
};
use crate::key_service::{self, KeyService, object_id};

const OFFICER: &str = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603";
const USER: &str = "12338af0-0e69-4776-bea7-57ae8d297424";
const GUID: &str = "eeeeeeee-0000-0000-0000-000000000001";
const SECOND_GUID: &str = "eeeeeeee-0000-0000-0000-000000000002";

fn path(name: &str) -> String {
    format!("{}/providers/Microsoft.KeyVault/vaults/{name}", group())
}

fn body() -> Value {
    let properties = json!({"tenantId": TENANT, "sku": {"family": "A", "name": "standard"}, "enableRbacAuthorization": true});
    json!({"location": "local", "tags": {"a": "b"}, "properties": properties})
}

fn assignment_path(scope: &str, name: &str) -> String {
    format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}")
}

fn role(id: &str, principal: &str) -> Value {
    let role =
        format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{id}");
    json!({"properties": {"roleDefinitionId": role, "principalId": principal, "principalType": "ServicePrincipal"}})
}

struct Place {
    installation: Installation,
    keys: KeyService,
    arm: Arm,
}

impl Place {
    async fn new() -> Self {
        let (installation, keys) = key_service::start().await;
        let arm = installation.arm().await;
        arm.make_group().await;
        Self { installation, keys, arm }
    }

    async fn make(&self, name: &str) -> Value {
        let answer = self.arm.put(&path(name), &body()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.body
    }

    async fn assign(&self, scope: &str, name: &str, id: &str) {
        let principal = object_id(&self.installation, TENANT, CLIENT).await;
        let answer = self.arm.put(&assignment_path(scope, name), &role(id, &principal)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }

    async fn key(&self, vault: &str, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.keys.call(&self.installation, vault, (method, path), body).await;
        (answer.status, answer.body)
    }

    /// Until the reconciler has told the key service.
    async fn until(&self, vault: &str, path: &str, status: u16) {
        wait_for(&format!("{status} at {path} of {vault}"), || async {
            let (seen, _) = self.key(vault, Method::GET, path, None).await;
            (seen == status).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_vault_is_made_shown_listed_deleted_recovered_and_purged() {
    let place = Place::new().await;
    let arm = &place.arm;
    let made = place.make("Mine").await;
    assert_eq!(made["properties"]["vaultUri"], format!("{}/", place.keys.url("mine")));
    assert_eq!(made["properties"]["provisioningState"], "Succeeded");
    let again = arm.put(&path("mine"), &made).await;
    assert_eq!((again.status, &again.body), (200, &made), "a PUT of what was read changes nothing");
    let labelled = arm.call(Method::PATCH, &path("MINE"), Some(&json!({"tags": {"c": "d"}}))).await;
    assert_eq!((labelled.status, &labelled.body["tags"]), (200, &json!({"c": "d"})), "{}", labelled.text);
    let all = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/vaults");
    for list in [format!("{}/providers/Microsoft.KeyVault/vaults", group()), all] {
        assert_eq!(arm.get(&list).await.body, json!({"value": [labelled.body]}), "{list}");
    }
    let filter = "$filter=resourceType%20eq%20'Microsoft.KeyVault/vaults'%20and%20name%20eq%20";
    let found = arm.get(&format!("/subscriptions/{SUBSCRIPTION}/resources?{filter}'mine'")).await;
    assert_eq!(found.body["value"][0]["location"], "local", "{}", found.text);
    let none = arm.get(&format!("/subscriptions/{SUBSCRIPTION}/resources?{filter}'other'")).await;
    assert_eq!(none.body, json!({"value": []}));
    let endpoints = arm.get("/metadata/endpoints").await.body;
    assert!(endpoints["suffixes"]["keyVaultDns"].as_str().unwrap().starts_with("vault.localhost:"));
    place.assign(&path("mine"), GUID, OFFICER).await;
    place.until("mine", "/keys", 200).await;
    let key = json!({"kty": "RSA"});
    let (status, key) = place.key("mine", Method::POST, "/keys/k/create", Some(&key)).await;
    assert_eq!(status, 200, "{key}");

    assert_eq!(arm.delete(&path("mine")).await.status, 200);
    assert_eq!(arm.get(&path("mine")).await.status, 404);
    assert_eq!(place.key("mine", Method::GET, "/keys", None).await.0, 404);
    let deleted = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault");
    let list = arm.get(&format!("{deleted}/deletedVaults")).await;
    assert_eq!(list.body["value"][0]["properties"]["vaultId"], path("Mine"), "{}", list.text);
    let check = json!({"name": "mine", "type": "Microsoft.KeyVault/vaults"});
    let check = arm.call(Method::POST, &format!("{deleted}/checkNameAvailability"), Some(&check)).await;
    assert_eq!(
        (&check.body["nameAvailable"], &check.body["reason"]),
        (&json!(false), &json!("AlreadyExists"))
    );
    let again = arm.put(&path("mine"), &body()).await;
    assert_eq!((again.status, again.code()), (409, "ConflictError"), "{}", again.text);
    assert_eq!(arm.delete(&path("mine")).await.status, 200, "the one that failed goes");
    let mut recover = body();
    recover["properties"]["createMode"] = json!("recover");
    let recovered = arm.put(&path("Mine"), &recover).await;
    assert_eq!(recovered.status, 201, "{}", recovered.text);
    assert_eq!(
        place.key("mine", Method::GET, "/keys/k/", None).await.0,
        403,
        "roles do not come back with it"
    );
    place.assign(&path("mine"), GUID, USER).await;
    place.until("mine", "/keys/k/", 200).await;
    assert_eq!(place.key("mine", Method::GET, "/keys/k/", None).await.1["key"], key["key"]);

    assert_eq!(arm.delete(&path("mine")).await.status, 200);
    let purge = format!("{deleted}/locations/local/deletedVaults/mine");
    assert_eq!(arm.get(&purge).await.status, 200);
    assert_eq!(arm.post(&format!("{purge}/purge")).await.status, 200);
    assert_eq!(place.keys.folders(), 0);
    assert_eq!(arm.get(&purge).await.code(), "DeletedVaultNotFound");
    place.make("mine").await;
}

#[tokio::test]
async fn roles_hold_at_every_scope_and_below_and_are_told_when_they_change() {
    let place = Place::new().await;
    place.make("one").await;
    let vault = path("one");
    let subscription = format!("/subscriptions/{SUBSCRIPTION}");
    for scope in [subscription.clone(), group(), vault.clone()] {
        place.until("one", "/keys", 403).await;
        place.assign(&scope, GUID, OFFICER).await;
        place.until("one", "/keys", 200).await;
        let removed = place.arm.delete(&assignment_path(&scope, GUID)).await;
        assert_eq!((removed.status, removed.body["name"].as_str()), (200, Some(GUID)));
        assert_eq!(place.arm.delete(&assignment_path(&scope, GUID)).await.status, 204);
    }
    place.until("one", "/keys", 403).await;
    place.assign(&format!("{vault}/keys/k"), GUID, OFFICER).await;
    place.until("one", "/keys/k/", 404).await;
    for (other, status) in [("/keys", 403), ("/keys/other/", 403), ("/keys/k/versions", 200)] {
        assert_eq!(place.key("one", Method::GET, other, None).await.0, status, "{other}");
    }
    place.assign(&group(), SECOND_GUID, USER).await;
    let list = async |at: &str, filter: &str| {
        let path = format!("{at}/providers/Microsoft.Authorization/roleAssignments?$filter={filter}");
        place.arm.get(&path).await.body["value"].as_array().unwrap().len()
    };
    assert_eq!((list(&vault, "atScope()").await, list(&vault, "").await), (1, 2));
    assert_eq!((list(&subscription, "atScope()").await, list(&subscription, "").await), (0, 2));
    assert_eq!(list(&vault, &format!("principalId%20eq%20'{GUID}'")).await, 0);
    let filter = "$filter=roleName%20eq%20'Key%20Vault%20Crypto%20User'";
    let roles =
        place.arm.get(&format!("{vault}/providers/Microsoft.Authorization/roleDefinitions?{filter}")).await;
    assert_eq!(
        (roles.body["value"].as_array().unwrap().len(), &roles.body["value"][0]["name"]),
        (1, &json!(USER))
    );
    let inventory = place.arm.get(&format!("{}/resources", group())).await;
    assert_eq!(
        inventory.body["value"].as_array().unwrap().len(),
        1,
        "an assignment is no resource of a group"
    );
}

#[tokio::test]
async fn assignments_that_cannot_be_are_refused() {
    let place = Place::new().await;
    place.make("one").await;
    let vault = path("one");
    place.assign(&vault, GUID, OFFICER).await;
    let principal = object_id(&place.installation, TENANT, CLIENT).await;
    for (scope, name, body, code) in [
        (vault.clone(), "mine", role(USER, &principal), "InvalidRoleAssignmentId"),
        (vault.clone(), SECOND_GUID, role(GUID, &principal), "RoleDefinitionDoesNotExist"),
        (vault.clone(), SECOND_GUID, role(USER, "me"), "InvalidParameter"),
        (vault.clone(), SECOND_GUID, role(OFFICER, &principal), "RoleAssignmentExists"),
        (vault.clone(), GUID, role(USER, &principal), "RoleAssignmentUpdateNotPermitted"),
        (path("two"), SECOND_GUID, role(USER, &principal), "ResourceNotFound"),
        (vault.clone(), SECOND_GUID, json!({"properties": {"colour": 1}}), "BadRequest"),
        (vault.clone(), SECOND_GUID, json!({"properties": {"condition": "true"}}), "BadRequest"),
    ] {
        let refused = place.arm.put(&assignment_path(&scope, name), &body).await;
        assert_eq!(refused.code(), code, "{}", refused.text);
    }
    let again = place.arm.put(&assignment_path(&vault, GUID), &role(OFFICER, &principal)).await;
    assert_eq!(again.status, 200, "the same again is the same");
}

#[tokio::test]
async fn access_policies_are_added_replaced_and_removed() {
    let place = Place::new().await;
    let mut body = body();
    body["properties"]["enableRbacAuthorization"] = json!(false);
    assert_eq!(place.arm.put(&path("one"), &body).await.status, 201);
    let object = object_id(&place.installation, TENANT, CLIENT).await;
    let change = async |operation: &str, keys: Value| {
        let policy = json!({"tenantId": TENANT, "objectId": object, "permissions": {"keys": keys, "secrets": ["get"]}});
        let body = json!({"properties": {"accessPolicies": [policy]}});
        place.arm.put(&format!("{}/accessPolicies/{operation}", path("one")), &body).await
    };
    let added = change("add", json!(["list", "create"])).await;
    assert_eq!(added.status, 200, "{}", added.text);
    assert_eq!(place.key("one", Method::GET, "/keys", None).await.0, 200, "it holds when it is answered");
    change("remove", json!(["LIST"])).await;
    assert_eq!(place.key("one", Method::GET, "/keys", None).await.0, 403);
    change("replace", json!(["list"])).await;
    let shown = place.arm.get(&path("one")).await;
    assert_eq!(shown.body["properties"]["accessPolicies"][0]["permissions"]["keys"], json!(["list"]));
    assert_eq!(change("add", json!(["fly"])).await.code(), "InvalidParameter");
    assert_eq!(change("forget", json!([])).await.code(), "BadRequest");
}

#[tokio::test]
async fn attack_the_name_of_another_tenants_vault() {
    let place = Place::new().await;
    place.make("one").await;
    let stranger = place.installation.arm_as(OTHER_TENANT, STRANGER).await;
    let theirs = path("one").replace(SUBSCRIPTION, OTHER_SUBSCRIPTION);
    let their_group = group().replace(SUBSCRIPTION, OTHER_SUBSCRIPTION);
    stranger.put(&their_group, &json!({"location": "local"})).await;
    let mut body = body();
    body["properties"]["tenantId"] = json!(OTHER_TENANT);
    let taken = stranger.put(&theirs, &body).await;
    assert_eq!((taken.status, taken.code()), (409, "VaultAlreadyExists"), "{}", taken.text);
    assert_eq!(place.arm.delete(&path("one")).await.status, 200);
    let deleted = stranger.put(&theirs, &body).await;
    assert_eq!(deleted.status, 409, "a deleted vault keeps its name: {}", deleted.text);
    stranger.delete(&theirs).await;
    body["properties"]["createMode"] = json!("recover");
    let recovered = stranger.put(&theirs, &body).await;
    assert_eq!((recovered.status, recovered.code()), (409, "VaultAlreadyExists"), "{}", recovered.text);
    let list = format!("/subscriptions/{OTHER_SUBSCRIPTION}/providers/Microsoft.KeyVault");
    assert_eq!(stranger.get(&format!("{list}/deletedVaults")).await.body, json!({"value": []}));
    let purge = stranger.post(&format!("{list}/locations/local/deletedVaults/one/purge")).await;
    assert_eq!(purge.code(), "DeletedVaultNotFound");
    assert_eq!(place.keys.folders(), 1, "nobody else purged it");
    let own = json!({"location": "local", "properties": {"tenantId": TENANT, "sku": {"family": "A", "name": "standard"}}});
    let foreign = stranger.put(&theirs.replace("one", "two"), &own).await;
    assert_eq!(foreign.code(), "InvalidParameter", "a vault is of its subscription's tenant");
}

#[tokio::test]
async fn attack_a_principal_of_another_tenant_and_a_reader_who_assigns() {
    let place = Place::new().await;
    place.make("one").await;
    let object = object_id(&place.installation, OTHER_TENANT, STRANGER).await;
    let given = place.arm.put(&assignment_path(&path("one"), GUID), &role(OFFICER, &object)).await;
    assert_eq!(given.status, 201, "the object id may be anybody's");
    place.assign(&path("one"), SECOND_GUID, OFFICER).await;
    place.until("one", "/keys", 200).await;
    let stranger = place.keys.at(&place.installation, "one", (OTHER_TENANT, STRANGER)).await;
    let refused = stranger.send(Method::GET, "/keys?api-version=7.4", None).await;
    assert_eq!(refused.status, 401, "a vault takes tokens of its tenant only: {}", refused.text);
    let reader = place.installation.arm_as(TENANT, READER).await;
    let own = object_id(&place.installation, TENANT, READER).await;
    let refused = reader.put(&assignment_path(&path("one"), GUID), &role(OFFICER, &own)).await;
    assert_eq!((refused.status, refused.code()), (403, "AuthorizationFailed"));
}

#[tokio::test]
async fn a_vault_waits_for_a_key_service_that_is_down_and_a_group_takes_its_vaults_along() {
    let mut place = Place::new().await;
    place.make("one").await;
    place.keys.kill().await;
    let principal = object_id(&place.installation, TENANT, CLIENT).await;
    let assigned = place.arm.put(&assignment_path(&path("one"), GUID), &role(OFFICER, &principal)).await;
    assert_eq!(assigned.status, 201);
    place.keys.begin(&place.installation).await;
    place.until("one", "/keys", 200).await;
    let begun = place.arm.delete(&group()).await;
    assert!(begun.status < 300, "{}", begun.text);
    wait_for("the group to go", || async { (place.arm.get(&group()).await.status == 404).then_some(()) })
        .await;
    assert_eq!(place.key("one", Method::GET, "/keys", None).await.0, 404);
}

#[tokio::test]
async fn a_managed_hsm_is_shown_as_azure_shows_it() {
    let place = Place::new().await;
    let admin = object_id(&place.installation, TENANT, CLIENT).await;
    let pool = json!({
        "location": "local", "sku": {"family": "B", "name": "Standard_B1"},
        "properties": {"tenantId": TENANT, "initialAdminObjectIds": [admin], "softDeleteRetentionInDays": 7},
    });
    let at = format!("{}/providers/Microsoft.KeyVault/managedHSMs/pool", group());
    let made = place.arm.put(&at, &pool).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let properties = &made.body["properties"];
    assert!(properties["hsmUri"].as_str().unwrap().starts_with("https://pool.managedhsm.localhost:"));
    assert_eq!(properties["securityDomainProperties"]["activationStatus"], "Active");
    assert_eq!(place.arm.put(&path("pool"), &body()).await.code(), "VaultAlreadyExists");
    assert_eq!(place.arm.delete(&at).await.status, 200);
}

/// The control plane dies at each step of making a vault and of deleting it; what it left is finished by the next one.
#[tokio::test]
async fn the_control_plane_dies_at_every_step_of_a_vaults_life() {
    let (mut installation, keys) = key_service::start().await;
    installation.arm().await.make_group().await;
    let recorder = Arc::new(Recorder::default());
    installation.kill().await;
    installation.start_with(recorder.clone()).await;
    let arm = installation.arm().await;
    assert_eq!(arm.put(&path("first"), &body()).await.status, 201);
    assert_eq!(arm.delete(&path("first")).await.status, 200);
    let points = recorder.0.lock().unwrap().len();
    assert!(points >= 6, "{points}");
    for point in 0..points {
        let name = format!("vault{point}");
        installation.kill().await;
        let probe = Arc::new(DiesAt { point, passed: AtomicUsize::new(0) });
        installation.start_with(probe.clone()).await;
        let arm = installation.arm().await;
        let write = async {
            let _ = arm
                .try_send(Method::PUT, &format!("{}?api-version=2026-02-01", path(&name)), Some(body()))
                .await;
            let _ =
                arm.try_send(Method::DELETE, &format!("{}?api-version=2026-02-01", path(&name)), None).await;
        };
        tokio::select! {
            () = write => {}
            () = wait_for("the control plane's death", || async { probe.is_dead().then_some(()) }) => {}
        }
        installation.kill().await;
        installation.start().await;
        let arm = installation.arm().await;
        // Made, or on its way out: the deletion was accepted before the death.
        let again = arm.put(&path(&name), &body()).await;
        assert!(again.status < 300 || again.status == 409, "{name}: {}", again.text);
        arm.delete(&path(&name)).await;
        wait_for("the vault to go", || async { (arm.get(&path(&name)).await.status == 404).then_some(()) })
            .await;
        assert_eq!(keys.call(&installation, &name, (Method::GET, "/keys"), None).await.status, 404, "{name}");
    }
}
