//! Encrypting, wrapping and signing with keys of every type; when each is permitted.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::{decoded, encoded};
use crate::support::vault::{Answer, NOW, USER, Vault};

async fn made(body: Value) -> Vault {
    let vault = Vault::new().await;
    vault.officer("POST", "/keys/k/create", &body).await.ok();
    vault
}

async fn call(vault: &Vault, operation: &str, body: &Value) -> Answer {
    vault.officer("POST", &format!("/keys/k/{operation}"), body).await
}

fn bad(answer: &Answer, target: &str) {
    assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, target), "{}", answer.body);
}

async fn uses(vault: &Vault, operation: &str) -> usize {
    vault.log().await.iter().filter(|entry| entry.detail["operation"] == operation).count()
}

#[tokio::test]
async fn rsa_encrypts_and_wraps_with_each_padding() {
    let vault = made(json!({"kty": "RSA"})).await;
    let kid = vault.get("/keys/k").await.ok()["key"]["kid"].clone();
    for alg in ["RSA1_5", "RSA-OAEP", "RSA-OAEP-256"] {
        for (there, back) in [("encrypt", "decrypt"), ("wrapkey", "unwrapkey")] {
            let sealed = call(&vault, there, &json!({"alg": alg, "value": encoded("secret")})).await.ok();
            assert_eq!(sealed.as_object().unwrap().len(), 2, "kid and value: {sealed}");
            assert_eq!(sealed["kid"], kid);
            let opened = call(&vault, back, &json!({"alg": alg, "value": sealed["value"]})).await.ok();
            assert_eq!(opened, json!({"kid": kid, "value": encoded("secret")}));
        }
    }
    assert_eq!((uses(&vault, "decrypt").await, uses(&vault, "unwrapkey").await), (3, 3));
    assert_eq!((uses(&vault, "encrypt").await, uses(&vault, "wrapkey").await), (0, 0), "public part only");
}

/// Whatever is wrong with a ciphertext, the answer is the same to the letter.
#[tokio::test]
async fn no_answer_tells_why_a_decryption_failed() {
    let vault = made(json!({"kty": "RSA"})).await;
    let sealed = call(&vault, "encrypt", &json!({"alg": "RSA1_5", "value": encoded("secret")})).await.ok();
    let sealed = decoded(sealed["value"].as_str().unwrap());
    let mut bodies = Vec::new();
    for alg in ["RSA1_5", "RSA-OAEP", "RSA-OAEP-256"] {
        for at in [0, 100, 255] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            bodies.push(json!({"alg": alg, "value": encoded(changed)}));
        }
        for value in [vec![], vec![0; 256], vec![0xFF; 256], sealed[1..].to_vec(), vec![1; 1000]] {
            bodies.push(json!({"alg": alg, "value": encoded(value)}));
        }
    }
    for body in bodies {
        let answer = call(&vault, "decrypt", &body).await;
        // AWS-LC answers some damaged RSA1_5 ciphertexts with an error and no other: never with what was encrypted.
        bad(&answer, "value");
        let text = "the value cannot be processed with this key and algorithm";
        assert_eq!(
            answer.body,
            json!({"error": {"code": "BadParameter", "message": text, "target": "value"}})
        );
    }
    assert_eq!(uses(&vault, "decrypt").await, 0);
}

#[tokio::test]
async fn aes_gcm_makes_its_own_nonce_and_authenticates() {
    for bits in [128, 192, 256] {
        let vault = made(json!({"kty": "oct-HSM", "key_size": bits})).await;
        let alg = format!("A{bits}GCM");
        let body = json!({"alg": alg, "value": encoded("secret"), "aad": encoded("about")});
        let sealed = call(&vault, "encrypt", &body).await.ok();
        assert_eq!(decoded(sealed["iv"].as_str().unwrap()).len(), 12);
        assert_eq!(decoded(sealed["tag"].as_str().unwrap()).len(), 16);
        assert_eq!(sealed["aad"], encoded("about"));
        assert_ne!(call(&vault, "encrypt", &body).await.ok()["iv"], sealed["iv"]);
        let mut open =
            json!({"alg": alg, "value": sealed["value"], "iv": sealed["iv"], "tag": sealed["tag"]});
        open["aad"] = sealed["aad"].clone();
        assert_eq!(call(&vault, "decrypt", &open).await.ok()["value"], encoded("secret"));
        for (member, value, target) in [
            ("aad", json!(encoded("other")), "value"),
            ("aad", json!(null), "value"),
            ("tag", json!(encoded([0; 16])), "value"),
            ("tag", json!(encoded([0; 12])), "tag"),
            ("tag", json!(null), "tag"),
            ("iv", json!(encoded([0; 12])), "value"),
            ("iv", json!(encoded([0; 16])), "iv"),
            ("iv", json!(null), "iv"),
            ("value", json!("AAAA"), "value"),
        ] {
            let mut changed = open.clone();
            changed[member] = value;
            bad(&call(&vault, "decrypt", &changed).await, target);
        }
        let mut chosen = body.clone();
        chosen["iv"] = json!(encoded([0; 12]));
        bad(&call(&vault, "encrypt", &chosen).await, "iv");
        assert_eq!(
            (uses(&vault, "encrypt").await, uses(&vault, "decrypt").await),
            (2, 1),
            "a secret was used"
        );
    }
}

