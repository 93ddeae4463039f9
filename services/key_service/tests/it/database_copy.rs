//! `casemate-keys backup` while keys are made, a service that starts on the copy, and `check` on copies that are not whole.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use public_api::decision_log::{self, Entry};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::support::issuer::attestation;
use crate::support::vault::{Folder, Vault, platform_conditions};

/// What a run of the program said: exit code, standard output, standard error.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// The JSON of a run that succeeded.
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.err);
        serde_json::from_str(&self.out).unwrap()
    }

    /// The reason of a run that failed.
    fn refusal(&self) -> &str {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{}", self.err);
        &self.err
    }
}

fn casemate_keys(folder: &Folder, command: &str, arguments: &[&Path]) -> Said {
    folder.config(|text| text).unwrap();
    let config = folder.dir.path().join("keys.toml");
    let mut program = Command::new(env!("CARGO_BIN_EXE_casemate-keys"));
    let output = program.arg(command).arg("--config").arg(config).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn backup(folder: &Folder, to: &Path) -> Said {
    casemate_keys(folder, "backup", &[Path::new("--to"), to])
}

fn check(folder: &Folder, database: &Path) -> Said {
    casemate_keys(folder, "check", &[Path::new("--database"), database])
}

/// A vault with keys of each family, a deleted one, and a release; its backup.
async fn with_backup() -> (Vault, PathBuf) {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let token = attestation().token(&vault.evidence(0));
    vault.release("/keys/platform/release", &token).await.ok();
    for (name, kind) in [("e", json!({"kty": "EC"})), ("o", json!({"kty": "oct-HSM", "key_size": 256}))] {
        vault.officer("POST", &format!("/keys/{name}/create"), &kind).await.ok();
    }
    vault.officer("POST", "/keys/e/create", &json!({"kty": "EC", "crv": "P-521"})).await.ok();
    vault.officer("DELETE", "/keys/o", &Value::Null).await.ok();
    let copy = vault.folder.dir.path().join("copy.sqlite");
    backup(&vault.folder, &copy).json();
    (vault, copy)
}

#[tokio::test]
async fn a_backup_says_what_it_copied_and_is_for_its_owner_only() {
    let (vault, _) = with_backup().await;
    let copy = vault.folder.dir.path().join("second.sqlite");
    let said = backup(&vault.folder, &copy).json();
    let log = vault.log().await;
    let expected = json!({
        "to": copy, "bytes": std::fs::metadata(&copy).unwrap().len(),
        "sha256": crate::support::issuer::sha256_hex(&std::fs::read(&copy).unwrap()),
        "keys": {"live": 2, "deleted": 1, "versions": 4},
        "log": {"entries": log.len(), "lastHash": log.last().unwrap().hash},
    });
    assert_eq!(said, expected);
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let seen = check(&vault.folder, &copy).json();
    assert_eq!(
        (&seen["status"], &seen["keys"], &seen["log"]),
        (&json!("whole"), &said["keys"], &said["log"])
    );
    let own = casemate_keys(&vault.folder, "check", &[]).json();
    assert_eq!(
        (&own["keys"], &own["log"]),
        (&said["keys"], &said["log"]),
        "the service's own, while it runs"
    );
}

#[tokio::test]
async fn a_backup_writes_over_nothing_and_leaves_nothing_behind_that_is_none() {
    let (vault, copy) = with_backup().await;
    let before = std::fs::read(&copy).unwrap();
    let said = backup(&vault.folder, &copy);
    for part in
        ["BackupTargetExists", "expected a file that there is not", "is there", "rule: ", "name another"]
    {
        assert!(said.refusal().contains(part), "{part}: {}", said.err);
    }
    assert_eq!(std::fs::read(&copy).unwrap(), before);
    let link = vault.folder.dir.path().join("link");
    std::os::unix::fs::symlink(vault.folder.dir.path().join("nowhere"), &link).unwrap();
    backup(&vault.folder, &link).refusal();
    let folder = Folder::new();
    let target = folder.dir.path().join("copy.sqlite");
    let said = backup(&folder, &target);
    assert!(said.refusal().contains("could not open the key database"), "{}", said.err);
    assert!(!target.exists());
}

/// Keys that are made without a pause.
#[derive(Default)]
struct Making {
    stop: AtomicBool,
    made: AtomicUsize,
}

impl Making {
    /// Makes keys until told to stop; the names of those that were acknowledged.
    async fn run(self: Arc<Self>, vault: Arc<Vault>, maker: usize) -> Vec<String> {
        let mut names = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let name = format!("m{maker}-{}", names.len());
            vault.officer("POST", &format!("/keys/{name}/create"), &json!({"kty": "EC"})).await.ok();
            self.made.fetch_add(1, Ordering::SeqCst);
            names.push(name);
        }
        names
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    async fn until(&self, number: usize) {
        while self.made() < number {
            tokio::task::yield_now().await;
        }
    }
}

/// Backs up again until keys were made meanwhile: the log of before, the copy, and what was said of it.
async fn backed_up_under_writes(vault: &Arc<Vault>, making: &Making) -> (Vec<Entry>, PathBuf, Value) {
    for attempt in 0..20 {
        let (before, made) = (whole_log(vault).await, making.made());
        let copy = vault.folder.dir.path().join(format!("copy-{attempt}.sqlite"));
        let (known, target) = (vault.clone(), copy.clone());
        let said = tokio::task::spawn_blocking(move || backup(&known.folder, &target).json()).await.unwrap();
        if making.made() > made {
            return (before, copy, said);
        }
    }
    panic!("no key was made during any of the backups");
}

/// Each key that was acknowledged before the backup began is in it, and what came later is in it whole or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_writes_has_every_key_of_before_and_a_service_starts_on_it() {
    let (vault, making) = (Arc::new(Vault::new().await), Arc::new(Making::default()));
    let makers: Vec<_> = (0..4).map(|maker| tokio::spawn(making.clone().run(vault.clone(), maker))).collect();
    making.until(100).await;
    let (before, copy, said) = backed_up_under_writes(&vault, &making).await;
    making.until(making.made() + 20).await;
    making.stop.store(true, Ordering::SeqCst);
    let mut names = Vec::new();
    for maker in makers {
        names.extend(maker.await.unwrap());
    }

    let restored = restored_from(&vault, &copy).await;
    for entry in &before {
        let path = entry.subject.split_once("/keys/").unwrap().1;
        restored.get(&format!("/keys/{path}")).await.ok();
    }
    let log = whole_log(&restored).await;
    assert_eq!(json!(log.len()), said["log"]["entries"]);
    assert_eq!(log[..before.len()], before, "what was known before is at its beginning");
    let (mut live, mut missing) = (0, 0);
    for name in &names {
        match restored.get(&format!("/keys/{name}")).await.status.as_u16() {
            200 => live += 1,
            404 => missing += 1,
            other => panic!("{name}: {other}"),
        }
    }
    assert_eq!(json!(live), said["keys"]["live"]);
    assert_eq!(live, log.len(), "each key with its entry, each entry with its key");
    assert!(missing >= 20, "{missing}: what was made after the backup is not in it");
}

