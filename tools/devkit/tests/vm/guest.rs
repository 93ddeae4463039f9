//! What is seen in the running guest, and what its evidence says outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devkit::installation::Installation;
use serde_json::Value;
use vtpm::hcl::HclReport;
use vtpm::{PcrBank, RsaPublic, quote};

use super::{BOOT, Scenario, VM, guest_tools};

pub fn secure_boot_is_on(scenario: &mut Scenario) -> Result<()> {
    let variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let bytes = scenario.platform()?.in_guest(VM, &format!("od -An -t u1 {variable}"))?;
    ensure!(bytes.trim().ends_with('1'), "SecureBoot holds {bytes}");
    Ok(())
}

pub fn root_is_encrypted(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let source = platform.in_guest(VM, "findmnt -no SOURCE /")?;
    ensure!(source.trim() == "/dev/mapper/root", "the root file system is on {source}");
    let table = platform.in_guest(VM, "sudo dmsetup table root")?;
    ensure!(table.contains("crypt aes-xts-plain64") && table.contains("sector_size:4096"), "{table}");
    Ok(())
}

pub fn disk_is_ciphertext(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    platform.in_guest(VM, "echo 'a secret of the tenant 4711' | sudo tee /root/secret >/dev/null; sync")?;
    let text = b"Debian GNU/Linux";
    let disk = platform.vm_dir(VM)?.join("disk.img");
    ensure!(occurrences(&disk, text)? == 0, "the host's disk holds plain text of the image");
    ensure!(
        occurrences(&disk, b"a secret of the tenant 4711")? == 0,
        "the host's disk holds the tenant's text"
    );
    let images = platform.json(&["image", "list"])?;
    let digest = images["images"][0]["digest"].as_str().context("a digest")?;
    let image = platform.data().join("images").join(digest).join("disk.raw");
    ensure!(occurrences(&image, text)? > 0, "the text to look for is in the image");
    Ok(())
}

/// How often a text stands in a file, read piece by piece.
fn occurrences(path: &Path, text: &[u8]) -> Result<usize> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let (mut count, mut kept) = (0, Vec::new());
    let mut buffer = vec![0; 4 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(count);
        }
        kept.extend_from_slice(&buffer[..read]);
        count += kept.windows(text.len()).filter(|window| *window == text).count();
        kept.drain(..kept.len().saturating_sub(text.len() - 1));
    }
}

pub fn provisioned(scenario: &mut Scenario) -> Result<()> {
    let seen = scenario.platform()?.in_guest(VM, "echo $(uname -n) $(id -un) $(sudo -n id -u)")?;
    ensure!(seen.trim() == format!("{VM} tenant 0"), "{seen}");
    Ok(())
}

fn from_guest(platform: &Installation, line: &str) -> Result<Vec<u8>> {
    let text = platform.in_guest(VM, &format!("sudo sh -c '{line}' | base64 -w0"))?;
    STANDARD.decode(text.trim()).with_context(|| format!("`{line}` in the guest gave {text:?}"))
}

fn hcl_report(platform: &Installation) -> Result<Vec<u8>> {
    from_guest(platform, "tpm2_nvread 0x01400001")
}

fn attestation_key(report: &[u8]) -> Result<RsaPublic> {
    let report = HclReport::parse(report)?;
    report.verify_binding()?;
    report.runtime_claims()?.key("HCLAkPub").context("the report has the attestation key")
}

fn pcrs(platform: &Installation) -> Result<PcrBank> {
    let text = platform.in_guest(VM, "sudo tpm2_pcrread sha256")?;
    let mut bank = BTreeMap::new();
    for line in text.lines() {
        let Some((number, value)) = line.split_once(": 0x") else { continue };
        let value = hex::decode(value.trim())?;
        bank.insert(number.trim().parse()?, value.try_into().ok().context("32 bytes")?);
    }
    Ok(PcrBank(bank))
}

pub fn quote_verifies(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let nonce = [0x5A; 16];
    let list = "sha256:0,1,2,3,4,5,6,7,9,12,14,15";
    platform.in_guest(
        VM,
        &format!(
            "sudo tpm2_quote -Q -c 0x81000003 -l {list} -q {} -m /tmp/q.msg -s /tmp/q.sig -f plain",
            hex::encode(nonce)
        ),
    )?;
    let (message, signature) =
        (from_guest(platform, "cat /tmp/q.msg")?, from_guest(platform, "cat /tmp/q.sig")?);
    let ak = attestation_key(&hcl_report(platform)?)?;
    let bank = pcrs(platform)?;
    quote::verify(&message, &signature, &ak, &nonce, &bank)?;
    ensure!(quote::verify(&message, &signature, &ak, &[0; 16], &bank).is_err(), "a quote with another nonce");
    let mut other = bank.clone();
    other.extend(4, &[1; 32]);
    ensure!(quote::verify(&message, &signature, &ak, &nonce, &other).is_err(), "a quote over other PCRs");
    Ok(())
}

pub fn hcl_report_binds_the_key(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let bytes = hcl_report(platform)?;
    let report = HclReport::parse(&bytes)?;
    let snp_report = snp::Report::parse(report.snp_report)?;
    ensure!(snp_report.vmpl == 0, "VMPL {}", snp_report.vmpl);
    let ak = attestation_key(&bytes)?;
    let certificate = from_guest(platform, "tpm2_nvread 0x01C101D0")?;
    let modulus = ak.modulus();
    ensure!(
        certificate.windows(modulus.len()).any(|window| window == modulus),
        "the certificate holds the key"
    );
    Ok(())
}

