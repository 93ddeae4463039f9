//! A table of tokens that release nothing: each is one change away from a good one, and is refused for that change and
//! nothing else, with its reason in the answer and in the log, and without effect on what comes after it.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::{
    attestation, control_plane, decoded, encoded, hs256_token, numbers, stranger, unsigned_token,
};
use crate::support::vault::{AUDIENCE, OFFICER, OTHER_VM, RELEASE_USER, VM, Vault, platform_conditions};

const KEYS: &str = "x-ms-runtime.keys";
const STATE: &str = "x-ms-runtime.guest-state";
const ROOT: &str = "x-casemate-trust-root";

/// A token, and why it is refused.
struct Case {
    what: String,
    token: String,
    code: &'static str,
    claim: String,
}

/// Collects cases that begin with good claims.
struct Table<'a> {
    vault: &'a Vault,
    cases: Vec<Case>,
}

impl Table<'_> {
    fn add(&mut self, what: impl Into<String>, token: String, code: &'static str, claim: &str) {
        self.cases.push(Case { what: what.into(), token, code, claim: claim.to_owned() });
    }

    /// A token that the attestation service signed over changed claims.
    fn claims(&mut self, what: String, change: impl Fn(&mut Value), code: &'static str, claim: &str) {
        let mut claims = self.vault.evidence(0);
        change(&mut claims);
        self.add(what, attestation().token(&claims), code, claim);
    }

    /// The same for one top-level claim.
    fn claim(&mut self, name: &str, value: Value, code: &'static str) {
        self.claims(format!("{name} is {value}"), |claims| claims[name] = value.clone(), code, name);
    }

    fn without(&mut self, name: &str, code: &'static str) {
        let change = |claims: &mut Value| drop(claims.as_object_mut().expect("an object").remove(name));
        self.claims(format!("without {name}"), change, code, name);
    }

    /// Good claims under a changed header.
    fn header(&mut self, name: &str, value: Value, code: &'static str, claim: &str) {
        let mut header = attestation().header();
        header[name] = value.clone();
        let token = attestation().token_with(&header, &self.vault.evidence(0));
        self.add(format!("header {name} is {value}"), token, code, claim);
    }
}

fn forms(table: &mut Table<'_>) {
    let good = attestation().token(&table.vault.evidence(0));
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let texts = [
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
        ("no base64", "a.b.c".to_owned()),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, as an encrypted token has", format!("{good}.e30.e30")),
        ("padding", format!("{good}=")),
        ("a space before it", format!(" {good}")),
        ("a line break behind it", format!("{good}\n")),
        ("the word Bearer before it", format!("Bearer {good}")),
        ("a header that is no object", format!("{}.{payload}.{signature}", encoded("[]"))),
        ("a header that is no JSON", format!("{}.{payload}.{signature}", encoded("{"))),
        ("a payload that is a list", format!("{header}.{}.{signature}", encoded("[]"))),
        ("a payload that is a string", format!("{header}.{}.{signature}", encoded("\"x\""))),
        ("a payload that is no JSON", format!("{header}.{}.{signature}", encoded("{\"iss\""))),
        ("a payload that is not UTF-8", format!("{header}.{}.{signature}", encoded([0xFF, 0xFE]))),
        ("the JSON serialisation of a JWS", json!({"payload": payload, "signature": signature}).to_string()),
    ];
    for (what, text) in texts {
        table.add(what, text, "TokenMalformed", "token");
    }
}

fn algorithms(table: &mut Table<'_>) {
    let claims = table.vault.evidence(0);
    table.add("no signature, alg none", unsigned_token(&claims), "TokenAlgorithmRefused", "alg");
    for alg in
        ["None", "NONE", "nOnE", "", "rs256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS512"]
    {
        table.header("alg", json!(alg), "TokenAlgorithmRefused", "alg");
    }
    let (n, _) = numbers(&attestation().key);
    let secrets = [
        ("the public key's modulus", decoded(&n)),
        ("the modulus as text", n.into_bytes()),
        ("the published JWK", attestation().jwk().to_string().into_bytes()),
        ("nothing", Vec::new()),
    ];
    for (what, secret) in secrets {
        let token = hs256_token(&secret, "attestation-1", &claims);
        table.add(format!("HS256 with {what}"), token, "TokenAlgorithmRefused", "alg");
    }
}

