//! Every route of the table, without a token, with a broken one, with another tenant's, and with too little access.

use std::collections::BTreeSet;

use control_plane::config::Access;
use control_plane::http::routes::{Guard, ROUTES, Route};
use expect_test::expect;
use reqwest::Method;

use crate::installation::{
    CLIENT, Installation, OTHER_SUBSCRIPTION, OTHER_TENANT, READER, SECOND_SUBSCRIPTION, STRANGER,
    SUBSCRIPTION, TENANT,
};

/// A URL for a route, in a subscription; its other names need not exist, because nobody may get that far.
fn url(route: &Route, subscription: &str) -> String {
    let path = route.path.replace("{sub}", subscription).replace("{type}", "virtualNetworks");
    let path: Vec<String> = path
        .split('/')
        .map(|part| if part.starts_with('{') { "some-name".to_owned() } else { part.to_owned() })
        .collect();
    format!("{}?api-version=2026-04-01", path.join("/"))
}

fn method(route: &Route) -> Method {
    Method::from_bytes(route.method.as_bytes()).unwrap()
}

fn guarded(wanted: impl Fn(Guard) -> bool) -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(move |route| wanted(route.guard))
}

/// The routes that these cases do not cover. Each stands here for a reason; the list may only shrink.
#[test]
fn the_routes_that_need_no_token_are_these() {
    let open: Vec<String> = guarded(|guard| guard == Guard::Open)
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    expect![[r#"
        GET /health
        GET /metadata/endpoints
        GET /common/discovery/keys
        GET /{tenant}/v2.0/.well-known/openid-configuration
        GET /{tenant}/.well-known/openid-configuration
        POST /{tenant}/oauth2/v2.0/token
        POST /{tenant}/oauth2/token
        GET /serial-logs/{vm}"#]]
    .assert_eq(&open.join("\n"));
    let distinct: BTreeSet<String> =
        ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(distinct.len(), ROUTES.len(), "no route stands twice");
    for route in ROUTES {
        let writes = !matches!(route.method, "GET" | "HEAD");
        let allowed = match route.guard {
            Guard::Subscription(access) => writes == (access == Access::Write),
            Guard::SignedIn => !writes,
            Guard::Open => true,
        };
        assert!(
            allowed,
            "{} {}: what changes something needs the access to change",
            route.method, route.path
        );
    }
}

#[tokio::test]
async fn without_a_token_or_with_a_broken_one_no_guarded_route_answers() {
    let installation = Installation::new().await;
    let good = installation.token(TENANT, CLIENT).await;
    let mut tampered = good.clone();
    tampered.replace_range(good.len() - 8..good.len() - 4, "AAAA");
    for route in guarded(|guard| guard != Guard::Open) {
        for token in [None, Some("nonsense".to_owned()), Some(tampered.clone()), Some(String::new())] {
            let answer =
                installation.bare(token.clone()).send(method(route), &url(route, SUBSCRIPTION), None).await;
            assert_eq!(answer.status, 401, "{} {} with {token:?}", route.method, route.path);
            assert!(answer.header("www-authenticate").starts_with("Bearer authorization_uri=\"https://"));
        }
    }
}

#[tokio::test]
async fn another_tenants_token_does_not_even_learn_that_the_subscription_exists() {
    let installation = Installation::new().await;
    let stranger = installation.arm_as(OTHER_TENANT, STRANGER).await;
    for route in guarded(|guard| matches!(guard, Guard::Subscription(_))) {
        let real = stranger.send(method(route), &url(route, SUBSCRIPTION), None).await;
        let invented =
            stranger.send(method(route), &url(route, "99999999-0000-0000-0000-000000000000"), None).await;
        assert_eq!(real.status, 404, "{} {}", route.method, route.path);
        if route.method != "HEAD" {
            assert_eq!(real.code(), "SubscriptionNotFound", "{} {}", route.method, route.path);
            let same = invented.text.replace("99999999-0000-0000-0000-000000000000", SUBSCRIPTION);
            assert_eq!(real.text, same);
        }
    }
    for (path, own) in [("/subscriptions", OTHER_SUBSCRIPTION), ("/tenants", OTHER_TENANT)] {
        let list = stranger.get(path).await;
        assert_eq!(list.body["value"].as_array().unwrap().len(), 1, "{path}");
        assert!(list.text.contains(own) && !list.text.contains(TENANT), "{path}");
    }
}

#[tokio::test]
async fn a_token_of_the_right_tenant_still_needs_the_subscription_and_the_access() {
    let installation = Installation::new().await;
    let client = installation.arm_as(TENANT, CLIENT).await;
    let reader = installation.arm_as(TENANT, READER).await;
    for route in guarded(|guard| matches!(guard, Guard::Subscription(_))) {
        let answer = client.send(method(route), &url(route, SECOND_SUBSCRIPTION), None).await;
        assert_eq!(answer.status, 403, "{} {}", route.method, route.path);
        let answer = reader.send(method(route), &url(route, SUBSCRIPTION), None).await;
        let refused = answer.status == 403;
        assert_eq!(
            refused,
            route.guard == Guard::Subscription(Access::Write),
            "{} {}",
            route.method,
            route.path
        );
    }
}

#[tokio::test]
async fn unknown_paths_are_told_to_callers_only() {
    let installation = Installation::new().await;
    let nobody = installation.bare(None);
    let arm = installation.arm().await;
    let path = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Nothing/things");
    assert_eq!(nobody.get(&path).await.status, 401);
    let unknown = arm.get(&path).await;
    assert_eq!((unknown.status, unknown.code()), (404, "InvalidResourceType"));
    let wrong = arm.delete(&format!("/subscriptions/{SUBSCRIPTION}")).await;
    assert_eq!((wrong.status, wrong.code()), (405, "MethodNotAllowed"));
    assert_eq!(nobody.get("/nothing").await.status, 404);
}
