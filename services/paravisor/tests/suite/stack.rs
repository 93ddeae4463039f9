//! The program itself with the real secure processor, attestation service and key service beside it: configuration file,
//! TLS, events, sockets, exit codes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use internal_api::launch::{LaunchDocument, sha256_hex};
use internal_api::paravisor::{ControlRequest, ControlResponse, Event, Failure, ParavisorConfig};
use public_api::attestation::EvidenceBundle;
use public_api::client::{Connection, KeyClient};
use public_api::encoding::to_base64url;
use public_api::keys::{KeyAttributes, KeyCreateParameters, KeyReleasePolicy};
use serde_json::{Value, json};
use snp::launch::PageType;
use snp::psp::{HostRequest, HostResponse};
use test_port::free_port;

use crate::lab::{Lab, VM, edit, write};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The services of one installation, in this process; they live as long as it.
struct Installation {
    folder: PathBuf,
    authority: String,
    attestation: String,
    vault: String,
    control: RsaKeyPair,
    launch_digest: [u8; 48],
}

fn installation() -> &'static Installation {
    static INSTALLATION: OnceLock<Installation> = OnceLock::new();
    INSTALLATION.get_or_init(Installation::begin)
}

impl Installation {
    fn begin() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = crate::support::lasting_folder("installation");
        let authority = certificates(&folder);
        write(&folder.join("ca.pem"), authority.as_bytes());
        let ports = [free_port(), free_port()];
        let control = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let (n, e) = (control.public_key().modulus(), control.public_key().exponent());
        let number = |bytes: &[u8]| to_base64url(bytes);
        let jwks = json!({"keys": [{
            "kid": "control", "kty": "RSA", "use": "sig", "alg": "RS256",
            "n": number(n.big_endian_without_leading_zero()), "e": number(e.big_endian_without_leading_zero()),
        }]});
        write(&folder.join("control.json"), jwks.to_string().as_bytes());
        let mut this = Self {
            authority,
            attestation: format!("https://localhost:{}", ports[0]),
            vault: format!("https://localhost:{}", ports[1]),
            control,
            launch_digest: [0; 48],
            folder,
        };
        this.start_processor();
        this.launch_digest = this.launch(b"", false).1;
        this.start_services(ports);
        this
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn start_processor(&self) {
        let config = format!(
            "state_dir = {0:?}\nruntime_dir = {1:?}\nhost_socket = {2:?}\nkds_listen = \"127.0.0.1:{3}\"",
            self.file("psp"),
            self.file(""),
            self.file("host.sock"),
            free_port()
        );
        let config: soft_psp::config::Config = toml::from_str(&config).unwrap();
        std::thread::spawn(move || soft_psp::run(&config).unwrap());
        wait_for("the secure processor", || UnixStream::connect(self.file("host.sock")).is_ok());
    }

    /// Launches a guest; its channel and launch digest. `other` firmware measures differently.
    fn launch(&self, document: &[u8], other: bool) -> (String, [u8; 48]) {
        let mut host = UnixStream::connect(self.file("host.sock")).unwrap();
        let mut ask = |request: HostRequest| {
            request.write(&mut host).unwrap();
            HostResponse::read(&mut host).unwrap()
        };
        let HostResponse::Started { context } = ask(HostRequest::LaunchStart { policy: 0x3_0000 }) else {
            panic!("launch start");
        };
        let data = vec![if other { 2 } else { 1 }; 4096];
        ask(HostRequest::LaunchUpdate { context, page_type: PageType::Normal, gpa: 0x10000, data });
        let host_data = digest(&SHA256, document).as_ref().try_into().unwrap();
        match ask(HostRequest::LaunchFinish { context, host_data, id_block: None }) {
            HostResponse::Finished { launch_digest, guest_socket } => (guest_socket, launch_digest),
            answer => panic!("{answer:?}"),
        }
    }

