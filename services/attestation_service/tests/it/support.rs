//! A secure processor that signs whatever report a test wants, and a service to show it to.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use attestation_service::app::attest::Service;
use attestation_service::config::{AdministratorConfig, Config, FirmwareConfig, UnknownChips};
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_service::Limits;
use public_api::encoding::{from_base64_any, to_base64url};
use serde_json::{Value, json};
use snp::launch::{CpuModel, LaunchPlan, paravisor_page};
use snp::report::{FirmwareVersion, put_signature};
use snp::{GuestPolicy, PlatformInfo, Product, Report, SigningKey, TcbVersion};
use soft_psp::authority::Authority;
use soft_psp::config::Identity;
use tempfile::TempDir;
use tower::ServiceExt as _;

pub const ISSUER: &str = "https://attest.example";
pub const LOG_TOKEN: &str = "let me read";
pub const ADMIN_TOKEN: &str = "let me change";
pub const VM_ID: &str = "0B5E7F6C-2C8D-4C4A-9C62-0F0A8B4C7D11";
pub const TCB: TcbVersion =
    TcbVersion { fmc: None, boot_loader: 4, tee: 0, snp: 24, microcode: 219, reserved: [0; 4] };

/// A machine with a secure processor.
pub struct Machine {
    pub authority: Authority,
    directory: TempDir,
}

/// The machine whose root the tests' services trust.
pub static OURS: LazyLock<Machine> = LazyLock::new(Machine::new);
/// The same with another root.
pub static STRANGERS: LazyLock<Machine> = LazyLock::new(Machine::new);

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority =
            Authority::open(directory.path(), &Identity { product: Product::Milan, tcb: TCB, chip_id: None });
        Self { authority: authority.expect("a root of trust"), directory }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root.pem")
    }

    pub fn chain(&self) -> String {
        self.authority.full_chain_pem()
    }

    pub fn sign(&self, report: &Report) -> Vec<u8> {
        let mut raw = report.encode();
        let (r, s) = self.authority.sign(&raw[..snp::report::SIGNED_SIZE]).expect("signed");
        put_signature(&mut raw, &r, &s);
        raw.to_vec()
    }
}

/// The files of a firmware build.
pub struct Build {
    directory: TempDir,
}

pub static BUILD: LazyLock<Build> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("firmware"), vec![7; 8192]).expect("written");
    std::fs::write(directory.path().join("paravisor"), b"a paravisor").expect("written");
    std::fs::write(directory.path().join("vars"), b"variables").expect("written");
    Build { directory }
});

impl Build {
    pub fn config(&self) -> FirmwareConfig {
        let path = |name: &str| self.directory.path().join(name);
        FirmwareConfig {
            name: "ovmf-test/paravisor-test".to_owned(),
            firmware: path("firmware"),
            paravisor: path("paravisor"),
            vars_template: path("vars"),
            cpu_models: vec!["EPYC-Milan".to_owned(), "EPYC-v4".to_owned()],
            until: None,
            vcpus: vec![1, 2, 4],
            guest_features: 1,
        }
    }

    /// The launch digest, computed on its own way: from a plan for exactly this VM.
    pub fn measurement(&self, cpu: &str, vcpus: u32, paravisor: Option<&[u8]>) -> [u8; 48] {
        let firmware = std::fs::read(self.directory.path().join("firmware")).expect("read");
        let sha384 = |bytes: &[u8]| {
            let hash = digest(&aws_lc_rs::digest::SHA384, bytes);
            <[u8; 48]>::try_from(hash.as_ref()).expect("48 bytes")
        };
        let page = paravisor.map(|paravisor| paravisor_page(&sha384(paravisor), &sha384(b"variables")));
        let cpu: CpuModel = cpu.parse().expect("a model");
        let plan = LaunchPlan {
            firmware: &firmware,
            vcpus,
            cpu,
            guest_features: 1,
            kernel_hashes: None,
            paravisor_page: page,
        };
        plan.digest().expect("measured").0
    }
}

/// What a VM presents. Every field is public: a test changes what its attack changes.
pub struct Attempt {
    pub machine: &'static Machine,
    pub report: Report,
    pub chain: String,
    pub runtime: Value,
    pub init_time: Value,
    pub nonce: Option<Value>,
}

impl Attempt {
    /// Evidence with which nothing is wrong.
    pub fn honest() -> Self {
        let runtime = json!({"keys": [], "vm-configuration": {"secure-boot": true}});
        let init_time = json!({"version": 1, "vmId": VM_ID});
        let mut attempt = Self {
            machine: &OURS,
            report: report(&OURS),
            chain: OURS.chain(),
            runtime,
            init_time,
            nonce: None,
        };
        attempt.bind();
        attempt
    }