fn headers(table: &mut Table<'_>) {
    let claims = table.vault.evidence(0);
    table.header("kid", json!("attestation-2"), "TokenKeyUnknown", "kid");
    table.header("kid", json!("ATTESTATION-1"), "TokenKeyUnknown", "kid");
    table.header("kid", json!(""), "TokenKeyUnknown", "kid");
    table.header("kid", json!("../attestation-1"), "TokenKeyUnknown", "kid");
    table.header("crit", json!(["exp"]), "TokenExtensionRefused", "crit");
    table.header("crit", json!([]), "TokenExtensionRefused", "crit");
    let token = attestation().token_with(&json!({"alg": "RS256", "typ": "JWT"}), &claims);
    table.add("without kid", token, "ClaimMissing", "kid");
}

fn signatures(table: &mut Table<'_>) {
    let claims = table.vault.evidence(0);
    let invalid = ("TokenSignatureInvalid", "signature");
    table.add("a stranger with the issuer's key id", stranger().token(&claims), invalid.0, invalid.1);
    let mut header = stranger().header();
    header["jwk"] = stranger().jwk();
    table.add(
        "a key of its own in the header",
        stranger().token_with(&header, &claims),
        invalid.0,
        invalid.1,
    );
    header["jku"] = json!("https://evil.test/certs");
    table.add(
        "an address of keys in the header",
        stranger().token_with(&header, &claims),
        invalid.0,
        invalid.1,
    );
    header["x5c"] = json!(["AAAA"]);
    table.add("a certificate in the header", stranger().token_with(&header, &claims), invalid.0, invalid.1);
    let good = attestation().token(&claims);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let bytes = decoded(signature);
    for (what, at) in [("first", 0), ("middle", bytes.len() / 2), ("last", bytes.len() - 1)] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let token = format!("{signed}.{}", encoded(changed));
        table.add(format!("the {what} byte of the signature changed"), token, invalid.0, invalid.1);
    }
    for (what, signature) in
        [("short", bytes[1..].to_vec()), ("of zeros", vec![0; 256]), ("empty", Vec::new())]
    {
        table.add(
            format!("a signature that is {what}"),
            format!("{signed}.{}", encoded(signature)),
            invalid.0,
            invalid.1,
        );
    }
    let mut changed = claims.clone();
    changed["exp"] = json!(table.vault.now() + 99_999);
    let header = good.split('.').next().expect("a header");
    let token = format!("{header}.{}.{signature}", encoded(changed.to_string()));
    table.add("other claims under the same signature", token, invalid.0, invalid.1);
    let other = attestation().token(&table.vault.evidence(0));
    let token = format!("{signed}.{}", other.rsplit_once('.').expect("three parts").1);
    table.add("another token's signature", token, invalid.0, invalid.1);
}

fn issuers(table: &mut Table<'_>) {
    let unknown = [
        "https://attest.evil.test",
        "https://attest.casemate.test.evil.test",
        "http://attest.casemate.test",
        "https://ATTEST.casemate.test",
        "https://attest.casemate.test//",
        "https://attest.casemate.test/certs",
        "attest.casemate.test",
        "",
    ];
    for issuer in unknown {
        table.claim("iss", json!(issuer), "TokenIssuerUnknown");
    }
    table.claim("iss", json!(7), "ClaimMissing");
    table.claim("iss", json!(["https://attest.casemate.test"]), "ClaimMissing");
    table.without("iss", "ClaimMissing");
    let token = control_plane().token(&table.vault.caller_claims(&[OFFICER]));
    table.add("a caller's own bearer token", token, "TokenIssuerUnknown", "iss");
    let token = control_plane().token(&table.vault.evidence(0));
    table.add("evidence that the control plane signed", token, "TokenKeyUnknown", "kid");
}

