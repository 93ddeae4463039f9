//! Release that works, checked with two implementations: AWS-LC called by the test, and the `openssl` program.

use std::fs;
use std::path::Path;
use std::process::Command;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::key_wrap::KeyWrap;
use der::Decode as _;
use serde_json::{Value, json};

use crate::support::issuer::{attestation, decoded, encoded, transfer_key};
use crate::support::jwk;
use crate::support::unwrap::{modulus, released_modulus, released_pkcs8, verified};
use crate::support::vault::{BASE, RELEASE_USER, Vault, platform_conditions, policy};

const WRAPPINGS: [(&str, &str); 3] = [
    ("CKM_RSA_AES_KEY_WRAP", "sha1"),
    ("RSA_AES_KEY_WRAP_256", "sha256"),
    ("RSA_AES_KEY_WRAP_384", "sha384"),
];

/// Releases at `path`; returns the verified header and payload.
async fn release(vault: &Vault, path: &str, body: &Value) -> (Value, Value) {
    let token = vault.caller(&[RELEASE_USER]);
    let answer = vault.send("POST", path, Some(&token), body.to_string()).await.ok();
    verified(answer["value"].as_str().unwrap())
}

#[tokio::test]
async fn a_released_key_unwraps_to_the_created_one_in_all_three_wrappings() {
    let vault = Vault::new().await;
    let created = vault.exportable("platform", platform_conditions()).await;
    for (enc, _) in WRAPPINGS {
        let token = attestation().token(&vault.evidence(0));
        let body = json!({"target": token, "enc": enc, "nonce": "from the caller"});
        let (header, payload) = release(&vault, "/keys/platform//release", &body).await;
        assert_eq!(header["typ"], "JWT");
        let request = json!({
            "api-version": "7.4", "enc": enc, "kid": created["key"]["kid"], "nonce": "from the caller"});
        assert_eq!(payload["request"], request);
        assert_eq!(payload["response"]["key"]["release_policy"], created["release_policy"]);
        assert_eq!(payload["response"]["key"]["attributes"]["exportable"], true);
        assert_eq!(modulus(&payload["response"]["key"]), modulus(&created));
        assert_eq!(released_modulus(&payload, transfer_key()), modulus(&created));
    }
}

#[tokio::test]
async fn the_wrapping_is_rsa_oaep_with_sha1_unless_asked_otherwise_and_fresh_each_time() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let mut wrapped = Vec::new();
    for _ in 0..2 {
        let body = json!({"target": attestation().token(&vault.evidence(0))});
        let (_, payload) = release(&vault, "/keys/platform/release", &body).await;
        assert_eq!(payload["request"]["enc"], "CKM_RSA_AES_KEY_WRAP");
        assert!(payload["request"].get("nonce").is_none());
        wrapped.push(payload["response"]["key"]["key"]["key_hsm"].clone());
    }
    assert_ne!(wrapped[0], wrapped[1]);
}

#[tokio::test]
async fn an_older_version_is_released_under_its_own_policy() {
    let vault = Vault::new().await;
    let first = vault.exportable("platform", platform_conditions()).await;
    let impossible = json!([{"claim": "x-casemate-trust-root", "equals": "amd"}]);
    vault.exportable("platform", impossible).await;
    let path = first["key"]["kid"].as_str().unwrap().strip_prefix(BASE).unwrap();
    let body = json!({"target": attestation().token(&vault.evidence(0))});
    let (_, payload) = release(&vault, &format!("{path}/release"), &body).await;
    assert_eq!(released_modulus(&payload, transfer_key()), modulus(&first));
    let newest = vault.release("/keys/platform/release", &attestation().token(&vault.evidence(0))).await;
    assert_eq!(newest.denial()["code"], "ReleasePolicyNotMet");
}

#[tokio::test]
async fn openssl_unwraps_the_same_private_key() {
    let vault = Vault::new().await;
    let created = vault.exportable("platform", platform_conditions()).await;
    for (enc, hash) in WRAPPINGS {
        let body = json!({"target": attestation().token(&vault.evidence(0)), "enc": enc});
        let (_, payload) = release(&vault, "/keys/platform/release", &body).await;
        let folder = tempfile::tempdir().unwrap();
        let pkcs8 = unwrapped_by_openssl(folder.path(), &payload, hash);
        assert!(pkcs8 == released_pkcs8(&payload, transfer_key()));
        fs::write(folder.path().join("released.der"), pkcs8).unwrap();
        let text = openssl(folder.path(), "rsa -in released.der -inform DER -noout -modulus -check");
        let hex = text.lines().find_map(|line| line.strip_prefix("Modulus=")).expect("a modulus");
        assert_eq!(encoded(hex::decode(hex).unwrap()), modulus(&created));
        assert!(text.contains("RSA key ok"), "{text}");
    }
}

