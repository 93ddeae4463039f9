//! The guest agent, and published tools that are not ours, in the running guest.
//!
//! The tools are built from crates.io while the guest's image is built and booted (`tools/devkit/guest_tools`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use devkit::installation::{Installation, programs, wait_for};
use serde_json::Value;

use super::{Scenario, VM};

/// How long their build may take.
const BUILD: Duration = Duration::from_secs(1500);

/// The tools' build, running or done.
pub struct GuestTools {
    out: PathBuf,
    build: Child,
}

impl GuestTools {
    /// Begins to build; what an earlier run built is kept beside the workspace's own build.
    pub fn begin() -> Result<Self> {
        let out = programs()?.with_file_name("guest-tools");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest_tools/build.sh");
        let mut build = Command::new("nice");
        build.arg("-n").arg("5").arg(script).arg(&out).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self { build: build.spawn().context("building the guest's tools")?, out })
    }

    fn ready(&mut self) -> Result<PathBuf> {
        let ended = wait_for(Duration::from_secs(1), BUILD, || Ok(self.build.try_wait()?));
        let status = ended.context("building the guest's tools")?;
        ensure!(status.success(), "the guest's tools were not built: {status}");
        Ok(self.out.join("bin"))
    }
}

/// The third of the platform's ports.
fn attestation_port(platform: &Installation) -> u16 {
    platform.base_port() + 2
}

/// Brings the attestation service to the guest's loopback address: its certificate is for `localhost`. TLS goes from end
/// to end.
fn reach_services(platform: &Installation) -> Result<()> {
    let port = attestation_port(platform);
    let ca = platform.data().join("authority/ca.pem");
    platform.in_guest_with(VM, "cat >/tmp/ca.pem", &ca)?;
    let proxy = "/usr/lib/systemd/systemd-socket-proxyd";
    let line = format!(
        "systemctl is-active -q services.socket || sudo systemd-run -q --unit=services \
         --socket-property=ListenStream=127.0.0.1:{port} {proxy} 10.0.2.2:{port}"
    );
    platform.in_guest(VM, &line).map(drop)
}

fn service(platform: &Installation) -> String {
    format!("https://localhost:{}", attestation_port(platform))
}

/// A shell line that waits until a unit of the guest serves, as a `test` tells, and says why if it ended before that.
fn served(unit: &str, test: &str) -> String {
    format!(
        "until sudo test {test}; do systemctl is-active -q {unit} || \
         {{ sudo journalctl --no-pager -o cat -u {unit} >&2; exit 1; }}; sleep 0.2; done"
    )
}

