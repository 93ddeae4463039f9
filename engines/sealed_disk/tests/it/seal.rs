//! Sealing: the token's form, and a real TPM (swtpm) that imports and unseals what was sealed outside it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expect_test::expect;
use sealed_disk::seal::{SealError, SrkPublic, passphrase_of, policy_pcr, seal, systemd_tpm2_token};
use sealed_disk::secret::Secret;
use tempfile::TempDir;

use crate::tools;

const PREFIX: &str = "005a0023000b000304720000000600800043001000030010";

/// The generator of P-256 as a storage key.
fn srk() -> Vec<u8> {
    hex::decode(format!(
        "{PREFIX}0020{}0020{}",
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    ))
    .unwrap()
}

fn pcrs(values: &[(u8, u8)]) -> BTreeMap<u8, [u8; 32]> {
    values.iter().map(|&(pcr, value)| (pcr, [value; 32])).collect()
}

#[test]
fn the_token_has_the_fields_that_systemd_reads() {
    let srk = SrkPublic::parse(&srk()).unwrap();
    let secret = Secret::random();
    let token = systemd_tpm2_token(&srk, &secret, &pcrs(&[(7, 1), (4, 2), (15, 0)]), 0).unwrap();
    let mut shown = token.clone();
    shown["tpm2-blob"] = "..".into();
    expect![[r#"
        {
          "keyslots": [
            "0"
          ],
          "tpm2-blob": "..",
          "tpm2-pcr-bank": "sha256",
          "tpm2-pcrs": [
            4,
            7,
            15
          ],
          "tpm2-policy-hash": "c3135200324ef8db3ae2cb4ccd2c999bb57cbc1846d33641042f549eef9be0f3",
          "tpm2-primary-alg": "ecc",
          "tpm2_srk": "gQAAAQAiAAthpyMI2/TxkOQBMMovOEMhiEInObqZ1kwkJB79qKfLgwAAAAEAWgAjAAsAAwRyAAAABgCAAEMAEAADABAAIGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWACBP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==",
          "type": "systemd-tpm2"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&shown).unwrap());
    let blob = STANDARD.decode(token["tpm2-blob"].as_str().unwrap()).unwrap();
    assert_eq!(blob.len(), 110 + 80 + 70);
    assert_eq!((&blob[..2], &blob[110..112], &blob[190..192]), (&[0, 108][..], &[0, 78][..], &[0, 68][..]));
    assert!(!blob.windows(32).any(|window| window == secret.expose()));
    assert_eq!(passphrase_of(&secret).expose().len(), 44);
}

#[test]
fn every_seal_is_fresh() {
    let srk = SrkPublic::parse(&srk()).unwrap();
    let (secret, pcrs) = (Secret::random(), pcrs(&[(7, 1)]));
    let (one, two) = (seal(&srk, &secret, &pcrs).unwrap(), seal(&srk, &secret, &pcrs).unwrap());
    assert!(
        one.private != two.private
            && one.public != two.public
            && one.encrypted_secret != two.encrypted_secret
    );
    assert_eq!(one.policy, two.policy);
}

#[test]
fn the_policy_depends_on_numbers_and_values() {
    let all = [pcrs(&[(4, 1), (7, 2)]), pcrs(&[(4, 2), (7, 1)]), pcrs(&[(4, 1), (8, 2)]), pcrs(&[(4, 1)])];
    let policies: std::collections::BTreeSet<_> = all.iter().map(policy_pcr).collect();
    assert_eq!(policies.len(), all.len());
}

#[test]
fn attack_a_storage_key_of_another_form_is_refused() {
    let good = srk();
    assert!(SrkPublic::parse(&good).is_ok());
    for place in (0..26).chain([58, 59]) {
        let mut other = good.clone();
        other[place] ^= 1;
        assert_eq!(SrkPublic::parse(&other), Err(SealError::NotStorageKey), "byte {place}");
    }
    assert_eq!(SrkPublic::parse(&good[..91]), Err(SealError::NotStorageKey));
    assert_eq!(SrkPublic::parse(&[&good[..], &[0]].concat()), Err(SealError::NotStorageKey));
}

#[test]
fn attack_a_point_off_the_curve_is_refused() {
    let mut off = srk();
    off[30] ^= 1;
    let srk = SrkPublic::parse(&off).unwrap();
    assert_eq!(seal(&srk, &Secret::random(), &pcrs(&[(7, 1)])).err(), Some(SealError::NotOnCurve));
}

#[test]
fn sealing_to_no_pcr_or_to_one_that_is_not_there_is_refused() {
    let srk = SrkPublic::parse(&srk()).unwrap();
    for pcrs in [pcrs(&[]), pcrs(&[(24, 0)])] {
        assert_eq!(seal(&srk, &Secret::random(), &pcrs).err(), Some(SealError::Pcrs));
    }
}

/// A software TPM and tpm2-tools on it.
struct Tpm {
    folder: TempDir,
    tool: PathBuf,
    process: Child,
}

impl Tpm {
    fn start() -> Option<Self> {
        let (swtpm, tool) = (tools::find("swtpm")?, tools::find("tpm2")?);
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("tpm");
        let process = Command::new(swtpm)
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", folder.path().display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self { folder, tool, process };
        let start = Instant::now();
        while !tpm.run("getrandom", &["4"]).status.success() {
            assert!(start.elapsed() < Duration::from_secs(20), "swtpm does not answer");
        }
        Some(tpm)
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        Command::new(&self.tool)
            .arg(command)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.folder.path().join("tpm").display()))
            .output()
            .unwrap()
    }

    fn must(&self, command: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(command, arguments);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        self.run("flushcontext", &["-t"]);
        output.stdout
    }

    fn storage_key(&self) -> SrkPublic {
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
        let arguments =
            ["-C", "o", "-g", "sha256", "-G", "ecc256:null:aes128cfb", "-a", attributes, "-c", "srk.ctx"];
        self.must("createprimary", &arguments);
        self.must("evictcontrol", &["-C", "o", "-c", "srk.ctx", "0x81000001"]);
        self.must("readpublic", &["-c", "0x81000001", "-f", "tss", "-o", "srk.pub", "-n", "srk.name"]);
        let srk = SrkPublic::parse(&std::fs::read(self.path("srk.pub")).unwrap()).unwrap();
        assert_eq!(std::fs::read(self.path("srk.name")).unwrap(), srk.name());
        srk
    }

    fn pcrs(&self, numbers: &[u8]) -> BTreeMap<u8, [u8; 32]> {
        let list = numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        self.must("pcrread", &[&format!("sha256:{list}"), "-o", "pcrs"]);
        let values = std::fs::read(self.path("pcrs")).unwrap();
        numbers.iter().copied().zip(values.chunks_exact(32).map(|value| value.try_into().unwrap())).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_tpm_unseals_what_was_sealed_to_it_and_only_under_these_pcrs() {
    let Some(tpm) = Tpm::start() else { return };
    let srk = tpm.storage_key();
    tpm.must("pcrextend", &[&format!("7:sha256={}", "11".repeat(32))]);
    let (numbers, selection) = ([4, 7, 9, 12, 15], "pcr:sha256:4,7,9,12,15");
    let secret = Secret::<32>::random();
    let sealed = seal(&srk, &secret, &tpm.pcrs(&numbers)).unwrap();
    for (name, bytes) in
        [("in.priv", &sealed.private), ("in.pub", &sealed.public), ("seed", &sealed.encrypted_secret)]
    {
        std::fs::write(tpm.path(name), bytes).unwrap();
    }
    tpm.must(
        "import",
        &["-C", "0x81000001", "-i", "in.priv", "-u", "in.pub", "-s", "seed", "-r", "own.priv"],
    );
    tpm.must("load", &["-C", "0x81000001", "-u", "in.pub", "-r", "own.priv", "-c", "sealed.ctx"]);
    assert!(!tpm.run("unseal", &["-c", "sealed.ctx"]).status.success(), "without the policy");
    assert_eq!(tpm.must("unseal", &["-c", "sealed.ctx", "-p", selection]), secret.expose());
    tpm.must("pcrextend", &[&format!("15:sha256={}", "22".repeat(32))]);
    assert!(
        !tpm.run("unseal", &["-c", "sealed.ctx", "-p", selection]).status.success(),
        "after PCR 15 was extended"
    );
}

#[test]
fn attack_a_changed_seal_is_not_imported() {
    let Some(tpm) = Tpm::start() else { return };
    let srk = tpm.storage_key();
    let sealed = seal(&srk, &Secret::random(), &tpm.pcrs(&[7])).unwrap();
    std::fs::write(tpm.path("in.pub"), &sealed.public).unwrap();
    std::fs::write(tpm.path("seed"), &sealed.encrypted_secret).unwrap();
    let mut private = sealed.private.clone();
    let import = ["-C", "0x81000001", "-i", "in.priv", "-u", "in.pub", "-s", "seed", "-r", "own.priv"];
    std::fs::write(tpm.path("in.priv"), &private).unwrap();
    tpm.must("import", &import);
    private[60] ^= 1;
    std::fs::write(tpm.path("in.priv"), &private).unwrap();
    assert!(!tpm.run("import", &import).status.success());
}
