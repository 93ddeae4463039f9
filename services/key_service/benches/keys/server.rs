//! The service as a process.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use test_port::free_port;

use crate::support::issuer::control_plane;
use crate::support::vault::{AUDIENCE, BASE, CONTROL, Folder, OFFICER};

/// A running service; it ends with this value.
pub struct Server {
    child: Child,
    folder: Folder,
    /// Where it listens.
    pub base: String,
}

pub fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(now.as_secs()).expect("the clock is within its range")
}

impl Server {
    /// Starts it on an empty folder.
    pub fn start() -> Self {
        let folder = Folder::new();
        let port = free_port();
        let base = format!("https://localhost:{port}");
        let dir = folder.dir.path();
        let tls = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let text =
            folder.config_text().replace("127.0.0.1:0", &format!("127.0.0.1:{port}")).replace(BASE, &base);
        let files =
            [("tls.pem", tls.cert.pem()), ("tls.key", tls.signing_key.serialize_pem()), ("run.toml", text)];
        for (name, text) in files {
            std::fs::write(dir.join(name), text).expect("written");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-keys"));
        command.arg("--config").arg(dir.join("run.toml")).env("RUST_LOG", "warn,key_service=error");
        let child = command.stdin(Stdio::null()).spawn().expect("started");
        let server = Self { child, folder, base };
        server.wait();
        server
    }

    fn wait(&self) {
        let address = self.base.trim_start_matches("https://");
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the service does not start");
            std::thread::yield_now();
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A bearer token with this role.
    pub fn token(&self, role: &str) -> String {
        let now = unix_now();
        control_plane().token(&json!({
            "iss": CONTROL, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 3600, "appid": "bench",
            "roles": [role],
        }))
    }

    /// A client that trusts it and keeps one connection.
    pub fn client(&self) -> reqwest::Client {
        // The first call installs it; in later ones it is there.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pem = std::fs::read(self.folder.dir.path().join("tls.pem")).expect("read");
        let certificate = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        let builder = reqwest::Client::builder().tls_certs_only([certificate]).pool_max_idle_per_host(1);
        builder.http1_only().no_proxy().build().expect("a client")
    }

    /// Calls it as an officer and gives the answer, which must be a success.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let url = format!("{}{path}?api-version=7.4", self.base);
        let request = self.client().request(method.parse().expect("a method"), url);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.bearer_auth(self.token(OFFICER)).body(body);
        runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            let (status, text) = (answer.status(), answer.text().await.expect("a body"));
            assert!(status.is_success(), "{path}: {status} {text}");
            serde_json::from_str(&text).expect("JSON")
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
