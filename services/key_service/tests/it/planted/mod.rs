//! Planted key material: imported, used, refused, released and backed up, and then looked for wherever the service
//! leaves anything.

mod core_dump;
mod keys;
mod moves;
mod needles;

use std::path::Path;

use serde_json::{Value, json};

use crate::binary::{Service, caller, start_with, unix_now};
use crate::support::issuer::{attestation, decoded, encoded, stranger};
use crate::support::vault::{Folder, OFFICER, RELEASE_USER, USER, evidence_at};
use keys::{Planted, planted};
use needles::Needles;

/// A service that says all it can into `log`, and everything that it ever answered.
struct Scene {
    folder: Folder,
    service: Service,
    answers: Vec<u8>,
    officer: String,
}

/// A request.
struct Call<'a> {
    method: &'a str,
    path: &'a str,
    token: Option<&'a str>,
    body: String,
}

impl Scene {
    async fn new() -> Self {
        let folder = Folder::new();
        let log = std::fs::File::create(folder.dir.path().join("log")).expect("the folder is writable");
        let service = start_with(&folder, |command| {
            command.env("RUST_LOG", "trace").stderr(log);
        });
        Self { service: service.await, folder, answers: Vec::new(), officer: caller(OFFICER) }
    }

    async fn call(&mut self, call: Call<'_>) -> (u16, Value) {
        let url = format!("{}{}", self.service.url, call.path);
        let mut request = self.service.client.request(call.method.parse().expect("a method"), url);
        if let Some(token) = call.token {
            request = request.bearer_auth(token);
        }
        let response = request.body(call.body).send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), format!("{:?}", response.headers()));
        let body = response.bytes().await.expect("a body");
        self.answers.extend(headers.into_bytes());
        self.answers.extend(&body);
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn officer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let path = format!("{path}?api-version=7.4");
        let token = self.officer.clone();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call(Call { method, path: &path, token: Some(&token), body }).await
    }

    async fn good(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.officer(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// Refused for the caller, for the version of the API, and for what the body says.
    async fn refusals(&mut self, planted: &Planted) {
        let path = format!("/keys/{}?api-version=7.4", planted.name);
        let good = planted.import().to_string();
        let (user, releaser, officer) = (caller(USER), caller(RELEASE_USER), self.officer.clone());
        for token in [None, Some(user.as_str()), Some(&releaser), Some("nonsense")] {
            let (status, _) = self.call(Call { method: "PUT", path: &path, token, body: good.clone() }).await;
            assert!(matches!(status, 401 | 403), "{status}");
        }
        let old = format!("/keys/{}?api-version=1.0", planted.name);
        let mut bodies = vec![(old, good.clone())];
        bodies.push((path.clone(), format!("{good}{}", " ".repeat(1 << 20))));
        bodies.extend(planted.bad_imports().into_iter().map(|body| (path.clone(), body)));
        for (path, body) in bodies {
            let call = Call { method: "PUT", path: &path, token: Some(&officer), body };
            self.call(call).await;
        }
        for (method, path, body) in planted.bad_elsewhere() {
            self.officer(method, &path, &body).await;
        }
    }

    /// Imported, used, backed up, disabled, deleted and brought back.
    async fn life(&mut self, planted: &Planted) {
        let key = format!("/keys/{}", planted.name);
        self.good("PUT", &key, &planted.import()).await;
        let used: &[(&str, Value)] = match planted.name {
            "rsa" => &[("sign", json!({"alg": "PS256", "value": encoded([7; 32])}))],
            "ec" => &[("sign", json!({"alg": "ES256", "value": encoded([7; 32])}))],
            _ => &[
                ("wrapkey", json!({"alg": "A256KW", "value": encoded([7; 32])})),
                ("encrypt", json!({"alg": "A256GCM", "value": encoded("text")})),
            ],
        };
        for (operation, body) in used {
            self.good("POST", &format!("{key}/{operation}"), body).await;
            self.officer("POST", &format!("{key}/{operation}"), &json!({"alg": "none", "value": "AA"})).await;
        }
        let backup = self.good("POST", &format!("{key}/backup"), &Value::Null).await;
        self.good("PATCH", &key, &json!({"attributes": {"enabled": false}})).await;
        for (operation, body) in used {
            assert_eq!(self.officer("POST", &format!("{key}/{operation}"), body).await.0, 403, "disabled");
        }
        assert_eq!(self.officer("POST", "/keys/restore", &backup).await.0, 409);
        self.good("DELETE", &key, &Value::Null).await;
        let deleted = format!("/deletedkeys/{}", planted.name);
        assert_eq!(self.officer("DELETE", &deleted, &Value::Null).await.0, 204);
        self.good("POST", "/keys/restore", &backup).await;
        self.answers.extend(decoded(backup["value"].as_str().expect("a backup")));
    }

    /// Released, and refused to a token of somebody else and to one that was used.
    async fn release(&mut self, planted: &Planted) {
        let name = format!("/keys/{}-x", planted.name);
        self.good("PUT", &name, &planted.exportable()).await;
        let path = format!("{name}/release?api-version=7.4");
        let claims = evidence_at(unix_now(), 0);
        let token = caller(RELEASE_USER);
        for (target, expected) in [
            (stranger().token(&claims), 403),
            (attestation().token(&claims), 200),
            (attestation().token(&claims), 403),
        ] {
            let body = json!({"target": target}).to_string();
            let call = Call { method: "POST", path: &path, token: Some(&token), body };
            assert_eq!(self.call(call).await.0, expected);
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn planted_keys_are_nowhere_in_the_clear() {
    let (mut scene, planted) = (Scene::new().await, planted());
    let mut needles = Needles::default();
    for key in &planted {
        key.hide_in(&mut needles);
        scene.refusals(key).await;
        scene.life(key).await;
        scene.release(key).await;
    }
    let data = scene.folder.dir.path().join("data");
    let names: Vec<_> = files(&data).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert!(
        ["keys.sqlite", "keys.sqlite-wal", "keys.sqlite-shm"]
            .iter()
            .all(|name| names.contains(&(*name).into()))
    );
    for path in files(scene.folder.dir.path()) {
        let bytes = std::fs::read(&path).expect("readable");
        assert_eq!(needles.found(&bytes), [""; 0], "{}", path.display());
    }
    assert_eq!(needles.found(&scene.answers), [""; 0], "in an answer");
    // The log says all that it can, and the answers are those of the keys: what was searched is where they would be.
    let log = std::fs::read_to_string(scene.folder.dir.path().join("log")).expect("text");
    assert!(log.contains("TRACE"), "{} bytes: {}", log.len(), log.chars().take(500).collect::<String>());
    let answers = String::from_utf8_lossy(&scene.answers);
    assert!(planted.iter().filter_map(|key| key.jwk["x"].as_str()).all(|x| answers.contains(x)));
}