/// Another vault with the same master key whose database is the copy.
async fn restored_from(vault: &Vault, copy: &Path) -> Vault {
    let folder = Folder::new();
    let data = folder.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(copy, data.join("keys.sqlite")).unwrap();
    std::fs::copy(vault.folder.dir.path().join("master.key"), folder.dir.path().join("master.key")).unwrap();
    folder.open().await
}

/// Every page of the log, verified.
async fn whole_log(vault: &Vault) -> Vec<Entry> {
    let mut log: Vec<Entry> = Vec::new();
    loop {
        let path = format!("/log?after={}", log.len());
        let page: Vec<_> = serde_json::from_value(vault.get(&path).await.ok()).unwrap();
        if page.is_empty() {
            decision_log::verify(None, &log).unwrap();
            return log;
        }
        log.extend(page);
    }
}

#[tokio::test]
async fn a_restored_vault_goes_on_where_the_backup_was_made() {
    let (vault, copy) = with_backup().await;
    let restored = restored_from(&vault, &copy).await;
    let token = attestation().token(&vault.evidence(0));
    restored.release("/keys/platform/release", &token).await.ok();
    restored.officer("POST", "/deletedkeys/o/recover", &Value::Null).await.ok();
    let (before, after) = (vault.log().await, whole_log(&restored).await);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 2);
    let root =
        |vault: &Vault| std::fs::read(vault.folder.dir.path().join("data/release-signing-root.pem")).unwrap();
    assert_eq!(root(&vault), root(&restored), "clients that pin the root need nothing new");
}

