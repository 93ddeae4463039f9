//! Attestation providers as resources: made, labelled, listed and removed at the attestation service itself; whose they are; and
//! a control plane that dies in between.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use public_api::encoding::{to_base64, to_base64url};
use reqwest::Method;
use serde_json::{Value, json};

use crate::attestation::{Attestation, OPERATOR};
use crate::crashes::{DiesAt, Recorder};
use crate::installation::{
    Arm, CLIENT, Installation, OTHER_SUBSCRIPTION, OTHER_TENANT, READER, STRANGER, SUBSCRIPTION, TENANT,
    group, wait_for,
};

const PERMIT: &str = "version=1.0; authorizationrules { => permit(); };";

fn path(name: &str) -> String {
    format!("{}/providers/Microsoft.Attestation/attestationProviders/{name}", group())
}

fn theirs(name: &str) -> String {
    path(name).replace(SUBSCRIPTION, OTHER_SUBSCRIPTION)
}

fn body() -> Value {
    json!({"location": "local", "tags": {"a": "b"}, "properties": {}})
}

/// An unsigned policy, as Azure's clients send it.
fn policy() -> String {
    let payload = json!({"AttestationPolicy": to_base64url(PERMIT.as_bytes())}).to_string();
    format!("{}.{}.", to_base64url(br#"{"alg":"none"}"#), to_base64url(payload.as_bytes()))
}

struct Place {
    installation: Installation,
    attestation: Attestation,
    arm: Arm,
}

impl Place {
    async fn new() -> Self {
        let installation = Installation::new().await;
        let attestation = Attestation::start(&installation).await;
        let arm = installation.arm().await;
        arm.make_group().await;
        Self { installation, attestation, arm }
    }

    async fn provider(&self, name: &str) -> Option<Value> {
        self.attestation.provider(&self.installation, name).await
    }

    /// The status of setting a policy with a client's token.
    async fn set_policy(&self, provider: &str, tenant: &str, client: &str) -> u16 {
        let token = self.installation.attestation_token(tenant, client).await;
        let path = format!("/providers/{provider}/policies/SevSnpVm");
        let answer =
            self.attestation.call(&self.installation, Method::PUT, &path, Some(&policy()), &token).await;
        answer.status
    }

    async fn make(&self, name: &str) {
        let answer = self.arm.put(&path(name), &body()).await;
        assert_eq!(
            (answer.status, &answer.body["properties"]["status"]),
            (201, &json!("Ready")),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_provider_is_made_shown_labelled_listed_and_removed() {
    let place = Place::new().await;
    let arm = &place.arm;
    let made = arm.put(&path("Mine"), &body()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let properties = &made.body["properties"];
    let uri = format!("{}/providers/mine", place.installation.config.attestation_url);
    assert_eq!(
        *properties,
        json!({
            "trustModel": "AAD", "status": "Ready", "attestUri": uri, "publicNetworkAccess": "Enabled",
            "tpmAttestationAuthentication": "Enabled",
        })
    );
    let metadata = arm.send(Method::GET, &format!("{uri}/.well-known/openid-configuration"), None).await;
    assert_eq!(metadata.body["issuer"], uri, "the address is the issuer of the provider's tokens");
    let again = arm.put(&path("mine"), &made.body).await;
    assert_eq!((again.status, &again.body), (200, &made.body), "a PUT of what was read changes nothing");
    let labelled = arm.call(Method::PATCH, &path("MINE"), Some(&json!({"tags": {"c": "d"}}))).await;
    assert_eq!((labelled.status, &labelled.body["tags"]), (200, &json!({"c": "d"})), "{}", labelled.text);
    assert_eq!(arm.get(&path("mine")).await.body, labelled.body);
    let everywhere =
        format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Attestation/attestationProviders");
    for list in [format!("{}/providers/Microsoft.Attestation/attestationProviders", group()), everywhere] {
        assert_eq!(arm.get(&list).await.body, json!({"value": [labelled.body]}), "{list}");
    }
    let inventory = arm.get(&format!("{}/resources", group())).await;
    assert_eq!(inventory.body["value"][0]["type"], "Microsoft.Attestation/attestationProviders");
    assert_eq!(arm.delete(&path("mine")).await.status, 200);
    assert_eq!(place.provider("mine").await, None);
    assert_eq!(arm.delete(&path("mine")).await.status, 204);
    let missing = arm.get(&path("mine")).await;
    assert_eq!((missing.status, missing.code()), (404, "ResourceNotFound"));
}

#[tokio::test]
async fn what_is_fixed_cannot_be_changed_and_what_is_not_offered_is_refused() {
    let place = Place::new().await;
    place.make("mine").await;
    let with = |properties: Value| json!({"location": "local", "properties": properties});
    let certificate = to_base64(&certificate());
    for (name, body, code) in [
        ("mine", with(json!({"tpmAttestationAuthentication": "Disabled"})), "PropertyChangeNotAllowed"),
        (
            "mine",
            with(json!({"policySigningCertificates": {"keys": [{"kty": "EC", "x5c": [certificate]}]}})),
            "PropertyChangeNotAllowed",
        ),
        ("new", with(json!({"publicNetworkAccess": "Disabled"})), "InvalidParameter"),
        ("new", with(json!({"colour": "red"})), "BadRequest"),
        ("new", with(json!({"policySigningCertificates": {"keys": [{"d": "secret"}]}})), "BadRequest"),
        ("new", json!({"location": "local"}), "InvalidParameter"),
        ("new", json!({"location": "elsewhere", "properties": {}}), "LocationNotAvailableForResourceType"),
        ("default", with(json!({})), "InvalidResourceName"),
        ("a", with(json!({})), "InvalidResourceName"),
    ] {
        let answer = place.arm.put(&path(name), &body).await;
        assert_eq!(answer.code(), code, "{name} {body}: {}", answer.text);
    }
    let patched =
        place.arm.call(Method::PATCH, &path("mine"), Some(&json!({"properties": {"attestUri": "x"}}))).await;
    assert_eq!(patched.status, 400, "{}", patched.text);
    assert_eq!(place.provider("new").await, None);
}

fn certificate() -> Vec<u8> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
}

#[tokio::test]
async fn a_provider_with_signers_is_isolated() {
    let place = Place::new().await;
    let keys = json!({"keys": [{"kty": "EC", "use": "sig", "x5c": [to_base64(&certificate())]}]});
    let body = json!({"location": "local", "properties": {"policySigningCertificates": keys}});
    let made = place.arm.put(&path("mine"), &body).await;
    assert_eq!(
        (made.status, &made.body["properties"]["trustModel"]),
        (201, &json!("Isolated")),
        "{}",
        made.text
    );
    assert_eq!(place.provider("mine").await.unwrap()["trustModel"], "Isolated");
    assert_eq!(place.set_policy("mine", TENANT, CLIENT).await, 400, "an unsigned policy is refused");
    assert_eq!(place.arm.put(&path("mine"), &made.body).await.status, 200, "what was read may be written");
}

/// A key that the attestation service does not take: the answer says so, and so does the resource.
#[tokio::test]
async fn what_the_attestation_service_refuses_is_told_in_five_parts() {
    let place = Place::new().await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let keys = json!({"keys": [{"kty": "OKP", "x5c": [to_base64(certificate.der())]}]});
    let body = json!({"location": "local", "properties": {"policySigningCertificates": keys}});
    let refused = place.arm.put(&path("mine"), &body).await;
    assert_eq!((refused.status, refused.code()), (409, "AttestationProviderRefused"), "{}", refused.text);
    let denial = &refused.body["error"]["denial"];
    for part in ["claim", "expected", "actual", "rule", "remedy"] {
        assert!(!denial[part].as_str().unwrap().is_empty(), "{part}: {denial}");
    }
    let shown = place.arm.get(&path("mine")).await.body;
    assert_eq!(shown["properties"]["status"], "Error");
    assert!(shown["properties"]["casemate"]["detail"].as_str().unwrap().contains("P-256"), "{shown}");
    assert_eq!(place.arm.delete(&path("mine")).await.status, 200);
}

#[tokio::test]
async fn whoever_may_change_the_resource_administers_the_provider_and_a_stranger_does_not() {
    let place = Place::new().await;
    place.make("mine").await;
    let stranger = place.installation.arm_as(OTHER_TENANT, STRANGER).await;
    let made =
        stranger.put(&group().replace(SUBSCRIPTION, OTHER_SUBSCRIPTION), &json!({"location": "local"})).await;
    assert!(made.status < 300, "{}", made.text);
    assert_eq!(stranger.put(&theirs("theirs"), &body()).await.status, 201);
    for (provider, tenant, client, expected) in [
        ("mine", TENANT, CLIENT, 200),
        ("mine", TENANT, READER, 403),
        ("mine", OTHER_TENANT, STRANGER, 403),
        ("theirs", OTHER_TENANT, STRANGER, 200),
        ("theirs", TENANT, CLIENT, 403),
        ("default", TENANT, CLIENT, 403),
    ] {
        assert_eq!(place.set_policy(provider, tenant, client).await, expected, "{provider} by {client}");
    }
    let token = place.installation.attestation_token(TENANT, READER).await;
    let versions = "/providers/mine/policies/SevSnpVm/versions";
    let read = place.attestation.call(&place.installation, Method::GET, versions, None, &token).await;
    assert_eq!((read.status, &read.body[0]["setBy"]), (200, &json!(CLIENT)), "{}", read.text);
    let removed =
        place.attestation.call(&place.installation, Method::DELETE, "/providers/mine", None, &token).await;
    assert_eq!(removed.status, 403, "{}", removed.text);
}

#[tokio::test]
async fn attack_another_tenants_provider_of_the_same_name() {
    let place = Place::new().await;
    place.make("mine").await;
    let before = place.provider("mine").await.unwrap();
    let stranger = place.installation.arm_as(OTHER_TENANT, STRANGER).await;
    stranger.put(&group().replace(SUBSCRIPTION, OTHER_SUBSCRIPTION), &json!({"location": "local"})).await;
    for name in ["mine", "MINE"] {
        let refused = stranger.put(&theirs(name), &body()).await;
        assert_eq!((refused.status, refused.code()), (409, "NameNotAvailable"), "{}", refused.text);
        assert!(!refused.text.contains(SUBSCRIPTION), "whose it is is not told: {}", refused.text);
        assert_eq!(stranger.delete(&theirs(name)).await.status, 204);
    }
    let elsewhere = path("mine").replace("/rg/", "/rg2/");
    place.arm.put(&group().replace("/rg", "/rg2"), &json!({"location": "local"})).await;
    assert_eq!(place.arm.put(&elsewhere, &body()).await.code(), "NameNotAvailable");
    assert_eq!(place.provider("mine").await, Some(before));
}

#[tokio::test]
async fn attack_a_resource_named_like_a_provider_of_the_operator() {
    let place = Place::new().await;
    let installation = &place.installation;
    let made =
        place.attestation.call(installation, Method::PUT, "/providers/operators", Some("{}"), OPERATOR).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let refused = place.arm.put(&path("operators"), &body()).await;
    assert_eq!((refused.status, refused.code()), (409, "AttestationProviderForeign"), "{}", refused.text);
    assert_eq!(place.arm.get(&path("operators")).await.body["properties"]["status"], "Error");
    assert_eq!(place.set_policy("operators", TENANT, CLIENT).await, 403);
    assert_eq!(place.arm.delete(&path("operators")).await.status, 200);
    assert_eq!(place.provider("operators").await, Some(made.body), "it is still there");
}

#[tokio::test]
async fn a_provider_waits_for_the_attestation_service() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let put = tokio::spawn({
        let arm = arm.clone();
        async move { arm.put(&path("mine"), &body()).await }
    });
    wait_for("the provider to be accepted", || async {
        let shown = arm.get(&path("mine")).await;
        (shown.body["properties"]["status"] == "NotReady").then_some(())
    })
    .await;
    let attestation = Attestation::start(&installation).await;
    let made = put.await.unwrap();
    assert_eq!((made.status, &made.body["properties"]["status"]), (201, &json!("Ready")), "{}", made.text);
    attestation.stop().await;
    let delete = tokio::spawn({
        let arm = arm.clone();
        async move { arm.delete(&path("mine")).await }
    });
    wait_for("the deletion to be accepted", || async {
        let shown = arm.get(&path("mine")).await;
        (shown.body["properties"]["status"] == "NotReady").then_some(())
    })
    .await;
    let again = arm.put(&path("mine"), &body()).await;
    assert_eq!((again.status, again.code()), (409, "OperationNotAllowed"), "{}", again.text);
    let attestation = Attestation::start(&installation).await;
    assert_eq!(delete.await.unwrap().status, 200);
    assert_eq!(attestation.provider(&installation, "mine").await, None);
}

#[tokio::test]
async fn a_group_takes_its_providers_along() {
    let place = Place::new().await;
    place.make("mine").await;
    let deletion = place.arm.delete(&group()).await;
    assert_eq!(place.arm.finish(&deletion).await["status"], "Succeeded");
    assert_eq!(place.provider("mine").await, None);
    place.arm.make_group().await;
    place.make("mine").await;
}

#[tokio::test]
async fn dead_at_every_step_ends_as_undisturbed() {
    let recorder = Arc::new(Recorder::default());
    let mut installation = Installation::stopped().await;
    installation.start_with(recorder.clone()).await;
    let attestation = Attestation::start(&installation).await;
    let arm = installation.arm().await;
    arm.make_group().await;
    assert_eq!(arm.put(&path("mine"), &body()).await.status, 201);
    assert_eq!(arm.delete(&path("mine")).await.status, 200);
    let points = recorder.0.lock().unwrap().clone();
    assert_eq!(points.len(), 6, "{points:?}");
    drop((attestation, installation));
    for point in 0..points.len() {
        die_at(point, 3).await;
    }
}

/// One whole life in which the control plane is dead from that point on until it is started again.
async fn die_at(point: usize, creation: usize) {
    let probe = Arc::new(DiesAt { point, passed: AtomicUsize::new(0) });
    let mut installation = Installation::stopped().await;
    installation.start_with(probe.clone()).await;
    let attestation = Attestation::start(&installation).await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let put = tokio::spawn({
        let arm = arm.clone();
        async move { arm.try_send(Method::PUT, &versioned("mine"), Some(body())).await }
    });
    if point < creation {
        restart_when_dead(&mut installation, &probe).await;
    }
    let _ = put.await.unwrap();
    let ready = || async {
        let shown = arm.get(&path("mine")).await;
        (shown.body["properties"]["status"] == "Ready").then_some(())
    };
    wait_for("the provider", ready).await;
    let view = attestation.provider(&installation, "mine").await.unwrap();
    assert_eq!(view["resource"]["id"], path("mine"), "dead at {point}");
    let delete = tokio::spawn({
        let arm = arm.clone();
        async move { arm.try_send(Method::DELETE, &versioned("mine"), None).await }
    });
    if point >= creation {
        restart_when_dead(&mut installation, &probe).await;
    }
    let _ = delete.await.unwrap();
    let gone = || async { (arm.get(&path("mine")).await.status == 404).then_some(()) };
    wait_for("the provider to go", gone).await;
    assert_eq!(attestation.provider(&installation, "mine").await, None, "dead at {point}");
}

fn versioned(name: &str) -> String {
    format!("{}?api-version=2021-06-01", path(name))
}

async fn restart_when_dead(installation: &mut Installation, probe: &DiesAt) {
    wait_for("the death", || async { probe.is_dead().then_some(()) }).await;
    installation.kill().await;
    installation.start().await;
}

#[tokio::test]
async fn the_default_provider_and_the_namespaces_are_shown() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    let base = format!("/subscriptions/{SUBSCRIPTION}/providers");
    let found = arm.get(&format!("{base}/Microsoft.Attestation/Locations/LOCAL/defaultProvider")).await;
    assert_eq!(found.body["properties"]["attestUri"], installation.config.attestation_url, "{}", found.text);
    let list = arm.get(&format!("{base}/Microsoft.Attestation/defaultProviders")).await;
    assert_eq!(list.body, json!({"value": [found.body]}));
    let nowhere = arm.get(&format!("{base}/Microsoft.Attestation/locations/mars/defaultProvider")).await;
    assert_eq!(nowhere.code(), "LocationNotAvailableForResourceType");
    let namespace = arm.get(&format!("{base}/microsoft.attestation")).await;
    assert_eq!(namespace.body["registrationState"], "Registered", "{}", namespace.text);
    let kinds = namespace.body["resourceTypes"].as_array().unwrap();
    assert_eq!(kinds[0]["apiVersions"], json!(["2021-06-01", "2020-10-01"]));
    let all = arm.get(&base).await;
    assert!(all.body["value"].as_array().unwrap().contains(&namespace.body));
    let registered = arm.post(&format!("{base}/Microsoft.Attestation/register")).await;
    assert_eq!((registered.status, registered.body), (200, namespace.body));
    assert_eq!(arm.get(&format!("{base}/Microsoft.Nothing")).await.code(), "InvalidResourceNamespace");
    let operations = arm.get("/providers/Microsoft.Attestation/operations").await;
    assert_eq!(operations.body["value"].as_array().unwrap().len(), 3, "{}", operations.text);
    let old = arm
        .send(
            Method::GET,
            &format!("{base}/Microsoft.Attestation/defaultProviders?api-version=2018-09-01"),
            None,
        )
        .await;
    assert_eq!(old.code(), "NoRegisteredProviderFound");
}
