//! A token that is not there, is another, lacks a mechanism, or hangs.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use key_service::app::StartError;
use rustix::fs::{FlockOperation, fcntl_lock};
use serde_json::{Value, json};

use super::token;
use crate::binary::{Service, caller, start};
use crate::support::issuer::{attestation, encoded};
use crate::support::jwk;
use crate::support::softhsm::{with_token, with_token_as};
use crate::support::vault::{Folder, OFFICER, Vault, platform_conditions};

/// Why a vault with this change of its configuration does not open, with its causes.
async fn refused(folder: &Folder, change: impl Fn(String) -> String) -> String {
    let config = folder.config(change).unwrap();
    let opened = key_service::app::AppState::open(&config, std::sync::Arc::new(|| 0)).await;
    let error = opened.err().expect("it does not open");
    assert!(matches!(error, StartError::Hsm(_)), "{error}");
    key_service::chain(&error)
}

#[test]
fn a_start_without_its_token_says_what_is_missing() {
    with_token(async |tokens| {
        let folder = Folder::new();
        let text = refused(&folder, |text| text.replace("libsofthsm2.so", "other.so")).await;
        assert!(text.contains("could not load the PKCS#11 module /usr/lib/softhsm/other.so"), "{text}");
        let text = refused(&folder, |text| text.replace("\"casemate-test\"", "\"other\"")).await;
        assert!(text.contains("holds a token with label or serial number \"other\""), "{text}");
        let pin = tokens.join("pin");
        std::fs::write(&pin, "0000").unwrap();
        let text = refused(&folder, |text| text).await;
        assert!(text.contains("refused the PIN") && !text.contains("0000"), "{text}");
        std::fs::set_permissions(&pin, std::fs::Permissions::from_mode(0o644)).unwrap();
        let text = refused(&folder, |text| text).await;
        assert!(text.contains("has mode 0644"), "{text}");
        std::fs::remove_file(&pin).unwrap();
        let text = refused(&folder, |text| text).await;
        assert!(text.contains("could not read the PIN file"), "{text}");
    });
}

#[test]
fn what_a_token_cannot_do_is_refused_by_the_mechanisms_name() {
    // SoftHSM2 2.6.1 passes over the first name of such a list.
    let softhsm = "slots.mechanisms = -CKM_MD5,CKM_RSA_X_509,CKM_ECDSA,CKM_RSA_PKCS_PSS,CKM_AES_KEY_WRAP_PAD";
    with_token_as((softhsm, "all_keys = true"), async |_| {
        let vault = Vault::new().await;
        let named = |answer: &crate::support::vault::Answer, mechanism: &str| {
            assert_eq!(
                (answer.status.as_u16(), answer.code()),
                (400, "HsmMechanismMissing"),
                "{}",
                answer.body
            );
            assert_eq!(answer.denial()["claim"], mechanism, "{}", answer.body);
        };
        vault.exportable("r", platform_conditions()).await;
        let token = attestation().token(&vault.evidence(0));
        named(&vault.release("/keys/r/release", &token).await, "CKM_AES_KEY_WRAP_PAD");
        let wrap = json!({"alg": "RSA-OAEP-256", "value": encoded("x")});
        let wrapped = vault.officer("POST", "/keys/r//wrapkey", &wrap).await.ok();
        let unwrap = json!({"alg": "RSA-OAEP-256", "value": wrapped["value"]});
        named(&vault.officer("POST", "/keys/r//unwrapkey", &unwrap).await, "CKM_RSA_PKCS_OAEP");
        let sign = json!({"alg": "PS256", "value": encoded([1; 32])});
        named(&vault.officer("POST", "/keys/r//sign", &sign).await, "CKM_RSA_PKCS_PSS");
        let sign = json!({"alg": "RS256", "value": encoded([1; 32])});
        vault.officer("POST", "/keys/r//sign", &sign).await.ok();
        vault.officer("POST", "/keys/e/create", &json!({"kty": "EC-HSM"})).await.ok();
        let sign = json!({"alg": "ES256", "value": encoded([1; 32])});
        named(&vault.officer("POST", "/keys/e//sign", &sign).await, "CKM_ECDSA");
        let import = json!({"key": jwk::ec("P-256"), "Hsm": true});
        named(&vault.officer("PUT", "/keys/i", &import).await, "CKM_AES_KEY_WRAP_PAD");
    });
}