#[tokio::test]
async fn aes_cbc_with_and_without_padding() {
    let vault = made(json!({"kty": "oct", "key_size": 256})).await;
    let iv = encoded([3; 16]);
    for (alg, value) in [("A256CBC", vec![5; 32]), ("A256CBCPAD", vec![5; 33]), ("A256CBCPAD", vec![])] {
        let sealed =
            call(&vault, "encrypt", &json!({"alg": alg, "value": encoded(&value), "iv": iv})).await.ok();
        assert_eq!(sealed["iv"], json!(iv));
        assert_eq!(sealed["tag"], Value::Null);
        let open = json!({"alg": alg, "value": sealed["value"], "iv": iv});
        assert_eq!(call(&vault, "decrypt", &open).await.ok()["value"], encoded(value));
    }
    let body = |alg: &str, length: usize, iv: Value| json!({"alg": alg, "value": encoded(vec![5; length]), "iv": iv});
    bad(&call(&vault, "encrypt", &body("A256CBC", 33, json!(iv))).await, "value");
    bad(&call(&vault, "encrypt", &body("A256CBC", 32, json!(null))).await, "iv");
    bad(&call(&vault, "encrypt", &body("A256CBC", 32, json!(encoded([3; 12])))).await, "iv");
    bad(&call(&vault, "decrypt", &body("A256CBCPAD", 32, json!(iv))).await, "value");
    let mut with_aad = body("A256CBC", 32, json!(iv));
    with_aad["aad"] = json!("AAAA");
    bad(&call(&vault, "encrypt", &with_aad).await, "aad");
}

#[tokio::test]
async fn aes_key_wrap_of_each_length() {
    for bits in [128, 192, 256] {
        let vault = made(json!({"kty": "oct-HSM", "key_size": bits})).await;
        let alg = format!("A{bits}KW");
        let wrapped = call(&vault, "wrapkey", &json!({"alg": alg, "value": encoded([9; 32])})).await.ok();
        assert_eq!(decoded(wrapped["value"].as_str().unwrap()).len(), 40);
        let open = json!({"alg": alg, "value": wrapped["value"]});
        assert_eq!(call(&vault, "unwrapkey", &open).await.ok()["value"], encoded([9; 32]));
        for value in [encoded([9; 40]), encoded([9; 8]), encoded([9; 41]), String::new()] {
            bad(&call(&vault, "unwrapkey", &json!({"alg": alg, "value": value})).await, "value");
        }
        bad(&call(&vault, "wrapkey", &json!({"alg": alg, "value": encoded([9; 15])})).await, "value");
    }
}