fn times(table: &mut Table<'_>) {
    let now = table.vault.now();
    for (name, at, code) in [
        ("exp", now, "TokenExpired"),
        ("exp", now - 1, "TokenExpired"),
        ("exp", 0, "TokenExpired"),
        ("nbf", now + 61, "TokenNotYetValid"),
        ("nbf", now + 86_400, "TokenNotYetValid"),
        ("iat", now + 61, "TokenNotYetValid"),
        ("iat", now - 601, "TokenTooOld"),
        ("iat", 0, "TokenTooOld"),
    ] {
        table.claim(name, json!(at), code);
    }
    for name in ["exp", "nbf", "iat"] {
        for value in [json!("soon"), json!(null), json!(-1.5), json!(1e300), json!(true)] {
            table.claim(name, value, "TokenMalformed");
        }
    }
    table.without("exp", "ClaimMissing");
    table.without("iat", "ClaimMissing");
    for id in [json!(""), json!(7), json!(null), json!("x".repeat(257))] {
        table.claim("jti", id, "ClaimMissing");
    }
    table.without("jti", "ClaimMissing");
}

fn policies(table: &mut Table<'_>) {
    let status = "x-ms-compliance-status";
    for value in
        [json!("none"), json!("AZURE-COMPLIANT-CVM"), json!("azure-compliant-cvm "), json!(true), json!(null)]
    {
        table.claim(status, value, "ReleasePolicyNotMet");
    }
    table.claim(status, json!(["azure-compliant-cvm"]), "ReleasePolicyNotMet");
    table.without(status, "ReleasePolicyNotMet");
    let source = "x-casemate-nonce-source";
    for value in [json!("client"), json!(""), json!(["server"])] {
        table.claim(source, value, "ReleasePolicyNotMet");
    }
    table.without(source, "ReleasePolicyNotMet");
    let vm = "x-ms-inittime.vmId";
    for value in [json!(OTHER_VM), json!(VM.to_lowercase()), json!(format!("{{{VM}}}")), json!(7)] {
        let change = |claims: &mut Value| claims["x-ms-inittime"]["vmId"] = value.clone();
        table.claims(format!("{vm} is {value}"), change, "ReleasePolicyNotMet", vm);
    }
    let nested = |claims: &mut Value| {
        let inner = claims["x-ms-inittime"].take();
        claims["x-ms-isolation-tee"] = json!({"x-ms-inittime": inner});
    };
    table.claims("the VM's id in another place".to_owned(), nested, "ReleasePolicyNotMet", vm);
    let dotted = |claims: &mut Value| {
        let inner = claims["x-ms-inittime"]["vmId"].take();
        claims["x-ms-inittime.vmId"] = inner;
    };
    table.claims("the VM's id under a name with a dot".to_owned(), dotted, "ReleasePolicyNotMet", vm);
    table.claim(ROOT, json!("amd"), "ReleasePolicyNotMet");
    for root in ["", "AMD", "Development", "intel", "development "] {
        table.claim(ROOT, json!(root), "TrustRootUnknown");
    }
    table.claim(ROOT, json!(["development"]), "ClaimMissing");
    table.without(ROOT, "ClaimMissing");
}

