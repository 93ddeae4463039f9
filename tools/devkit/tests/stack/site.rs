//! One platform under a fault plan, and the life of its one VM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use devkit::guest::signing;
use devkit::installation::{Installation, wait_for};
use devkit::machine;
use serde_json::{Value, json};

use crate::points::Phase;
use crate::state::EndState;

/// The firmware variables that `casemate up` writes into the configurations.
const MICROSOFTS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
/// The VM.
pub const VM: &str = "vm";
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a life may take to come to its end state, with all its restarts.
const LIMIT: Duration = Duration::from_secs(60);

/// A platform.
pub struct Site {
    pub platform: Installation,
    pub plan: Plan,
    /// The guest's counts of its boots, of the VM that lives now.
    pub boots: Vec<u64>,
    /// Newest generation of the guest state that evidence spoke of.
    generation: u64,
}

impl Site {
    /// Starts it and imports the image.
    pub fn up(folder: &Path, number: u16, port: u16, image: &Path) -> Result<Self> {
        let plan = Plan { folder: folder.join(format!("plan-{number}")) };
        fs::create_dir_all(&plan.folder)?;
        let qemu = machine::program()?.display().to_string();
        let arguments = ["--qemu", &qemu, "--accelerator", "tcg"];
        let images = folder.join(format!("images-{number}"));
        let platform = Installation::up_under(Some(&plan.folder), port, &images, &arguments)?;
        enroll(&platform)?;
        import(&platform, image)?;
        Ok(Self { platform, plan, boots: Vec::new(), generation: 0 })
    }

    /// Lives through a phase with a crash where `order` says, to the end state `wanted`, or to any that belongs to the
    /// phase. Returns the end state.
    pub fn live(&mut self, phase: Phase, order: Option<&str>, wanted: Option<&EndState>) -> Result<EndState> {
        let folder = self.platform.vm_dir(VM).ok();
        self.plan.set(order)?;
        self.ask(phase, order.is_some())?;
        if let Some(order) = order {
            let crashed = || Ok(self.plan.crashed().then_some(()));
            wait_for(INTERVAL, LIMIT, crashed).with_context(|| format!("no crash at {order}"))?;
        }
        let state = self.settle(phase, wanted)?;
        self.check_history(phase, folder)?;
        Ok(state)
    }

    /// Removes the VM after a failure, whatever state it is in.
    pub fn clear(&mut self) -> Result<()> {
        self.plan.set(None)?;
        self.generation = 0;
        self.ask(Phase::Delete, true)?;
        self.settle(Phase::Delete, None).map(drop)
    }