/// Every curve and every length, under all three wrappings: what `openssl` takes out is the key that lies in the vault.
#[tokio::test]
async fn openssl_unwraps_elliptic_and_symmetric_keys() {
    let vault = Vault::new().await;
    let policy = json!({"data": policy(&platform_conditions())});
    let secret = b"a symmetric key of 32 bytes, new";
    let curves = ["P-256", "P-384", "P-521", "P-256K"].map(jwk::ec);
    let lengths = [16, 24, 32].map(|length| jwk::oct(&secret[..length]));
    for key in curves.iter().chain(&lengths) {
        let body = json!({
            "key": key, "Hsm": true, "attributes": {"exportable": true}, "release_policy": policy});
        let imported = vault.officer("PUT", "/keys/k", &body).await.ok();
        for (enc, hash) in WRAPPINGS {
            let token = attestation().token(&vault.evidence(0));
            let (_, payload) =
                release(&vault, "/keys/k/release", &json!({"target": token, "enc": enc})).await;
            let mut public = payload["response"]["key"]["key"].clone();
            public.as_object_mut().unwrap().remove("key_hsm").expect("the wrapped key");
            assert_eq!(public, imported["key"], "beside it, the key as it is shown");
            let folder = tempfile::tempdir().unwrap();
            let released = unwrapped_by_openssl(folder.path(), &payload, hash);
            match key["k"].as_str() {
                Some(k) => assert!(released == decoded(k), "the bytes themselves"),
                None => assert_eq!(public_point(folder.path(), &released), point(key)),
            }
        }
    }
}

/// The point of a JWK, uncompressed.
fn point(key: &Value) -> Vec<u8> {
    let [x, y] = ["x", "y"].map(|member| decoded(key[member].as_str().unwrap()));
    [&[4], x.as_slice(), &y].concat()
}

/// What `openssl` finds to be the public key of a private key in PKCS#8.
fn public_point(folder: &Path, pkcs8: &[u8]) -> Vec<u8> {
    use x509_cert::spki::SubjectPublicKeyInfoOwned;
    fs::write(folder.join("released.der"), pkcs8).unwrap();
    openssl(folder, "pkey -in released.der -inform DER -check -noout");
    openssl(folder, "pkey -in released.der -inform DER -pubout -outform DER -out public.der");
    let public = fs::read(folder.join("public.der")).unwrap();
    let info = SubjectPublicKeyInfoOwned::from_der(&public).unwrap();
    info.subject_public_key.as_bytes().expect("whole bytes").to_vec()
}

/// A generated key, too: a key of each kind that is made in the vault comes out whole.
#[tokio::test]
async fn generated_keys_of_every_type_are_released_and_work() {
    let vault = Vault::new().await;
    let policy = json!({"data": policy(&platform_conditions())});
    for kind in [json!({"kty": "EC-HSM", "crv": "P-384"}), json!({"kty": "oct-HSM", "key_size": 256})] {
        let mut body = kind.clone();
        body["attributes"] = json!({"exportable": true});
        body["release_policy"] = policy.clone();
        let created = vault.officer("POST", "/keys/k/create", &body).await.ok();
        let token = attestation().token(&vault.evidence(0));
        let (_, payload) = release(&vault, "/keys/k/release", &json!({"target": token})).await;
        let folder = tempfile::tempdir().unwrap();
        let released = unwrapped_by_openssl(folder.path(), &payload, "sha1");
        if kind["kty"] == "EC-HSM" {
            assert_eq!(public_point(folder.path(), &released), point(&created["key"]));
            continue;
        }
        let wrapped = vault
            .officer("POST", "/keys/k/wrapkey", &json!({"alg": "A256KW", "value": encoded([7; 32])}))
            .await
            .ok();
        let kek = aws_lc_rs::key_wrap::AesKek::new(&aws_lc_rs::key_wrap::AES_256, &released).unwrap();
        let mut buffer = [0; 40];
        let wrapped = decoded(wrapped["value"].as_str().unwrap());
        assert_eq!(KeyWrap::unwrap(kek, &wrapped, &mut buffer).unwrap(), &[7; 32]);
    }
}

/// `openssl pkeyutl` opens the first block, `openssl enc` the rest (RFC 5649).
fn unwrapped_by_openssl(folder: &Path, payload: &Value, hash: &str) -> Vec<u8> {
    let transfer: Pkcs8V1Der<'_> = transfer_key().as_der().unwrap();
    fs::write(folder.join("transfer.der"), transfer.as_ref()).unwrap();
    let wrapped = decoded(payload["response"]["key"]["key"]["key_hsm"].as_str().unwrap());
    let wrapped: Value = serde_json::from_slice(&wrapped).unwrap();
    let ciphertext = decoded(wrapped["ciphertext"].as_str().unwrap());
    fs::write(folder.join("block"), &ciphertext[..256]).unwrap();
    fs::write(folder.join("rest"), &ciphertext[256..]).unwrap();
    let options =
        format!("-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:{hash} -pkeyopt rsa_mgf1_md:{hash}");
    openssl(
        folder,
        &format!("pkeyutl -decrypt -inkey transfer.der -keyform DER {options} -in block -out kek"),
    );
    let kek = hex::encode(fs::read(folder.join("kek")).unwrap());
    openssl(folder, &format!("enc -d -id-aes256-wrap-pad -K {kek} -iv A65959A6 -in rest -out key"));
    fs::read(folder.join("key")).unwrap()
}

fn openssl(folder: &Path, arguments: &str) -> String {
    let run = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = run.expect("the openssl program is installed (Debian package openssl)");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