fn wrap_keys(table: &mut Table<'_>) {
    type Change = fn(&mut Value);

    let changes: [(&str, Change); 9] = [
        ("no runtime claims", |claims| drop(claims["x-ms-runtime"].take())),
        ("no list of keys", |claims| drop(claims["x-ms-runtime"]["keys"].take())),
        ("an empty list of keys", |claims| claims["x-ms-runtime"]["keys"] = json!([])),
        ("keys that are no list", |claims| {
            claims["x-ms-runtime"]["keys"] = claims["x-ms-runtime"]["keys"][0].take();
        }),
        ("a key that only verifies", |claims| {
            claims["x-ms-runtime"]["keys"][0]["key_ops"] = json!(["verify"]);
        }),
        ("a key for signatures", |claims| {
            let key = &mut claims["x-ms-runtime"]["keys"][0];
            (key["key_ops"], key["use"]) = (json!([]), json!("sig"));
        }),
        ("a key without an id", |claims| drop(claims["x-ms-runtime"]["keys"][0]["kid"].take())),
        ("a key with an empty id", |claims| claims["x-ms-runtime"]["keys"][0]["kid"] = json!("")),
        ("a key in the inner claims only", |claims| {
            let runtime = claims["x-ms-runtime"].take();
            claims["x-ms-isolation-tee"] = json!({"x-ms-runtime": runtime});
        }),
    ];
    for (what, change) in changes {
        table.claims(what.to_owned(), change, "WrapKeyMissing", KEYS);
    }

    for (member, value) in [
        ("kty", json!("EC")),
        ("kty", json!("oct")),
        ("kty", json!("RSA-HSM")),
        ("n", json!("!")),
        ("n", json!("")),
        ("n", json!(null)),
        ("e", json!("AQ")),
        ("e", json!("AA")),
        ("e", json!("Ag")),
        ("e", json!(null)),
    ] {
        let change = |claims: &mut Value| claims["x-ms-runtime"]["keys"][0][member] = value.clone();
        table.claims(format!("a wrapping key whose {member} is {value}"), change, "WrapKeyMissing", KEYS);
    }
    for (what, number) in [
        ("512", vec![0xC1; 64]),
        ("1024", vec![0xC1; 128]),
        ("2047", [vec![0x41], vec![0xC1; 255]].concat()),
        ("1024, with zeros before them", [vec![0; 128], vec![0xC1; 128]].concat()),
        ("8200", vec![0xC1; 1025]),
    ] {
        let change = |claims: &mut Value| claims["x-ms-runtime"]["keys"][0]["n"] = json!(encoded(&number));
        table.claims(format!("a wrapping key of {what} bits"), change, "WrapKeyTooSmall", KEYS);
    }
}

fn guest_states(table: &mut Table<'_>) {
    let state =
        |value: Value| move |claims: &mut Value| claims["x-ms-runtime"]["guest-state"] = value.clone();
    for value in [
        json!(null),
        json!("state"),
        json!([]),
        json!({}),
        json!({"vm-id": VM}),
        json!({"generation": 0}),
        json!({"vm-id": VM, "generation": -1}),
        json!({"vm-id": VM, "generation": "0"}),
        json!({"vm-id": VM, "generation": 0.5}),
        json!({"vm-id": "me", "generation": 0}),
        json!({"vm-id": VM, "generation": 0, "and": 1}),
    ] {
        table.claims(format!("a guest state that is {value}"), state(value), "ClaimMalformed", STATE);
    }
    let other = state(json!({"vm-id": OTHER_VM, "generation": 0}));
    let claim = "x-ms-runtime.guest-state.vm-id";
    table.claims("another VM's guest state".to_owned(), other, "GuestStateOfAnotherVm", claim);
    let claim = "x-ms-runtime.guest-state.generation";
    for generation in [2, 3, u64::MAX] {
        let ahead = state(json!({"vm-id": VM, "generation": generation}));
        table.claims(format!("generation {generation}, of none before"), ahead, "GenerationAhead", claim);
    }
}

/// Presents one and expects its reason.
async fn refused(vault: &Vault, case: &Case) -> String {
    let answer = vault.release("/keys/platform/release", &case.token).await;
    let what = &case.what;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}: {}", answer.body);
    let denial = answer.denial();
    assert_eq!(
        (&denial["code"], &denial["claim"]),
        (&json!(case.code), &json!(case.claim)),
        "{what}: {denial}"
    );
    for part in ["expected", "actual", "rule", "remedy"] {
        assert!(!denial[part].as_str().expect("a text").is_empty(), "{what}: {part}");
    }
    denial.to_string()
}