#[test]
fn a_row_without_its_object_says_so_and_the_check_finds_it() {
    with_token(async |_| {
        let vault = Vault::new().await;
        for name in ["k", "other"] {
            vault.officer("POST", &format!("/keys/{name}/create"), &json!({"kty": "oct-HSM"})).await.ok();
        }
        let whole = check(&vault.folder);
        assert!(whole.contains("\"objects\": 2"), "{whole}");
        let session = token::session();
        let first = token::objects(&session)[0];
        session.destroy_object(first).unwrap();
        let body = json!({"alg": "A256GCM", "value": encoded("x")});
        let mut broken = Vec::new();
        for name in ["k", "other"] {
            let answer = vault.officer("POST", &format!("/keys/{name}//encrypt"), &body).await;
            if answer.status != 200 {
                assert_eq!((answer.status.as_u16(), answer.code()), (500, "HsmKeyObject"), "{}", answer.body);
                assert!(answer.denial()["remedy"].as_str().unwrap().contains("backup"));
                broken.push(name);
            }
        }
        assert_eq!(broken.len(), 1);
        let found = check(&vault.folder);
        assert!(found.contains("HsmKeyObject") && found.contains(&format!("keys/{}/", broken[0])), "{found}");
        let swept = key_service::reconcile::sweep::once(&vault.state).await.unwrap();
        assert_eq!((swept.missing.len(), swept.destroyed.len()), (1, 0));
        // Purging is what is left to do with it.
        vault.officer("DELETE", &format!("/keys/{}", broken[0]), &Value::Null).await.ok();
        let purged = vault.officer("DELETE", &format!("/deletedkeys/{}", broken[0]), &Value::Null).await;
        assert_eq!(purged.status, 204);
        assert!(check(&vault.folder).contains("\"status\": \"whole\""));
    });
}

/// What `casemate-keys check` says, well or not.
fn check(folder: &Folder) -> String {
    folder.config(|text| text).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_casemate-keys"));
    let output =
        program.arg("check").arg("--config").arg(folder.dir.path().join("keys.toml")).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

async fn ask(service: &Service, path: &str, body: &Value) -> u16 {
    let request = service.client.post(format!("{}{path}?api-version=7.4", service.url));
    let request = request.bearer_auth(caller(OFFICER)).body(body.to_string());
    request.send().await.unwrap().status().as_u16()
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let mut interval = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..600 {
        interval.tick().await;
        if condition().await {
            return;
        }
    }
    panic!("{what}: waited too long");
}

/// Holds every file of the token, as another process that never lets go.
fn held(tokens: &Path, files: &mut Vec<File>) {
    for entry in std::fs::read_dir(tokens).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            held(&path, files);
        } else {
            let file = File::options().read(true).write(true).open(path).unwrap();
            fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
            files.push(file);
        }
    }
}

/// A token that hangs inside the vendor's library: its keys answer 503 in time, others go on, and it is told.
#[test]
fn a_token_that_hangs_holds_up_its_own_keys_only() {
    with_token_as(("", "timeout_seconds = 3\nsessions = 2"), async |tokens| {
        let folder = Folder::new();
        let service = start(&folder).await;
        for (name, kty) in [("h", "EC-HSM"), ("s", "EC")] {
            assert_eq!(ask(&service, &format!("/keys/{name}/create"), &json!({"kty": kty})).await, 200);
        }
        let sign = json!({"alg": "ES256", "value": encoded([7; 32])});
        until("the first signature", async || ask(&service, "/keys/h//sign", &sign).await == 200).await;
        let mut files = Vec::new();
        held(&tokens.join("tokens"), &mut files);
        for _ in 0..4 {
            assert_eq!(ask(&service, "/keys/h//sign", &sign).await, 503);
            assert_eq!(ask(&service, "/keys/s//sign", &sign).await, 200);
        }
        let url = format!("{}/health/ready", service.url);
        let ready = async || service.client.get(&url).send().await.unwrap();
        until("readiness tells it", async || ready().await.status() == 503).await;
        let body: Value = ready().await.json().await.unwrap();
        let hsm = body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "hsm").unwrap();
        assert_eq!(hsm["status"], "fail", "{body}");
        drop(files);
        until("it comes back", async || ask(&service, "/keys/h//sign", &sign).await == 200).await;
    });
}

#[test]
fn a_token_that_is_removed_fails_its_own_keys_only() {
    with_token_as(("", "timeout_seconds = 20"), async |tokens| {
        let vault = Vault::new().await;
        for (name, kty) in [("h", "EC-HSM"), ("s", "EC")] {
            vault.officer("POST", &format!("/keys/{name}/create"), &json!({"kty": kty})).await.ok();
        }
        let (here, away) = (tokens.join("tokens"), tokens.join("away"));
        std::fs::rename(&here, &away).unwrap();
        let sign = json!({"alg": "ES256", "value": encoded([7; 32])});
        let answer = vault.officer("POST", "/keys/h//sign", &sign).await;
        assert!(answer.status.is_server_error(), "{}", answer.body);
        vault.officer("POST", "/keys/s//sign", &sign).await.ok();
        let create = vault.officer("POST", "/keys/n/create", &json!({"kty": "EC-HSM"})).await;
        assert!(create.status.is_server_error(), "{}", create.body);
        assert_eq!(vault.get("/keys/n/").await.status, 404, "nothing is stored of a key that was not made");
        std::fs::rename(&away, &here).unwrap();
    });
}