pub fn user_data_reaches_the_report(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let attributes = "ownerread|ownerwrite|authread|authwrite|no_da";
    platform.in_guest(VM, &format!("sudo tpm2_nvdefine -Q -C o -s 64 -a '{attributes}' 0x01400002; head -c 64 /dev/zero | tr '\\0' 'u' | sudo tpm2_nvwrite -Q -C o -i - 0x01400002; sleep 3"))?;
    let bytes = hcl_report(platform)?;
    let claims: Value = serde_json::from_slice(HclReport::parse(&bytes)?.claims)?;
    ensure!(claims["user-data"] == "75".repeat(64), "{claims}");
    Ok(())
}

fn evidence(platform: &Installation) -> Result<Value> {
    platform.json(&["vm", "evidence", VM])
}

fn runtime_claims(platform: &Installation) -> Result<Value> {
    let evidence = evidence(platform)?;
    let text = evidence["runtimeData"].as_str().context("runtime data")?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text)?;
    Ok(serde_json::from_slice(&bytes)?)
}

pub fn pcrs_are_predicted(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let bank = pcrs(platform)?;
    let claims = runtime_claims(platform)?;
    let chain = &claims["boot-chain"];
    let predicted = chain["pcrs"].as_object().context("predicted PCRs in the runtime claims")?;
    for number in [4_u8, 7, 9, 12] {
        let expected =
            predicted.get(&number.to_string()).and_then(Value::as_str).context("a predicted value")?;
        let found = hex::encode(bank.value(number).context("a PCR")?);
        ensure!(found == expected, "PCR {number}: predicted {expected}, booted {found}");
    }
    let kernel = platform.in_guest(VM, "uname -r")?;
    ensure!(chain["version"] == kernel.trim(), "{chain} names kernel {kernel}");
    Ok(())
}

pub fn key_is_unsealed_once(scenario: &mut Scenario) -> Result<()> {
    let line = "sudo cryptsetup open --test-passphrase --token-only $(sudo blkid -t TYPE=crypto_LUKS -o device | head -1) 2>&1; echo status $?";
    let said = scenario.platform()?.in_guest(VM, line)?;
    ensure!(!said.contains("status 0"), "the sealed key opened a second time: {said}");
    Ok(())
}

pub fn claims_match(scenario: &mut Scenario) -> Result<()> {
    let result = scenario.platform()?.json(&["vm", "attest", VM])?;
    let rows = result["comparison"].as_array().context("a comparison")?;
    ensure!(rows.len() >= 14 && rows.iter().all(|row| row["holds"] == true), "{result}");
    Ok(())
}

/// What the token that the paravisor got says of the chain that it sealed to.
fn boot_reference(platform: &Installation) -> Result<Option<String>> {
    let evidence = evidence(platform)?;
    let claims = guest_tools::claims(evidence["token"].as_str().context("a token")?)?;
    Ok(claims["x-casemate-boot-reference"].as_str().map(str::to_owned))
}

pub fn token_names_the_boot_chain(scenario: &mut Scenario) -> Result<()> {
    let name = boot_reference(scenario.platform()?)?.context("the token names a boot chain")?;
    ensure!(name.starts_with(&format!("{}-13.0.0+", scenario.image)), "{name}");
    Ok(())
}

/// A chain of the guest's own making is nobody's reference.
pub fn token_names_no_boot_chain(scenario: &Scenario) -> Result<()> {
    let name = boot_reference(scenario.platform()?)?;
    ensure!(name.is_none(), "{name:?}");
    Ok(())
}

pub fn evidence_is_development(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let file = platform.data().join("evidence.json");
    let path = file.to_str().context("a path in UTF-8")?;
    platform.casemate(&["vm", "evidence", VM, "--file", path])?;
    platform.casemate(&["verify", path])?;
    let stranger = tempfile::tempdir()?;
    let output = std::process::Command::new(devkit::installation::programs()?.join("casemate"))
        .arg("--data-dir")
        .arg(stranger.path())
        .args(["verify", path])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "without the development root it must be refused: {said}");
    ensure!(said.contains("Root"), "{said}");
    Ok(())
}

pub fn metadata_answers(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let get = |path: &str| {
        platform.in_guest(
            VM,
            &format!("curl -sS -m 30 -H Metadata:true 'http://169.254.169.254/metadata/{path}'"),
        )
    };
    let id = get("instance/compute/vmId?api-version=2021-12-13&format=text")?;
    let shown = platform.json(&["vm", "show", VM])?;
    ensure!(
        shown["properties"]["vmId"].as_str().is_some_and(|wanted| wanted.eq_ignore_ascii_case(&id)),
        "{id}"
    );
    let certificates: Value = serde_json::from_str(&get("THIM/amd/certification")?)?;
    let certificate = certificates["vcekCert"].as_str().context("a VCEK")?;
    ensure!(certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{certificate}");
    Ok(())
}

pub fn vm_outlives_the_agent(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let boot = platform.in_guest(VM, "cat /proc/sys/kernel/random/boot_id")?;
    platform.kill("casemate-host-agent")?;
    let after = platform.wait_for_guest(VM, "cat /proc/sys/kernel/random/boot_id", BOOT)?;
    ensure!(boot == after, "the guest was started again");
    devkit::installation::wait_for(Duration::from_secs(1), Duration::from_secs(60), || {
        let shown = platform.json(&["vm", "show", VM])?;
        Ok((shown["properties"]["casemate"]["hostPhase"] == "booted").then_some(()))
    })
}
