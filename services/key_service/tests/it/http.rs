//! Who may call what, and what bad requests get.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::support::issuer::{attestation, control_plane, hs256_token, stranger, unsigned_token};
use crate::support::vault::{AUDIENCE, Answer, OFFICER, RELEASE_USER, USER, Vault, platform_conditions};

/// Every route with the roles that it takes: officer, user, release user.
const ROUTES: [(&str, &str, [bool; 3]); 44] = [
    ("GET", "/keys", [true, false, false]),
    ("POST", "/keys/k/create", [true, false, false]),
    ("GET", "/keys/k", [true, true, false]),
    ("GET", "/keys/k/", [true, true, false]),
    ("PATCH", "/keys/k", [true, false, false]),
    ("PATCH", "/keys/k/", [true, false, false]),
    ("DELETE", "/keys/k", [true, false, false]),
    ("GET", "/keys/k/v", [true, true, false]),
    ("PATCH", "/keys/k/v", [true, false, false]),
    ("GET", "/keys/k/versions", [true, false, false]),
    ("POST", "/keys/k/release", [false, false, true]),
    ("POST", "/keys/k//release", [false, false, true]),
    ("POST", "/keys/k/v/release", [false, false, true]),
    ("POST", "/keys/k/wrapkey", [true, true, false]),
    ("POST", "/keys/k//wrapkey", [true, true, false]),
    ("POST", "/keys/k/v/wrapkey", [true, true, false]),
    ("POST", "/keys/k/v/unwrapkey", [true, true, false]),
    ("POST", "/keys/k//unwrapkey", [true, true, false]),
    ("POST", "/keys/k/encrypt", [true, true, false]),
    ("POST", "/keys/k//encrypt", [true, true, false]),
    ("POST", "/keys/k/v/encrypt", [true, true, false]),
    ("POST", "/keys/k/decrypt", [true, true, false]),
    ("POST", "/keys/k//decrypt", [true, true, false]),
    ("POST", "/keys/k/v/decrypt", [true, true, false]),
    ("POST", "/keys/k/sign", [true, true, false]),
    ("POST", "/keys/k//sign", [true, true, false]),
    ("POST", "/keys/k/v/sign", [true, true, false]),
    ("POST", "/keys/k/verify", [true, true, false]),
    ("POST", "/keys/k//verify", [true, true, false]),
    ("POST", "/keys/k/v/verify", [true, true, false]),
    ("PUT", "/keys/k", [true, false, false]),
    ("POST", "/keys/k/backup", [true, false, false]),
    ("POST", "/keys/restore", [true, false, false]),
    ("POST", "/keys/k/rotate", [true, false, false]),
    ("GET", "/keys/k/rotationpolicy", [true, true, false]),
    ("PUT", "/keys/k/rotationpolicy", [true, false, false]),
    ("GET", "/keys/k/generations", [true, true, false]),
    ("PUT", "/keys/k/generations/0F5A2C3E-1111-4222-8333-444455556666", [true, false, false]),
    ("POST", "/rng", [true, true, false]),
    ("GET", "/deletedkeys", [true, false, false]),
    ("GET", "/deletedkeys/k", [true, false, false]),
    ("POST", "/deletedkeys/k/recover", [true, false, false]),
    ("DELETE", "/deletedkeys/k", [true, false, false]),
    ("GET", "/log", [true, false, false]),
];

