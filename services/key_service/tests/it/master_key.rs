//! Where the master key comes from: each source makes it once, opens what it made, and gives no other in its place.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use key_service::app::StartError;
use serde_json::json;
use vtpm::command;

use crate::support::vault::{Folder, Vault};

/// The configuration with another `[master_key]`; `{dir}` is the folder.
fn with(table: &str) -> impl Fn(String) -> String + use<> {
    let table = table.to_owned();
    move |text: String| {
        let dir = text.split("data_dir = \"").nth(1).and_then(|rest| rest.split("/data\"").next());
        let dir = dir.expect("the configuration names the data folder").to_owned();
        let old = format!("file = \"{dir}/master.key\"\ncreate = true\n");
        assert!(text.contains(&old));
        text.replace(&old, &table.replace("{dir}", &dir))
    }
}

fn private(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn refusal(folder: &Folder, table: &str) -> String {
    let error = folder.try_open_with(&with(table)).await.err().expect("it does not start");
    let StartError::MasterKey(cause) = error else { panic!("{error}") };
    cause.to_string()
}

/// Makes a key, starts again on it, and uses the key.
async fn survives_a_start(folder: Folder, table: &str) -> Folder {
    let vault = folder.open_with(with(table)).await;
    let made = vault.officer("POST", "/keys/k/create", &json!({"kty": "oct", "key_size": 256})).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let Vault { app, state, folder } = vault;
    drop((app, state));
    let vault = folder.open_with(with(table)).await;
    let body = json!({"alg": "A256KW", "value": "AAAAAAAAAAAAAAAAAAAAAA"});
    let wrapped = vault.officer("POST", "/keys/k/wrapkey", &body).await;
    assert_eq!(wrapped.status, 200, "{}", wrapped.body);
    vault.folder
}

const PASSPHRASE: &str =
    "passphrase_file = \"{dir}/passphrase\"\nwrapped_file = \"{dir}/master.wrapped\"\ncreate = true\n";

#[tokio::test]
async fn a_passphrase_opens_the_vault_and_another_one_does_not() {
    let folder = Folder::new();
    let file = folder.dir.path().join("passphrase");
    private(&file, "a passphrase of some length\n");
    let folder = survives_a_start(folder, PASSPHRASE).await;
    private(&file, "a passphrase of some length too\n");
    let text = refusal(&folder, PASSPHRASE).await;
    assert!(text.contains("does not open") && text.contains("master.wrapped"), "{text}");
    std::fs::remove_file(folder.dir.path().join("master.wrapped")).unwrap();
    let text = refusal(&folder, PASSPHRASE).await;
    assert!(text.contains("restore that file"), "a lost key is not replaced: {text}");
}

#[tokio::test]
async fn a_passphrase_that_others_can_read_is_refused() {
    let folder = Folder::new();
    let file = folder.dir.path().join("passphrase");
    private(&file, "a passphrase of some length\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = refusal(&folder, PASSPHRASE).await;
    assert!(text.contains("mode 0644"), "{text}");
}

/// A TPM of its own, on a socket that takes commands.
struct Tpm {
    process: Child,
    socket: PathBuf,
}

impl Tpm {
    fn start(folder: &Path, name: &str) -> Self {
        let (state, socket) = (folder.join(format!("{name}-state")), folder.join("tpm.sock"));
        std::fs::create_dir_all(&state).unwrap();
        let _ = std::fs::remove_file(&socket);
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", folder.join("tpm.ctrl").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("swtpm is installed (packages.txt)");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "swtpm does not listen");
            std::thread::yield_now();
        }
        Self { process, socket }
    }

    fn extend(&self, pcr: u8) {
        use std::io::{Read as _, Write as _};
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(&command::pcr_extend(pcr, &[1; 32])).unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).unwrap();
        command::success(&answer[..length]).unwrap();
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn sealed_to_pcrs(pcrs: &str) -> String {
    format!(
        "tpm = \"{{dir}}/tpm.sock\"\nwrapped_file = \"{{dir}}/master.sealed\"\npcrs = [{pcrs}]\ncreate = true\n"
    )
}

#[tokio::test]
async fn a_tpm_opens_what_was_sealed_to_it_and_another_tpm_does_not() {
    let folder = Folder::new();
    let dir = folder.dir.path().to_owned();
    let tpm = Tpm::start(&dir, "one");
    let folder = survives_a_start(folder, &sealed_to_pcrs("")).await;
    tpm.extend(7);
    let folder = survives_again(folder, &sealed_to_pcrs("")).await;
    drop(tpm);
    let text = refusal(&folder, &sealed_to_pcrs("")).await;
    assert!(text.starts_with("could not talk to the TPM"), "{text}");
    let _other = Tpm::start(&dir, "two");
    let text = refusal(&folder, &sealed_to_pcrs("")).await;
    assert!(text.contains("sealed to another TPM"), "{text}");
}

#[tokio::test]
async fn a_machine_that_booted_otherwise_does_not_open_what_was_sealed_to_its_pcrs() {
    let folder = Folder::new();
    let dir = folder.dir.path().to_owned();
    let tpm = Tpm::start(&dir, "one");
    let folder = survives_a_start(folder, &sealed_to_pcrs("7, 4")).await;
    tpm.extend(5);
    let folder = survives_again(folder, &sealed_to_pcrs("7, 4")).await;
    tpm.extend(7);
    let text = refusal(&folder, &sealed_to_pcrs("7, 4")).await;
    assert!(text.contains("PCRs 4, 7 have other values"), "{text}");
    // The policy in the file is what the TPM's key is made from: with another one it is another key.
    let file = dir.join("master.sealed");
    let changed = std::fs::read_to_string(&file).unwrap();
    let mut sealed: serde_json::Value = serde_json::from_str(&changed).unwrap();
    let fresh = Folder::new();
    let second = Tpm::start(fresh.dir.path(), "fresh");
    let fresh = survives_a_start(fresh, &sealed_to_pcrs("7, 4")).await;
    drop(second);
    let theirs = std::fs::read(fresh.dir.path().join("master.sealed")).unwrap();
    let theirs: serde_json::Value = serde_json::from_slice(&theirs).unwrap();
    sealed["policy"] = theirs["policy"].clone();
    std::fs::write(&file, sealed.to_string()).unwrap();
    assert!(folder.try_open_with(&with(&sealed_to_pcrs("7, 4"))).await.is_err());
}

async fn survives_again(folder: Folder, table: &str) -> Folder {
    let vault = folder.open_with(with(table)).await;
    let key = vault.get("/keys/k").await;
    assert_eq!(key.status, 200, "{}", key.body);
    vault.folder
}

/// Runs the program's `master-key`.
fn moved(from: &Path, to: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_casemate-keys"))
        .args(["master-key", "--from"])
        .arg(from)
        .arg("--to")
        .arg(to)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn a_master_key_moves_from_its_file_to_a_passphrase_and_opens_the_same_vault() {
    let folder = survives_a_start(Folder::new(), "file = \"{dir}/master.key\"\ncreate = true\n").await;
    let dir = folder.dir.path().to_owned();
    private(&dir.join("passphrase"), "a passphrase of some length\n");
    let (from, to) = (dir.join("from.toml"), dir.join("to.toml"));
    std::fs::write(&from, folder.config_text()).unwrap();
    std::fs::write(&to, with(PASSPHRASE)(folder.config_text())).unwrap();
    let (done, text) = moved(&from, &to);
    assert!(done && text.contains("masterKeyId"), "{text}");
    let (done, text) = moved(&from, &to);
    assert!(!done && text.contains("master.wrapped"), "nothing is overwritten: {text}");
    std::fs::remove_file(dir.join("master.key")).unwrap();
    survives_again(folder, PASSPHRASE).await;
}

/// The key comes from the environment of the program, or from a folder of credentials; both are read only.
#[tokio::test]
async fn the_environment_and_credentials_hold_the_key_of_a_program() {
    let folder = survives_a_start(Folder::new(), "file = \"{dir}/master.key\"\ncreate = true\n").await;
    let dir = folder.dir.path().to_owned();
    let key = std::fs::read_to_string(dir.join("master.key")).unwrap();
    let config = dir.join("keys.toml");
    let check = |table: &str, variable: &str, value: &std::ffi::OsStr| {
        std::fs::write(&config, with(table)(folder.config_text())).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_casemate-keys"))
            .args(["check", "--config"])
            .arg(&config)
            .env(variable, value)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let by_variable = "environment = \"CASEMATE_KEYS_MASTER\"\n";
    let (whole, text) = check(by_variable, "CASEMATE_KEYS_MASTER", key.trim().as_ref());
    assert!(whole, "{text}");
    let (whole, text) = check(by_variable, "CASEMATE_KEYS_MASTER", "00".repeat(32).as_ref());
    assert!(!whole && text.contains("environment variable CASEMATE_KEYS_MASTER holds"), "{text}");
    let credentials = dir.join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("keys-master"), key).unwrap();
    let by_credential = "credential = \"keys-master\"\n";
    let (whole, text) = check(by_credential, "CREDENTIALS_DIRECTORY", credentials.as_os_str());
    assert!(whole, "{text}");
    let (whole, text) = check(by_credential, "CREDENTIALS_DIRECTORY", dir.as_os_str());
    assert!(!whole && text.contains("no master key at the credential keys-master"), "{text}");
}