fn put(platform: &Installation, program: &Path) -> Result<()> {
    let name = program.file_name().and_then(|name| name.to_str()).context("a program's name")?;
    let line = format!("gzip -d >/tmp/{name} && sudo install -m 755 -t /usr/local/bin /tmp/{name}");
    let packed = tempfile::NamedTempFile::new()?;
    let status = Command::new("gzip").arg("-c").arg(program).stdout(packed.reopen()?).status()?;
    ensure!(status.success(), "gzip: {status}");
    platform.in_guest_with(VM, &line, packed.path())
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Result<Value> {
    let payload = token.trim().split('.').nth(1).context("a token has three parts")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

pub fn agent_gets_evidence_and_tokens(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    put(platform, &programs()?.join("casemate-guest-agent"))?;
    reach_services(platform)?;
    let evidence = platform.in_guest(
        VM,
        &format!("sudo casemate-guest-agent -o json evidence --user-data {}", "a5".repeat(64)),
    )?;
    let evidence: Value = serde_json::from_str(&evidence)?;
    ensure!(evidence["runtimeClaims"]["user-data"] == "a5".repeat(64), "{evidence}");
    let line = "sudo casemate-guest-agent --ca /tmp/ca.pem token --nonce of-the-guest --attestation-url";
    let claims = claims(&platform.in_guest(VM, &format!("{line} {}", service(platform)))?)?;
    ensure!(claims["nonce"] == "of-the-guest" && claims["x-ms-sevsnpvm-vmpl"] == 0, "{claims}");
    ensure!(claims["x-ms-runtime"]["user-data"] == "a5".repeat(64), "{claims}");
    Ok(())
}

/// The socket is for its owner alone, and does what the command does.
pub fn agent_serves_a_socket(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    let start = format!(
        "sudo systemd-run -q --unit=guest-agent -p RuntimeDirectory=casemate casemate-guest-agent --ca /tmp/ca.pem \
         --attestation-url {} serve && {}",
        service(platform),
        served("guest-agent", "-S /run/casemate/guest-agent.sock")
    );
    platform.in_guest(VM, &start)?;
    let ask = |who: &str, rest: &str| {
        let socket = "--unix-socket /run/casemate/guest-agent.sock";
        platform.in_guest(VM, &format!("{who} curl -sS {socket} {rest}"))
    };
    let answer: Value = serde_json::from_str(&ask("sudo", "-d '{\"nonce\":\"n\"}' http://agent/token")?)?;
    let token = answer["token"].as_str().with_context(|| answer.to_string())?;
    ensure!(claims(token)?["nonce"] == "n");
    let denied = ask("", "http://agent/health || echo refused")?;
    ensure!(denied.trim().ends_with("refused"), "another user was served: {denied}");
    Ok(())
}

/// The published `snpguest`: a report through the kernel's ioctls, certificates with it, verified under our chain.
pub fn snpguest_reads_and_verifies(scenario: &mut Scenario) -> Result<()> {
    let tools = scenario.tools.ready()?;
    let platform = scenario.platform()?;
    put(platform, &tools.join("snpguest"))?;
    let serve = "sudo modprobe cuse && sudo systemd-run -q --unit=sev-guest casemate-guest-agent sev-guest";
    platform.in_guest(VM, &format!("{serve} && {}", served("sev-guest", "-e /dev/sev-guest")))?;
    let steps = "set -e; cd /tmp; rm -rf certs; mkdir certs; sudo snpguest report report.bin data.bin --random; \
                 sudo snpguest certificates pem certs; sudo snpguest display report report.bin; ls certs; \
                 sudo snpguest verify certs certs; sudo snpguest verify attestation certs report.bin";
    let said = platform.in_guest(VM, steps)?;
    ensure!(said.contains("vcek.pem"), "{said}");
    ensure!(said.contains("VEK signed the Attestation Report"), "{said}");
    let key =
        platform.in_guest(VM, "cd /tmp; sudo snpguest key key.bin vcek --vmpl 1; stat -c %s key.bin")?;
    ensure!(key.trim().ends_with("32"), "{key}");
    Ok(())
}

/// The attack: a guest that asks for the paravisor's level, through a tool that is not ours.
pub fn vmpl_0_is_refused(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    for (what, file) in [
        ("report zero.bin data.bin --random --vmpl 0", "zero.bin"),
        ("key zero.key vcek --vmpl 0", "zero.key"),
    ] {
        let line = format!(
            "cd /tmp; sudo snpguest {what} 2>&1; echo status $?; test -e {file} && echo made || true"
        );
        let said = platform.in_guest(VM, &line)?;
        ensure!(said.contains("Status Code: 0x16") && said.contains("status 1"), "VMPL 0 was given: {said}");
        ensure!(!said.contains("made"), "{said}");
    }
    Ok(())
}

/// The published `az-snp-vtpm`.
pub fn az_snp_vtpm_reads_report_and_quote(scenario: &mut Scenario) -> Result<()> {
    let tools = scenario.tools.ready()?;
    let platform = scenario.platform()?;
    put(platform, &tools.join("read-evidence"))?;
    let said: Value = serde_json::from_str(&platform.in_guest(VM, "sudo read-evidence")?)?;
    ensure!(said["verified"] == true && said["vmpl"] == 0, "{said}");
    ensure!(said["userData"] == "5a".repeat(64), "{said}");
    Ok(())
}

/// The published `azure-guest-attestation-sdk`, by `AzureGuest`.
pub fn azure_sdk_gets_a_token(scenario: &mut Scenario) -> Result<()> {
    let tools = scenario.tools.ready()?;
    let platform = scenario.platform()?;
    put(platform, &tools.join("attest-guest"))?;
    let line = format!("sudo SSL_CERT_FILE=/tmp/ca.pem attest-guest {} 2>/dev/null", service(platform));
    let claims = claims(&platform.in_guest(VM, &line)?)?;
    ensure!(claims["x-ms-attestation-type"] == "azurevm", "{claims}");
    ensure!(claims["x-ms-isolation-tee"]["x-ms-sevsnpvm-vmpl"] == 0, "{claims}");
    Ok(())
}