#[tokio::test]
async fn a_request_without_a_token_gets_the_challenge_before_anything_else() {
    let vault = Vault::new().await;
    for (method, path, _) in ROUTES {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let answer = vault.raw(request).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert_eq!(
            challenge,
            format!("Bearer authorization=\"https://login.casemate.test/tenant\", resource=\"{AUDIENCE}\"")
        );
        let expected = json!({"error": {
            "code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}});
        assert_eq!(answer.body, expected);
    }
}

#[tokio::test]
async fn every_route_takes_its_roles_and_no_other() {
    let vault = Vault::new().await;
    let roles = [&[OFFICER][..], &[USER], &[RELEASE_USER]];
    for (method, path, permitted) in ROUTES {
        for (roles, permitted) in roles.iter().zip(permitted) {
            let answer = vault.send(method, path, Some(&vault.caller(roles)), String::new()).await;
            let forbidden = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(forbidden, !permitted, "{method} {path} {roles:?}: {}", answer.body);
            assert!(!forbidden || answer.denial()["code"] == "RoleMissing");
        }
        for roles in [&[][..], &["Owner", "key vault crypto officer"]] {
            let answer = vault.send(method, path, Some(&vault.caller(roles)), String::new()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path} {roles:?}");
        }
    }
}

async fn unauthorized(vault: &Vault, token: &str, code: &str) {
    let answer = vault.send("GET", "/keys", Some(token), String::new()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.body);
    assert!(answer.headers.contains_key("www-authenticate"));
    assert_eq!(answer.denial()["code"], code, "{}", answer.body);
}

#[tokio::test]
async fn a_bearer_token_that_is_not_good() {
    let vault = Vault::new().await;
    let good = vault.caller_claims(&[OFFICER]);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        control_plane().token(&claims)
    };
    let now = vault.now();
    unauthorized(&vault, "nonsense", "TokenMalformed").await;
    unauthorized(&vault, &unsigned_token(&good), "TokenAlgorithmRefused").await;
    unauthorized(&vault, &hs256_token(b"secret", "control-1", &good), "TokenAlgorithmRefused").await;
    unauthorized(&vault, &stranger().token(&good), "TokenKeyUnknown").await;
    let forged = stranger().token_with(&control_plane().header(), &good);
    unauthorized(&vault, &forged, "TokenSignatureInvalid").await;
    unauthorized(&vault, &with("iss", json!("https://evil.test")), "TokenIssuerUnknown").await;
    unauthorized(&vault, &with("aud", json!("https://management.casemate.test")), "TokenAudienceWrong").await;
    unauthorized(&vault, &with("aud", json!(null)), "TokenAudienceWrong").await;
    unauthorized(&vault, &with("exp", json!(now)), "TokenExpired").await;
    unauthorized(&vault, &with("nbf", json!(now + 3600)), "TokenNotYetValid").await;
    // An attestation token, however good, is nobody's bearer token.
    unauthorized(&vault, &attestation().token(&vault.evidence(0)), "TokenIssuerUnknown").await;
    let several = with("aud", json!(["https://other.test", format!("{AUDIENCE}/")]));
    vault.send("GET", "/keys", Some(&several), String::new()).await.ok();
}

#[tokio::test]
async fn other_schemes_are_no_token() {
    let vault = Vault::new().await;
    let token = vault.caller(&[OFFICER]);
    for header in [format!("Basic {token}"), token.clone(), "Bearer ".to_owned(), "Bearer".to_owned()] {
        let request = Request::builder().uri("/keys?api-version=7.4").header("authorization", header);
        let answer = vault.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.body["error"]["message"], "AKV10000: Request is missing a Bearer or PoP token.");
    }
}

#[tokio::test]
async fn a_refused_role_is_on_record() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let body = json!({"target": attestation().token(&vault.evidence(0))}).to_string();
    let answer = vault.send("POST", "/keys/platform/release", Some(&vault.caller(&[OFFICER])), body).await;
    assert_eq!(answer.denial()["expected"], RELEASE_USER);
    let log = vault.log().await;
    let entry = log.last().unwrap();
    assert_eq!((entry.subject.as_str(), &entry.detail["caller"]), ("keys/platform", &json!("app-1")));
    assert_eq!(serde_json::to_value(&entry.denial).unwrap(), *answer.denial());
}

async fn create(vault: &Vault, body: &str) -> Answer {
    vault.send("POST", "/keys/k/create", Some(&vault.caller(&[OFFICER])), body.to_owned()).await
}