    fn start_services(&self, ports: [u16; 2]) {
        let attestation = json!({
            "listen": format!("127.0.0.1:{}", ports[0]),
            "issuer": self.attestation,
            "tls_certificate": self.file("tls.pem"),
            "tls_key": self.file("tls.key"),
            "data_dir": self.file("attestation"),
            "allow_development_roots": true,
            "development_root": self.file("psp/root.pem"),
            "measurement": [{"name": "test", "launch_measurement": hex::encode(self.launch_digest)}],
        });
        let keys = json!({
            "listen": format!("127.0.0.1:{}", ports[1]),
            "public_url": self.vault,
            "data_dir": self.file("keys"),
            "tls_certificate": self.file("tls.pem"),
            "tls_key": self.file("tls.key"),
            "allow_development_roots": true,
            "master_key": {"file": self.file("master.key"), "create": true},
            "callers": {
                "issuer": "https://control", "audience": self.vault, "authorization": "https://control",
                "jwks_file": self.file("control.json"),
            },
            "authority": [{
                "issuer": self.attestation,
                "jwks_url": format!("{}/certs", self.attestation),
                "ca": self.file("ca.pem"),
            }],
        });
        let attestation = serde_json::from_value(attestation).unwrap();
        let keys = serde_json::from_value(keys).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let handle = axum_server::Handle::<SocketAddr>::new();
                let (attestation, keys) =
                    tokio::join!(attestation_service::run(attestation, handle), key_service::run(keys));
                attestation.unwrap();
                keys.unwrap();
            });
        });
        for port in ports {
            wait_for("a service", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
    }

    /// A bearer token of the control plane.
    fn token(&self, role: &str) -> String {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "iss": "https://control", "aud": self.vault, "iat": now, "nbf": now, "exp": now + 3600,
            "appid": "test", "roles": [role],
        });
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": "control"});
        let signed = format!(
            "{}.{}",
            to_base64url(header.to_string().as_bytes()),
            to_base64url(claims.to_string().as_bytes())
        );
        let mut signature = vec![0; self.control.public_modulus_len()];
        self.control
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .unwrap();
        format!("{signed}.{}", to_base64url(&signature))
    }

    /// A key that is released to the VM on this development installation; its id.
    fn key(&self, name: &str) -> String {
        let policy = json!({"version": "1.0.0", "anyOf": [{"authority": self.attestation, "allOf": [
            {"claim": "x-ms-inittime.vmId", "equals": VM},
            {"claim": "x-casemate-nonce-source", "equals": "server"},
            {"claim": "x-casemate-trust-root", "equals": "development"},
        ]}]});
        let parameters = KeyCreateParameters {
            kty: "RSA-HSM".to_owned(),
            key_size: Some(3072),
            public_exponent: None,
            key_ops: vec!["wrapKey".to_owned(), "unwrapKey".to_owned()],
            attributes: Some(KeyAttributes { exportable: Some(true), ..KeyAttributes::default() }),
            tags: std::collections::BTreeMap::new(),
            release_policy: Some(KeyReleasePolicy {
                content_type: None,
                data: policy.to_string().into_bytes(),
                immutable: false,
            }),
            crv: None,
        };
        let connection = Connection::new(&self.vault, &self.authority, LIMIT).unwrap();
        let client = KeyClient(connection.with_bearer(self.token("Key Vault Crypto Officer")));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(client.create(name, &parameters)).unwrap().key.kid.unwrap()
    }

    /// A VM's files for the program.
    fn vm(&self, name: &str) -> (Lab, LaunchDocument) {
        let key = self.key(name);
        let mut lab = Lab::with(|document, _| {
            document.key_id = key;
            document.attestation_url.clone_from(&self.attestation);
            document.trust_bundle_digest = sha256_hex(self.authority.as_bytes());
        });
        write(&lab.config.trust_bundle, self.authority.as_bytes());
        write(&lab.config.release_token, self.token("Key Vault Crypto Service Release User").as_bytes());
        let document = std::fs::read(&lab.config.launch_document).unwrap();
        lab.config.secure_processor = self.launch(&document, false).0.into();
        for (socket, name) in [
            (&mut lab.config.tpm_socket, "tpm"),
            (&mut lab.config.disk_socket, "disk"),
            (&mut lab.config.config_drive_socket, "drive"),
            (&mut lab.config.control_socket, "control"),
        ] {
            *socket = lab.folder.path().join(name);
        }
        let document = lab.document.clone();
        (lab, document)
    }
}

