//! The service as a process.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attestation_service::app::provider::document::unsigned_jws;
use public_api::attestation_policy::TokenAlgorithm;
use serde_json::json;
use tempfile::TempDir;
use test_port::free_port;

use crate::support::{ADMIN_TOKEN, BUILD, OURS, sha256};

/// A running service; it ends with this value.
pub struct Server {
    child: Child,
    directory: TempDir,
    /// Where it listens.
    pub base: String,
}

impl Server {
    /// Starts it, on the given core if there is one.
    pub fn start(algorithm: TokenAlgorithm, core: Option<u32>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let base = format!("https://localhost:{port}");
        std::fs::write(directory.path().join("config.toml"), config(&directory, port, &base, algorithm))
            .expect("written");
        let program = env!("CARGO_BIN_EXE_casemate-attestation");
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &core.to_string(), program]);
                command
            }
            None => Command::new(program),
        };
        command.arg("--config").arg(directory.path().join("config.toml"));
        let child = command.env("RUST_LOG", "warn").stdin(Stdio::null()).spawn().expect("started");
        let server = Self { child, directory, base };
        server.wait();
        server
    }

    fn wait(&self) {
        let address = self.base.trim_start_matches("https://");
        let start = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the service does not start");
            std::thread::yield_now();
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// PEM of its certificate.
    pub fn certificate(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("tls.pem")).expect("read")
    }

    /// Resident memory.
    pub fn resident_mib(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    /// Sets a policy with this many rules, of which each looks at claims and the last one permits.
    pub fn set_policy(&self, rules: u32) {
        let mut text = "version=1.2; authorizationrules {\n".to_owned();
        for rule in 1..rules {
            let _ = writeln!(
                text,
                r#"[type=="x-ms-sevsnpvm-guestsvn", value=={rule}] && ![type=="x-ms-sevsnpvm-vmpl", value==0] => deny();"#
            );
        }
        text.push_str("=> permit();\n};");
        self.call("PUT", "/policies/SevSnpVm", &unsigned_jws(&text));
    }

    /// Calls it as an administrator and gives the answer, which must be a success.
    pub fn call(&self, method: &str, path: &str, body: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let method = method.parse().expect("a method");
        let request = crate::load::client(self)
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(ADMIN_TOKEN)
            .header("content-type", "application/json")
            .body(body.to_owned());
        runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            let (status, text) = (answer.status(), answer.text().await.expect("a body"));
            assert!(status.is_success(), "{path}: {status} {text}");
            text
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(directory: &TempDir, port: u16, base: &str, algorithm: TokenAlgorithm) -> String {
    let tls = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(directory.path().join("tls.pem"), tls.cert.pem()).expect("written");
    std::fs::write(directory.path().join("tls.key"), tls.signing_key.serialize_pem()).expect("written");
    let build = BUILD.config();
    let config = json!({
        "listen": format!("127.0.0.1:{port}"),
        "issuer": base,
        "tls_certificate": directory.path().join("tls.pem"),
        "tls_key": directory.path().join("tls.key"),
        "data_dir": directory.path().join("data"),
        "allow_development_roots": true,
        "development_root": OURS.root(),
        "token_algorithm": algorithm,
        // Nobody listens there: AMD's server is down.
        "kds_urls": ["http://127.0.0.1:9"],
        "administrator": [{
            "name": "bench",
            "token_sha256": hex::encode(sha256(ADMIN_TOKEN.as_bytes())),
            "roles": ["Attestation Contributor"],
        }],
        "firmware": [{
            "name": build.name, "firmware": build.firmware, "paravisor": build.paravisor,
            "vars_template": build.vars_template, "cpu_models": build.cpu_models, "vcpus": build.vcpus,
        }],
    });
    toml::to_string(&config).expect("TOML")
}