fn told(answer: &Answer, expected: Expect) {
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.body);
    assert_eq!(answer.code(), "BadParameter");
    expected.assert_eq(&format!(
        "{}: {}",
        answer.target(),
        answer.body["error"]["message"].as_str().unwrap()
    ));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_with_the_fields_name() {
    let vault = Vault::new().await;
    let cases = [
        ("", expect!["body: EOF while parsing a value at line 1 column 0"]),
        ("{", expect!["body: EOF while parsing an object at line 1 column 1"]),
        ("{}", expect!["body: missing field `kty` at line 1 column 2"]),
        (r#"{"kty":"RSA"} x"#, expect!["body: trailing characters at line 1 column 15"]),
        (r#"{"kty":7}"#, expect!["kty: invalid type: integer `7`, expected a string at line 1 column 8"]),
        (
            r#"{"kty":"RSA","key_size":"2048"}"#,
            expect![[r#"key_size: invalid type: string "2048", expected u32 at line 1 column 30"#]],
        ),
        (
            r#"{"kty":"RSA","attributes":{"enabled":"true"}}"#,
            expect![[
                r#"attributes.enabled: invalid type: string "true", expected a boolean at line 1 column 43"#
            ]],
        ),
        (
            r#"{"kty":"RSA","release_policy":{"data":"*"}}"#,
            expect![
                "release_policy.data: not base64 (neither the standard nor the URL alphabet) at line 1 column 42"
            ],
        ),
    ];
    for (body, expected) in cases {
        told(&create(&vault, body).await, expected);
    }
}

#[tokio::test]
async fn unknown_fields_are_refused_at_every_depth() {
    let vault = Vault::new().await;
    told(
        &create(&vault, r#"{"kty":"RSA","keySize":2048}"#).await,
        expect![
            "keySize: unknown field `keySize`, expected one of `kty`, `key_size`, `public_exponent`, `key_ops`, `attributes`, `tags`, `release_policy`, `crv` at line 1 column 22"
        ],
    );
    told(
        &create(&vault, r#"{"kty":"RSA","attributes":{"exportible":true}}"#).await,
        expect![[
            r#"attributes.exportible: unknown field "exportible", expected one of enabled, nbf, exp, created, updated, recoverableDays, recoveryLevel, exportable"#
        ]],
    );
    told(
        &create(&vault, r#"{"kty":"RSA","release_policy":{"data":"e30","imutable":true}}"#).await,
        expect![[
            r#"release_policy.imutable: unknown field "imutable", expected one of contentType, data, immutable"#
        ]],
    );
}

#[tokio::test]
async fn an_oversized_body_is_refused_with_the_limit() {
    let vault = Vault::new().await;
    let body = format!(r#"{{"kty":"RSA","crv":"{}"}}"#, "x".repeat(1 << 20));
    let answer = create(&vault, &body).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge"));
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("1048576 bytes"));
    let just_fits = format!(r#"{{"kty":"RSA","crv":"{}"}}"#, "x".repeat((1 << 20) - 22));
    assert_eq!(just_fits.len(), 1 << 20);
    assert_eq!(create(&vault, &just_fits).await.target(), "crv");
}

#[tokio::test]
async fn the_api_version_is_needed_and_known() {
    let vault = Vault::new().await;
    let token = vault.caller(&[OFFICER]);
    let ask = async |query: &str| {
        let uri = format!("/keys{query}");
        let request = Request::builder().uri(uri).header("authorization", format!("Bearer {token}"));
        vault.raw(request.body(Body::empty()).unwrap()).await
    };
    for good in ["7.0", "7.4", "7.6-preview.2", "7.3-preview", "2025-07-01", "2016-10-01"] {
        ask(&format!("?api-version={good}")).await.ok();
    }
    for bad in ["", "?api-version=", "?api-version=8", "?api-version=2099-01-01", "?api-version=7.x"] {
        let answer = ask(bad).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, "api-version"), "{bad}");
    }
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist() {
    let vault = Vault::new().await;
    let answer = vault.get("/secrets").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "NotFound"));
    let answer = vault.officer("PUT", "/keys/k/versions", &Value::Null).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"));
}

#[tokio::test]
async fn answers_carry_the_vaults_headers() {
    let vault = Vault::new().await;
    let request = Request::builder().uri("/health").header("x-ms-client-request-id", "mine");
    let answer = vault.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["x-ms-client-request-id"], "mine");
    assert_eq!(answer.headers["cache-control"], "no-cache");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["x-ms-request-id"].len(), 36);
    assert_eq!(answer.body["authorities"], json!(["https://attest.casemate.test"]));
}