    /// The honest evidence of another machine.
    pub fn of(machine: &'static Machine) -> Self {
        let honest = Self::honest();
        let report = Report { chip_id: machine.authority.chip_id(), ..honest.report };
        Self { machine, chain: machine.chain(), report, ..honest }
    }

    /// The honest evidence with one thing changed in the report before it is signed.
    pub fn with(change: impl FnOnce(&mut Report)) -> Self {
        let mut attempt = Self::honest();
        change(&mut attempt.report);
        attempt
    }

    /// Honest evidence with a nonce in the request and in the runtime data.
    pub fn with_nonce(nonce: &str) -> Self {
        let mut attempt = Self::honest();
        attempt.nonce = Some(json!(nonce));
        attempt.runtime["nonce"] = json!(nonce);
        attempt.bind();
        attempt
    }

    /// Puts the hashes of the attached data into the report.
    pub fn bind(&mut self) {
        self.report.report_data = [0; 64];
        self.report.report_data[..32].copy_from_slice(&sha256(self.runtime.to_string().as_bytes()));
        self.report.host_data = sha256(self.init_time.to_string().as_bytes());
    }

    pub fn body(&self) -> Value {
        self.body_with_report(&self.machine.sign(&self.report))
    }

    pub fn body_with_report(&self, report: &[u8]) -> Value {
        let evidence = json!({
            "SnpReport": to_base64url(report),
            "VcekCertChain": to_base64url(self.chain.as_bytes()),
        });
        let attached =
            |data: &Value| json!({"data": to_base64url(data.to_string().as_bytes()), "dataType": "JSON"});
        let mut body = json!({
            "report": to_base64url(evidence.to_string().as_bytes()),
            "runtimeData": attached(&self.runtime),
            "initTimeData": attached(&self.init_time),
        });
        if let Some(nonce) = &self.nonce {
            body["nonce"] = nonce.clone();
        }
        body
    }
}

fn report(machine: &Machine) -> Report {
    let tcb = machine.authority.tcb_bytes();
    let version = FirmwareVersion { major: 1, minor: 55, build: 40 };
    Report {
        version: 3,
        guest_svn: 0,
        policy: GuestPolicy::casemate(),
        family_id: [0; 16],
        image_id: [0; 16],
        vmpl: 0,
        signature_algo: snp::report::ECDSA_P384_SHA384,
        current_tcb: tcb,
        platform_info: PlatformInfo(0x25),
        author_key_en: false,
        mask_chip_key: false,
        signing_key: SigningKey::Vcek,
        report_data: [0; 64],
        measurement: BUILD.measurement("EPYC-Milan", 2, Some(b"a paravisor")),
        host_data: [0; 32],
        id_key_digest: [0; 48],
        author_key_digest: [0; 48],
        report_id: [0x1d; 32],
        report_id_ma: [0xff; 32],
        reported_tcb: tcb,
        cpu: Some(Product::Milan.cpu()),
        chip_id: machine.authority.chip_id(),
        committed_tcb: tcb,
        current_version: version,
        committed_version: version,
        launch_tcb: tcb,
        launch_mit_vector: None,
        current_mit_vector: None,
    }
}

fn administrator(name: &str, token: &str, role: &str) -> AdministratorConfig {
    AdministratorConfig {
        name: name.to_owned(),
        token_sha256: hex::encode(sha256(token.as_bytes())),
        roles: vec![role.to_owned()],
    }
}

/// A service in a directory of its own.
pub struct Lab {
    pub service: Arc<Service>,
    pub config: Config,
    pub directory: TempDir,
}