    /// Asks for the phase, again if a crash took the answer.
    fn ask(&self, phase: Phase, disturbed: bool) -> Result<()> {
        let asked = || {
            let output = self.platform.try_casemate(phase.command())?;
            if output.status.success() {
                return Ok(Some(()));
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // Status 3: the platform itself said that this will never be.
            ensure!(disturbed && output.status.code() != Some(3), "{said}");
            Ok(None)
        };
        wait_for(INTERVAL, LIMIT, asked)
    }

    /// Waits for the end state.
    pub fn settle(&self, phase: Phase, wanted: Option<&EndState>) -> Result<EndState> {
        let mut last = None;
        let settled = wait_for(INTERVAL, LIMIT, || {
            // A service that is being started again does not answer.
            let Ok(state) = EndState::read(&self.platform) else { return Ok(None) };
            let done = match wanted {
                Some(wanted) => state == *wanted,
                None => state.belongs_to(phase) && last.as_ref() == Some(&state),
            };
            last = Some(state.clone());
            Ok(done.then_some(state))
        });
        settled.with_context(|| format!("the end state is {last:#?}\ninstead of {wanted:#?}"))
    }

    /// The guest's data and the generation of its state only go forward.
    pub fn check_history(&mut self, phase: Phase, folder: Option<PathBuf>) -> Result<()> {
        if phase == Phase::Delete {
            self.generation = 0;
            let folder = folder.context("a VM that is deleted had a folder")?;
            ensure!(!folder.exists(), "{} is still there", folder.display());
            return Ok(());
        }
        self.boots = machine::boots(&self.platform.vm_dir(VM)?.join("serial.log"));
        let counted = self.boots.iter().zip(1..).all(|(count, turn)| *count == turn);
        ensure!(counted && !self.boots.is_empty(), "the guest lost data: its boots are {:?}", self.boots);
        if phase == Phase::Stop {
            return Ok(());
        }
        let generation = self.evidence_generation()?;
        if generation <= self.generation {
            bail!("a start at generation {generation} after {}", self.generation);
        }
        self.generation = generation;
        Ok(())
    }

    fn evidence_generation(&self) -> Result<u64> {
        let evidence = self.platform.json(&["vm", "evidence", VM])?;
        let token = evidence["token"].as_str().context("evidence has a token")?;
        let claims = token.split('.').nth(1).context("a token has three parts")?;
        let claims = public_api::encoding::from_base64_any(claims)?;
        let claims: Value = serde_json::from_slice(&claims)?;
        claims["x-ms-runtime"]["guest-state"]["generation"].as_u64().context("a generation in the token")
    }
}

/// Puts the firmware variables that the image is signed for in the place of Microsoft's.
fn enroll(platform: &Installation) -> Result<()> {
    for (service, program) in [("attestation", "casemate-attestation"), ("host", "casemate-host-agent")] {
        let path = platform.data().join(service).join("config.toml");
        let config = fs::read_to_string(&path)?;
        ensure!(config.contains(MICROSOFTS), "{} does not name {MICROSOFTS}", path.display());
        fs::write(&path, config.replace(MICROSOFTS, signing::VARS))?;
        platform.kill(program)?;
    }
    let healthy = || {
        let status = platform.json(&["status"])?;
        let status = &status["services"]["attestation service"]["health"]["status"];
        Ok((*status == "ok").then_some(()))
    };
    wait_for(INTERVAL, LIMIT, healthy).context("the attestation service with other firmware variables")
}

/// As `casemate image import` does, for those firmware variables.
fn import(platform: &Installation, image: &Path) -> Result<()> {
    let images = platform.data().join("images");
    let incoming = images.join("incoming");
    fs::create_dir_all(&incoming)?;
    fs::copy(image, incoming.join("disk.raw"))?;
    let output = Command::new(devkit::installation::programs()?.join("casemate-paravisor"))
        .args(["inspect-image", "--vars", signing::VARS, "--image"])
        .arg(image)
        .arg("--manifest")
        .arg(incoming.join("manifest.json"))
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let digest = report["digest"].as_str().context("a digest")?;
    fs::rename(&incoming, images.join(digest))?;
    let catalog = json!({"images": [{
        "name": "small", "digest": digest, "publisher": "casemate", "offer": "small", "sku": "default",
        "version": "1.0.0", "sizeBytes": report["sizeBytes"], "diskEncrypted": report["diskEncrypted"],
    }]});
    Ok(fs::write(images.join("catalog.json"), catalog.to_string())?)
}

/// The folder of a fault plan.
pub struct Plan {
    folder: PathBuf,
}

impl Plan {
    /// Forgets what was; plans a crash if there is an order.
    pub fn set(&self, order: Option<&str>) -> Result<()> {
        for name in [fault_plan::CRASH_AT, fault_plan::CRASHED, fault_plan::REACHED] {
            if self.folder.join(name).exists() {
                fs::remove_file(self.folder.join(name))?;
            }
        }
        if let Some(order) = order {
            fs::write(self.folder.join(fault_plan::CRASH_AT), crate::points::written(order))?;
        }
        Ok(())
    }

    /// Whether the crash has happened.
    pub fn crashed(&self) -> bool {
        self.folder.join(fault_plan::CRASHED).exists()
    }

    /// The points that were reached.
    pub fn reached(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join(fault_plan::REACHED)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