#[tokio::test]
async fn each_of_the_tokens_in_the_table_is_refused_for_its_own_reason() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let mut table = Table { vault: &vault, cases: Vec::new() };
    let parts = [forms, algorithms, headers, signatures, issuers, times, policies, wrap_keys, guest_states];
    parts.into_iter().for_each(|part| part(&mut table));
    let cases = table.cases;
    let names: BTreeSet<&str> = cases.iter().map(|case| case.what.as_str()).collect();
    let tokens: BTreeSet<&str> = cases.iter().map(|case| case.token.as_str()).collect();
    assert!(names.len() == cases.len() && tokens.len() == cases.len(), "no case stands there twice");
    assert!(cases.len() >= 120, "{} cases", cases.len());
    let mut denials = Vec::new();
    for case in &cases {
        denials.push(refused(&vault, case).await);
    }
    let mut logged = Vec::new();
    let mut after = 1;
    while logged.len() < cases.len() {
        let page = vault.get(&format!("/log?after={after}")).await.ok();
        let page = page.as_array().expect("a list").clone();
        after += page.len();
        assert!(!page.is_empty(), "one entry for each");
        logged.extend(page.iter().map(|entry| entry["denial"].to_string()));
    }
    assert_eq!(logged, denials, "the log says what the answers said, once for each");
    // None of it had an effect: the good token of the first generation still works, once.
    let good = attestation().token(&vault.evidence(0));
    vault.release("/keys/platform/release", &good).await.ok();
    let replayed = Case { what: "replayed".into(), token: good, code: "TokenReplayed", claim: "jti".into() };
    refused(&vault, &replayed).await;
}

/// Generations that fit once do not fit for ever.
#[tokio::test]
async fn generations_before_and_far_behind_the_last_one() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    for generation in 0..=5 {
        let token = attestation().token(&vault.evidence(generation));
        vault.release("/keys/platform/release", &token).await.ok();
    }
    let claim = "x-ms-runtime.guest-state.generation".to_owned();
    for (generation, code) in [
        (0, "RollbackRefused"),
        (4, "RollbackRefused"),
        (7, "GenerationAhead"),
        (u64::MAX, "GenerationAhead"),
    ] {
        let token = attestation().token(&vault.evidence(generation));
        let case = Case { what: format!("generation {generation}"), token, code, claim: claim.clone() };
        refused(&vault, &case).await;
    }
    let mut claims = vault.evidence(0);
    claims["x-ms-runtime"].as_object_mut().unwrap().remove("guest-state");
    let token = attestation().token(&claims);
    let claim = STATE.to_owned();
    refused(&vault, &Case { what: "no state".into(), token, code: "GuestStateMissing", claim }).await;
}

/// The caller's token beside perfect evidence: the vault is not asked by whom it does not know.
#[tokio::test]
async fn bearer_tokens_for_another_audience_time_or_role() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let (good, now) = (vault.caller_claims(&[RELEASE_USER]), vault.now());
    let cases = [
        ("aud", json!("https://management.casemate.test"), 401, "TokenAudienceWrong"),
        ("aud", json!("https://vault.casemate.test.evil.test"), 401, "TokenAudienceWrong"),
        ("aud", json!([]), 401, "TokenAudienceWrong"),
        ("aud", json!(null), 401, "TokenAudienceWrong"),
        ("iss", json!("https://attest.casemate.test"), 401, "TokenIssuerUnknown"),
        ("exp", json!(now), 401, "TokenExpired"),
        ("nbf", json!(now + 3600), 401, "TokenNotYetValid"),
        ("roles", json!([]), 403, "RoleMissing"),
        ("roles", json!([OFFICER]), 403, "RoleMissing"),
        ("roles", json!([RELEASE_USER.to_lowercase()]), 403, "RoleMissing"),
    ];
    for (claim, value, status, code) in cases {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        let body = json!({"target": attestation().token(&vault.evidence(0))}).to_string();
        let token = control_plane().token(&claims);
        let answer = vault.send("POST", "/keys/platform/release", Some(&token), body).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.denial()["code"]),
            (status, &json!(code)),
            "{claim} {value}"
        );
    }
    assert!(good["aud"] == AUDIENCE);
}