#[tokio::test]
async fn signatures_of_each_algorithm_hold_and_no_changed_one_does() {
    let rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let cases = [
        (json!({"kty": "RSA"}), &rsa[..], 256),
        (json!({"kty": "EC", "crv": "P-256"}), &["ES256"], 64),
        (json!({"kty": "EC-HSM", "crv": "P-384"}), &["ES384"], 96),
        (json!({"kty": "EC", "crv": "P-521"}), &["ES512"], 132),
        (json!({"kty": "EC-HSM", "crv": "P-256K"}), &["ES256K"], 64),
    ];
    for (key, algorithms, length) in cases {
        let vault = made(key).await;
        for alg in algorithms {
            let bytes = match &alg[2..5] {
                "256" => 32,
                "384" => 48,
                _ => 64,
            };
            let digest = encoded(vec![7; bytes]);
            let signed = call(&vault, "sign", &json!({"alg": alg, "value": digest})).await.ok();
            let signature = decoded(signed["value"].as_str().unwrap());
            assert_eq!(signature.len(), length, "{alg}");
            let verify = async |digest: &str, signature: &[u8]| {
                let body = json!({"alg": alg, "digest": digest, "value": encoded(signature)});
                call(&vault, "verify", &body).await.ok()
            };
            assert_eq!(verify(&digest, &signature).await, json!({"value": true}), "{alg}");
            assert_eq!(verify(&encoded(vec![8; bytes]), &signature).await, json!({"value": false}));
            let mut changed = signature.clone();
            changed[length / 2] ^= 1;
            for signature in [&changed[..], &signature[1..], &[]] {
                assert_eq!(verify(&digest, signature).await, json!({"value": false}));
            }
            bad(
                &call(&vault, "sign", &json!({"alg": alg, "value": encoded(vec![7; bytes + 1])})).await,
                "value",
            );
            let wrong = json!({"alg": alg, "digest": "", "value": encoded(&signature)});
            bad(&call(&vault, "verify", &wrong).await, "digest");
        }
        assert_eq!(uses(&vault, "sign").await, algorithms.len());
        assert_eq!(uses(&vault, "verify").await, 0);
    }
}