async fn altered(copy: &Path, name: &str, sql: &'static str) -> PathBuf {
    let file = copy.with_file_name(name);
    std::fs::copy(copy, &file).unwrap();
    let options = SqliteConnectOptions::new().filename(&file).foreign_keys(false);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let changed = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    assert!(changed.rows_affected() > 0, "{sql}");
    connection.close().await.unwrap();
    file
}

#[tokio::test]
async fn an_altered_copy_is_found_and_told_in_five_parts() {
    let (vault, copy) = with_backup().await;
    let cases = [
        ("StoredKeyBroken", "UPDATE key_versions SET sealed = zeroblob(80) WHERE name = 'o'"),
        ("StoredKeyBroken", "UPDATE key_versions SET exportable = 1 WHERE name = 'e' AND number = 2"),
        ("StoredKeyBroken", "UPDATE key_versions SET policy = X'7B7D' WHERE name = 'platform'"),
        ("StoredKeyBroken", "UPDATE key_versions SET kty = 'EC-HSM' WHERE name = 'e' AND number = 1"),
        ("PublicPartWrong", "UPDATE key_versions SET modulus = randomblob(256) WHERE name = 'platform'"),
        ("LogBroken", "UPDATE decisions SET entry = replace(entry, 'app-1', 'app-2') WHERE sequence = 2"),
        ("LogBroken", "DELETE FROM decisions WHERE sequence = 3"),
        ("SigningIdentityBroken", "UPDATE meta SET value = X'7B7D' WHERE name = 'release-signing-identity'"),
        ("MasterKeyUnnamed", "DELETE FROM meta WHERE name = 'master-key-id'"),
        ("DatabaseDamaged", "DELETE FROM keys WHERE name = 'e'"),
        ("DatabaseDamaged", "UPDATE decisions SET entry = '{}' WHERE sequence = 1"),
        ("SchemaUnknown", "DELETE FROM _sqlx_migrations WHERE version = 2"),
    ];
    for (number, (code, sql)) in cases.into_iter().enumerate() {
        let said = check(&vault.folder, &altered(&copy, &format!("altered-{number}"), sql).await);
        for part in [code, ": expected ", ", found ", "(rule: ", "); "] {
            assert!(said.refusal().contains(part), "{sql}: {part} is not in {}", said.err);
        }
    }
    let other = "UPDATE meta SET value = randomblob(16) WHERE name = 'master-key-id'";
    let said = check(&vault.folder, &altered(&copy, "other", other).await);
    assert!(said.refusal().contains("but the database was sealed under"), "{}", said.err);
    check(&vault.folder, &copy).json();
}

#[tokio::test]
async fn a_truncated_copy_is_found_wherever_it_ends() {
    let (vault, copy) = with_backup().await;
    let whole = std::fs::read(&copy).unwrap();
    let cut = copy.with_file_name("cut.sqlite");
    for length in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&cut, &whole[..length]).unwrap();
        let said = check(&vault.folder, &cut);
        let told = ["DatabaseDamaged", "SchemaUnknown"].iter().any(|code| said.refusal().contains(code));
        assert!(told, "{length} bytes: {}", said.err);
    }
    let nowhere = copy.with_file_name("nowhere.sqlite");
    assert!(check(&vault.folder, &nowhere).refusal().contains("could not open the key database"));
    assert!(!nowhere.exists(), "what is checked is not made");
}