impl Lab {
    /// A service that trusts [`OURS`] and knows [`BUILD`].
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            issuer: ISSUER.to_owned(),
            tls_certificate: directory.path().join("tls.pem"),
            tls_key: directory.path().join("tls.key"),
            data_dir: directory.path().join("data"),
            allow_development_roots: true,
            development_root: Some({
                LazyLock::force(&OURS);
                OURS.root()
            }),
            crl_files: Vec::new(),
            vlek_crl_files: Vec::new(),
            crl_urls: Vec::new(),
            crl_required: false,
            crl_max_age: None,
            kds_urls: Vec::new(),
            kds_timeout_ms: 10_000,
            minimum_tcb_signers: Vec::new(),
            minimum_tcb_table: None,
            reference_signers: Vec::new(),
            callers: None,
            administrator: vec![
                administrator("reader", LOG_TOKEN, "Attestation Reader"),
                administrator("contributor", ADMIN_TOKEN, "Attestation Contributor"),
            ],
            token_algorithm: Default::default(),
            firmware: vec![BUILD.config()],
            measurement: Vec::new(),
            minimum_tcb: Default::default(),
            limits: Limits::unlimited(),
            unknown_chips: UnknownChips { per_minute_and_address: 0, per_minute: 0 },
            telemetry: Default::default(),
        };
        change(&mut config);
        let service = attestation_service::service(&config).await.expect("the service starts");
        Self { service: Arc::new(service), config, directory }
    }

    /// The same service after a restart.
    pub async fn restarted(self) -> Self {
        let Self { service, config, directory } = self;
        drop(service);
        let service = attestation_service::service(&config).await.expect("the service starts again");
        Self { service: Arc::new(service), config, directory }
    }

    pub async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = attestation_service::http::app(Arc::clone(&self.service)).oneshot(request).await;
        let response = response.expect("the router answers");
        let status = response.status();
        assert!(response.headers().contains_key("x-ms-request-id"));
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, serde_json::from_slice(&bytes).expect("every answer is JSON"))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(body.into()).expect("a request")).await
    }

    async fn call(&self, method: &str, path: &str, body: &str, token: &str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = attestation_service::http::app(Arc::clone(&self.service)).oneshot(request).await;
        let response = response.expect("the router answers");
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") })
    }

    pub async fn get_as(&self, path: &str, token: &str) -> (StatusCode, Value) {
        self.call("GET", path, "", token).await
    }

    pub async fn put(&self, path: &str, body: &str, token: &str) -> (StatusCode, Value) {
        self.call("PUT", path, body, token).await
    }

    pub async fn post_as(&self, path: &str, body: &str, token: &str) -> (StatusCode, Value) {
        self.call("POST", path, body, token).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> (StatusCode, Value) {
        self.call("DELETE", path, "", token).await
    }

    /// The claims of an answer of the policy routes, whose signature is checked.
    pub async fn verified_policy(&self, answer: &Value) -> Value {
        self.verified(answer["token"].as_str().expect("a token")).await
    }

    pub async fn attest(&self, body: &Value) -> (StatusCode, Value) {
        self.post("/attest/SevSnpVm?api-version=2022-08-01", body.to_string()).await
    }

    /// The claims of the token, whose signature is checked under `/certs`.
    pub async fn accepted(&self, body: &Value) -> Value {
        let (status, answer) = self.attest(body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        self.verified(answer["token"].as_str().expect("a token")).await
    }

    pub async fn verified(&self, token: &str) -> Value {
        let (_, certs) = self.get("/certs").await;
        let key = &certs["keys"][0];
        let key = jsonwebtoken::DecodingKey::from_rsa_components(
            key["n"].as_str().expect("n"),
            key["e"].as_str().expect("e"),
        );
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
        validation.set_issuer(&[ISSUER]);
        let token = jsonwebtoken::decode::<Value>(token, &key.expect("a key"), &validation);
        token.expect("the token verifies").claims
    }

    /// The denial, which every refusal carries together with status 400, and which the log holds.
    pub async fn denied(&self, body: &Value) -> Value {
        let (status, answer) = self.attest(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        let denial = answer["error"]["denial"].clone();
        assert!(denial.is_object(), "{answer}");
        let logged = self.service.store.entries_after(0).await.expect("the log");
        let last = logged.last().expect("an entry");
        assert_eq!(serde_json::to_value(&last.denial).expect("JSON"), denial, "the log tells the same");
        denial
    }

    pub async fn denied_with(&self, body: &Value, code: &str) -> Value {
        let denial = self.denied(body).await;
        assert_eq!(denial["code"], code, "{denial}");
        denial
    }
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

/// The payload of a JWS, unverified.
pub fn payload(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a payload");
    serde_json::from_slice(&from_base64_any(payload).expect("base64")).expect("JSON")
}

/// A denial in one line a part, with what differs from run to run taken out.
pub fn shown(denial: &Value) -> String {
    let parts = ["code", "claim", "expected", "actual", "rule", "remedy"];
    let lines: Vec<String> =
        parts.iter().map(|part| format!("{part}: {}", denial[part].as_str().expect("a text"))).collect();
    let text = lines.join("\n");
    let ids = [(&OURS, "OUR-ROOT"), (&STRANGERS, "STRANGERS-ROOT")];
    ids.iter()
        .fold(text, |text, (machine, name)| text.replace(&hex::encode(machine.authority.root_id()), name))
}