#[tokio::test]
async fn algorithms_of_other_keys_are_refused() {
    let kinds = [
        json!({"kty": "RSA"}),
        json!({"kty": "EC", "crv": "P-256", "key_ops": []}),
        json!({"kty": "oct", "key_size": 256}),
    ];
    let [rsa, ec, oct] =
        [made(kinds[0].clone()).await, made(kinds[1].clone()).await, made(kinds[2].clone()).await];
    let value = |alg: &str| json!({"alg": alg, "value": encoded([1; 32])});
    for alg in ["A256GCM", "A256KW", "rsa-oaep", "RSA-OAEP-512", "", "A", "A256", "Aé6GCM"] {
        bad(&call(&rsa, "encrypt", &value(alg)).await, "alg");
        bad(&call(&rsa, "unwrapkey", &value(alg)).await, "alg");
    }
    for alg in ["RSA-OAEP", "A128GCM", "A256KW", "A192CBC", "A256", "A512GCM"] {
        bad(&call(&oct, "encrypt", &value(alg)).await, "alg");
    }
    for alg in ["A256GCM", "A256CBC", "A128KW", "RSA1_5"] {
        bad(&call(&oct, "wrapkey", &value(alg)).await, "alg");
    }
    for alg in ["RS256", "ES384", "ES256K", "HS256", "RSNULL", "es256"] {
        bad(&call(&ec, "sign", &value(alg)).await, "alg");
    }
    for alg in ["ES256", "HS256", "RSNULL", "RS1"] {
        bad(&call(&rsa, "sign", &value(alg)).await, "alg");
    }
    let forbidden = [(&ec, "encrypt"), (&ec, "unwrapkey"), (&oct, "sign")];
    for (vault, operation) in forbidden {
        let answer = call(vault, operation, &value("RSA-OAEP")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(answer.denial()["code"], "KeyOperationForbidden");
    }
}

#[tokio::test]
async fn outside_of_its_dates_a_key_only_looks_back() {
    let vault = made(json!({"kty": "RSA", "attributes": {"nbf": NOW, "exp": NOW + 100}})).await;
    let (encrypt, digest) = (json!({"alg": "RSA-OAEP", "value": encoded("x")}), encoded([7; 32]));
    let sign = json!({"alg": "PS256", "value": digest});
    let sealed = call(&vault, "encrypt", &encrypt).await.ok()["value"].clone();
    let signed = call(&vault, "sign", &sign).await.ok()["value"].clone();
    for (now, code, claim) in
        [(NOW - 1, "KeyNotYetValid", "attributes.nbf"), (NOW + 100, "KeyExpired", "attributes.exp")]
    {
        vault.set_clock(now);
        for (operation, body) in [("encrypt", &encrypt), ("wrapkey", &encrypt), ("sign", &sign)] {
            let answer = call(&vault, operation, body).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{operation} at {now}");
            let denial = answer.denial();
            assert_eq!((&denial["code"], &denial["claim"]), (&json!(code), &json!(claim)));
            assert_eq!(vault.log().await.last().unwrap().detail["operation"], operation);
        }
        let open = json!({"alg": "RSA-OAEP", "value": sealed});
        call(&vault, "decrypt", &open).await.ok();
        call(&vault, "unwrapkey", &open).await.ok();
        let verify = json!({"alg": "PS256", "digest": digest, "value": signed});
        assert_eq!(call(&vault, "verify", &verify).await.ok()["value"], true);
    }
    vault.set_clock(NOW + 99);
    call(&vault, "sign", &sign).await.ok();
}

#[tokio::test]
async fn a_disabled_key_does_nothing_at_all() {
    let vault = made(json!({"kty": "RSA", "attributes": {"enabled": false}})).await;
    let value = json!({"alg": "RSA-OAEP", "value": "AAAA"});
    for operation in ["encrypt", "decrypt", "wrapkey", "unwrapkey", "sign"] {
        assert_eq!(call(&vault, operation, &value).await.denial()["code"], "KeyDisabled", "{operation}");
    }
    let verify = json!({"alg": "RS256", "digest": "AAAA", "value": "AAAA"});
    assert_eq!(call(&vault, "verify", &verify).await.denial()["code"], "KeyDisabled");
}

#[tokio::test]
async fn an_older_version_is_used_by_its_own_name() {
    let vault = made(json!({"kty": "oct", "key_size": 128})).await;
    let body = json!({"alg": "A128KW", "value": encoded([1; 16])});
    let wrapped = call(&vault, "wrapkey", &body).await.ok();
    vault.officer("POST", "/keys/k/create", &json!({"kty": "oct", "key_size": 128})).await.ok();
    let open = json!({"alg": "A128KW", "value": wrapped["value"]});
    bad(&call(&vault, "unwrapkey", &open).await, "value");
    let path = wrapped["kid"].as_str().unwrap().strip_prefix(crate::support::vault::BASE).unwrap();
    let token = vault.caller(&[USER]);
    let answer = vault.send("POST", &format!("{path}/unwrapkey"), Some(&token), open.to_string()).await.ok();
    assert_eq!(answer["value"], encoded([1; 16]));
}

#[tokio::test]
async fn random_bytes_are_as_many_as_were_asked_for_and_never_the_same() {
    let vault = Vault::new().await;
    for count in [1, 32, 128] {
        let answer = vault.officer("POST", "/rng", &json!({"count": count})).await.ok();
        assert_eq!(decoded(answer["value"].as_str().unwrap()).len(), count);
    }
    let draw = async || vault.officer("POST", "/rng", &json!({"count": 32})).await.ok();
    assert_ne!(draw().await, draw().await);
    for body in [json!({"count": 0}), json!({"count": 129})] {
        bad(&vault.officer("POST", "/rng", &body).await, "count");
    }
    bad(&vault.officer("POST", "/rng", &json!({"count": -1})).await, "count");
    bad(&vault.officer("POST", "/rng", &json!({})).await, "body");
}

/// What a use has of a key is never older than what was answered before it: rows that are kept end with each change.
#[tokio::test]
async fn a_change_holds_for_the_very_next_use() {
    let vault = made(json!({"kty": "EC"})).await;
    let digest = json!({"alg": "ES256", "value": encoded([7; 32])});
    let first = call(&vault, "sign", &digest).await.ok()["kid"].clone();
    for enabled in [false, true, false, true] {
        let change = json!({"attributes": {"enabled": enabled}});
        vault.officer("PATCH", "/keys/k", &change).await.ok();
        let answer = call(&vault, "sign", &digest).await;
        assert_eq!(answer.status, if enabled { StatusCode::OK } else { StatusCode::FORBIDDEN });
    }
    let second = vault.officer("POST", "/keys/k/rotate", &Value::Null).await.ok()["key"]["kid"].clone();
    assert_ne!(first, second);
    assert_eq!(call(&vault, "sign", &digest).await.ok()["kid"], second);
    vault.officer("DELETE", "/keys/k", &Value::Null).await.ok();
    assert_eq!(call(&vault, "sign", &digest).await.status, StatusCode::NOT_FOUND);
    vault.officer("POST", "/deletedkeys/k/recover", &Value::Null).await.ok();
    assert_eq!(call(&vault, "sign", &digest).await.ok()["kid"], second);
    assert_eq!(call(&vault, "sign", &digest).await.ok()["kid"], second, "a kept row");
}