fn certificates(folder: &Path) -> String {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    write(&folder.join("tls.pem"), leaf.pem().as_bytes());
    write(&folder.join("tls.key"), leaf_key.serialize_pem().as_bytes());
    ca.pem()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A running paravisor; killed when dropped.
struct Program {
    child: Child,
    events: BufReader<ChildStdout>,
    config: ParavisorConfig,
}

impl Program {
    fn start(lab: &Lab) -> Self {
        let file = lab.file("paravisor.toml");
        write(&file, toml::to_string(&lab.config).unwrap().as_bytes());
        let mut child = command(&file).spawn().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap());
        Self { child, events, config: lab.config.clone() }
    }

    fn event(&mut self) -> Option<Event> {
        let mut line = String::new();
        self.events.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Reads events up to readiness.
    fn ready(&mut self) -> (u64, EvidenceBundle) {
        loop {
            match self.event().expect("ready before the end") {
                Event::Ready { generation, evidence } => {
                    return (generation, serde_json::from_str(&evidence).unwrap());
                }
                Event::Refused { failure } => panic!("{failure:?}"),
                _ => {}
            }
        }
    }

    /// Reads events up to a refusal, and waits for the exit status that goes with it.
    fn refused(&mut self) -> Failure {
        loop {
            if let Event::Refused { failure } = self.event().expect("a refusal") {
                assert_eq!(self.child.wait().unwrap().code(), Some(3));
                return failure;
            }
        }
    }

    fn ask(&self, line: &str) -> ControlResponse {
        let mut control = UnixStream::connect(&self.config.control_socket).unwrap();
        control.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(control).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn request(&self, request: &ControlRequest) -> ControlResponse {
        self.ask(&serde_json::to_string(request).unwrap())
    }

    fn stop(&mut self) -> u64 {
        assert_eq!(self.request(&ControlRequest::GuestStopped), ControlResponse::Done);
        let Some(Event::Stopped { generation }) = self.event() else { panic!("stopped") };
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        generation
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-paravisor"));
    command.arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The claims of a token, unverified.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&public_api::encoding::from_base64_any(payload).unwrap()).unwrap()
}

#[test]
fn a_vm_starts_stops_and_starts_again_with_real_tokens_and_keys() {
    let installation = installation();
    let (lab, document) = installation.vm("life");
    let mut program = Program::start(&lab);
    let (generation, evidence) = program.ready();
    assert_eq!(generation, 1);
    let token = claims(&evidence.token);
    assert_eq!(token["x-casemate-trust-root"], "development");
    assert_eq!(token["x-casemate-nonce-source"], "server");
    assert_eq!(token["x-ms-inittime"]["vmId"], VM);
    assert_eq!(token["x-ms-runtime"]["guest-state"]["generation"], 1);
    assert_eq!(token["x-ms-runtime"]["boot-chain"]["entry"], "debian-6.12.115.conf");
    assert_eq!(token["x-ms-sevsnpvm-hostdata"], sha256_hex(&serde_json::to_vec(&document).unwrap()));

    let disk = format!("nbd+unix:///?socket={}", lab.config.disk_socket.display());
    let info = Command::new("nbdinfo").args(["--size", &disk]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&info.stdout).trim(), lab.config.disk_bytes.to_string());
    let drive = format!("nbd+unix:///?socket={}", lab.config.config_drive_socket.display());
    assert!(Command::new("nbdinfo").args(["--is", "read-only", &drive]).status().unwrap().success());
    UnixStream::connect(&lab.config.tpm_socket).unwrap();
    assert_eq!(program.request(&ControlRequest::Status), ControlResponse::Done);
    assert_eq!(program.request(&ControlRequest::GuestReset), ControlResponse::Done);
    assert!(
        matches!(program.ask("\"selfDestruct\""), ControlResponse::Failed(f) if f.code == "ControlRequestUnknown")
    );
    assert_eq!(program.stop(), 2);

    let mut again = Program::start(&lab);
    assert_eq!(again.ready().0, 3);
    // SIGTERM ends the process cleanly, without a new generation.
    let process = nix::unistd::Pid::from_raw(again.child.id().try_into().unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(again.child.wait().unwrap().code(), Some(0));
    // And a killed one has lost nothing either.
    let mut killed = Program::start(&lab);
    assert_eq!(killed.ready().0, 4);
    drop(killed);
    let mut last = Program::start(&lab);
    assert_eq!(last.ready().0, 5);
    assert_eq!(last.stop(), 6);
}

#[test]
fn attack_an_older_state_is_refused_by_the_real_key_service() {
    let (lab, _) = installation().vm("rollback");
    let mut first = Program::start(&lab);
    first.ready();
    first.stop();
    let old = lab.keep_copy();
    let mut second = Program::start(&lab);
    second.ready();
    second.stop();
    crate::lab::put_back(&old);
    let failure = Program::start(&lab).refused();
    assert_eq!((failure.code.as_str(), failure.transient), ("RollbackRefused", false));
}

#[test]
fn attack_firmware_without_a_reference_value_gets_no_token() {
    let installation = installation();
    let (mut lab, document) = installation.vm("firmware");
    let document = serde_json::to_vec(&document).unwrap();
    lab.config.secure_processor = installation.launch(&document, true).0.into();
    let failure = Program::start(&lab).refused();
    assert!(!failure.transient, "{failure:?}");
    assert!(failure.code.contains("Measurement"), "{failure:?}");
    assert!(!lab.config.guest_state.exists());
}

#[test]
fn attack_a_report_of_another_launch_is_refused_before_anything_is_sent() {
    let installation = installation();
    let (mut lab, _) = installation.vm("launch");
    lab.config.secure_processor = installation.launch(b"another document", false).0.into();
    assert_eq!(Program::start(&lab).refused().code, "LaunchDocumentMismatch");
}

#[test]
fn a_release_token_without_the_role_and_a_missing_service_are_told_apart() {
    let installation = installation();
    let (lab, _) = installation.vm("role");
    write(&lab.config.release_token, installation.token("Key Vault Crypto User").as_bytes());
    let failure = Program::start(&lab).refused();
    assert!(!failure.transient, "{failure:?}");
    let (mut lab, _) = installation.vm("away");
    edit(&lab.config.launch_document, |bytes| {
        let mut document: LaunchDocument = serde_json::from_slice(bytes).unwrap();
        document.attestation_url = format!("https://localhost:{}", free_port());
        *bytes = serde_json::to_vec(&document).unwrap();
    });
    let document = std::fs::read(&lab.config.launch_document).unwrap();
    lab.config.secure_processor = installation.launch(&document, false).0.into();
    let failure = Program::start(&lab).refused();
    assert_eq!((failure.code.as_str(), failure.transient), ("ServiceUnreachable", true));
}

#[test]
fn a_wrong_configuration_is_an_error_and_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("paravisor.toml");
    let lab = Lab::new();
    let good = toml::to_string(&lab.config).unwrap();
    for text in [
        "nonsense".to_owned(),
        format!("{good}\ndebug = true\n"),
        good.replace(&lab.config.disk.display().to_string(), "disk.img"),
    ] {
        write(&file, text.as_bytes());
        let mut child = command(&file).spawn().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(1), ""));
    }
    assert_eq!(command(&folder.path().join("missing")).status().unwrap().code(), Some(1));
}
