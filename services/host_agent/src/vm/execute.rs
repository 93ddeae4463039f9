//! The steps of a plan. Each can be repeated, and writes down what it did as soon as it is done.

use std::time::{Duration, Instant};

use internal_api::paravisor::{ControlRequest, Failure, ParavisorConfig};

use super::control;
use super::dir::{Fault, KeyAsked, Record};
use super::plan::{Action, ParavisorState, wants_on};
use super::watch::{ParavisorSeen, ParavisorWatch};
use super::{PARAVISOR_CONFIG, PARAVISOR_EVENTS, Vm};
use crate::host::{now, remove_stale};
use crate::launch::{Launch, Launched};
use crate::process::{self, ProcessRef};
use crate::qmp::Shutdown;
use crate::{failure, image};

/// How long a process that was asked to end is waited for.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long the paravisor may take to write everything down.
const STOP_MILLIS: u64 = 30_000;
/// How long a paravisor is given to move to another key, and the pause after a refusal.
const KEY_PAUSE: u64 = 15_000;
/// Longest pause between two tries.
const LONGEST_PAUSE: u64 = 60_000;
/// After this much time without a fault the pauses start anew.
const FORGIVEN_AFTER: u64 = 600_000;

impl Vm {
    /// Carries out one action.
    pub(super) async fn execute(&mut self, action: &Action) -> Result<(), Box<Failure>> {
        match action {
            Action::Rest | Action::Remove => Ok(()),
            Action::Settle => {
                self.record.reached = self.spec.generation;
                self.keep()
            }
            Action::Launch => self.launch().await,
            Action::ChangeKey(key_id) => self.change_key(key_id).await,
            Action::TellReset => self.tell_reset().await,
            Action::StartQemu => self.start_qemu().await,
            Action::PowerDown => self.power_down().await,
            Action::EndQemu => self.end_qemu().await,
            Action::NoteGuestOff => {
                self.record.guest_off = Some(self.spec.generation);
                self.note_qemu_end()
            }
            Action::NoteQemuEnd => self.note_end_and_why(),
            Action::TellStopped => self.tell_stopped().await,
            Action::EndParavisor => self.end_paravisor().await,
            Action::ForgetParavisor => self.forget_paravisor(),
            Action::NoteFault(failure) => {
                self.note_fault(failure.clone());
                self.end_paravisor().await
            }
            Action::Decommission => self.decommission().await,
        }
    }

    /// Notes a fault and returns when the next try may be.
    pub(super) fn note_fault(&mut self, failure: Failure) -> u64 {
        let now = now();
        let last = self.record.fault.as_ref();
        let last = last.filter(|fault| now.saturating_sub(fault.retry_at) < FORGIVEN_AFTER);
        let count = last.map_or(1, |fault| fault.count.saturating_add(1));
        let pause = 1000_u64.saturating_mul(1 << count.saturating_sub(1).min(6)).min(LONGEST_PAUSE);
        tracing::warn!(
            vm = self.spec.vm_id,
            code = failure.code,
            actual = failure.actual,
            transient = failure.transient,
            "a step failed"
        );
        let retry_at = now + pause;
        self.record.fault = Some(Fault { generation: self.spec.generation, count, retry_at, failure });
        if let Err(failure) = self.keep() {
            tracing::error!(vm = self.spec.vm_id, actual = failure.actual, "the fault could not be noted");
        }
        retry_at
    }

    pub(super) fn keep(&self) -> Result<(), Box<Failure>> {
        self.dir.write_json("record.json", &self.record)
    }

    async fn launch(&mut self) -> Result<(), Box<Failure>> {
        self.record.timings.clear();
        let start = Instant::now();
        let image = self.host.image(&self.spec)?;
        self.took("fetchImage", start);
        self.write_launch_files()?;
        let start = Instant::now();
        let launched = self.make_context().await?;
        self.record.context = Some(launched.context);
        self.host.crash.reach("context-made");
        self.took("launch", start);
        self.keep()?;
        tracing::info!(
            vm = self.spec.vm_id,
            context = launched.context,
            digest = launched.digest,
            "launched"
        );
        self.start_paravisor(&image, launched)
    }

    fn write_launch_files(&self) -> Result<(), Box<Failure>> {
        let spec = &self.spec;
        self.dir.create()?;
        for (name, text) in [
            ("launch-document.json", &spec.launch_document),
            ("provisioning-data.json", &spec.provisioning_data),
            ("trust-bundle.pem", &spec.trust_bundle),
            ("release-token", &spec.release_token),
        ] {
            self.dir.write(name, text.as_bytes())?;
        }
        Ok(())
    }

    async fn make_context(&self) -> Result<Launched, Box<Failure>> {
        let config = &self.host.config;
        let launch = Launch {
            vcpus: self.spec.vcpus,
            cpu: self.host.cpu,
            firmware: config.firmware_code.clone(),
            vars_template: config.firmware_vars.clone(),
            paravisor: config.paravisor.clone(),
            document: self.spec.launch_document.clone().into_bytes(),
        };
        let (host, dir, record) = (self.host.clone(), self.dir.clone(), self.record.clone());
        let note = move |context| {
            dir.write_json("record.json", &Record { context: Some(context), ..record.clone() })
        };
        let launched = tokio::task::spawn_blocking(move || host.processor.launch(&launch, &note)).await;
        launched.unwrap_or_else(|error| {
            Err(failure::transient("HostFault", "launch the VM", "a launch context", error.to_string()))
        })
    }

    fn start_paravisor(&mut self, image: &image::Image, launched: Launched) -> Result<(), Box<Failure>> {
        const CLAIM: &str = "start the paravisor";
        let config = self.paravisor_config(image, launched);
        for socket in
            [&config.tpm_socket, &config.disk_socket, &config.config_drive_socket, &config.control_socket]
        {
            remove_stale(socket);
        }
        config.guest_port_socket.iter().for_each(|socket| remove_stale(socket));
        let text = toml::to_string(&config).expect("the configuration has a TOML form");
        self.dir.write(PARAVISOR_CONFIG, text.as_bytes())?;
        let (events, log) = (self.dir.log(PARAVISOR_EVENTS)?, self.dir.log("paravisor.log")?);
        let program = &self.host.config.paravisor;
        let arguments = ["--config".to_owned(), self.dir.file(PARAVISOR_CONFIG).display().to_string()];
        let started = process::start(program, &arguments, events, log);
        self.paravisor = ParavisorWatch::new(self.dir.file(PARAVISOR_EVENTS));
        self.record.paravisor = Some(started.map_err(|error| failure::start(CLAIM, program, &error))?);
        self.host.crash.reach("paravisor-started");
        (self.record.told_stopped, self.record.reset_pending) = (false, false);
        self.record.stop_deadline = None;
        self.keep()
    }

    fn paravisor_config(&self, image: &image::Image, launched: Launched) -> ParavisorConfig {
        let (file, socket) = (|name: &str| self.dir.file(name), |name: &str| self.dir.socket(name));
        ParavisorConfig {
            image: image.disk.clone(),
            image_manifest: image.manifest.clone(),
            disk: file("disk.img"),
            disk_bytes: self.spec.disk_bytes,
            guest_state: file("guest-state.vmgs"),
            boot_region: file("boot-region.img"),
            vars: file("vars.fd"),
            vars_template: self.host.config.firmware_vars.clone(),
            launch_document: file("launch-document.json"),
            provisioning_data: file("provisioning-data.json"),
            trust_bundle: file("trust-bundle.pem"),
            release_token: file("release-token"),
            secure_processor: launched.guest_socket,
            tpm_socket: socket("tpm.sock"),
            disk_socket: socket("disk.sock"),
            config_drive_socket: socket("config-drive.sock"),
            control_socket: socket("control.sock"),
            guest_port_socket: self.guest_port_socket(),
        }
    }

    /// An end that nobody asked for is a fault, so that a QEMU that cannot live is not started over and over.
    fn note_end_and_why(&mut self) -> Result<(), Box<Failure>> {
        let asked = !self.wanted || !wants_on(&self.spec, &self.record);
        let asked = asked || self.spec.restarts > self.record.restarts;
        let healthy = self.observe().paravisor == ParavisorState::Ready;
        let reason = self.qemu.shutdown;
        self.note_qemu_end()?;
        if asked || !healthy || matches!(reason, Some(Shutdown::GuestReset | Shutdown::GuestOff)) {
            return Ok(());
        }
        let actual = match reason {
            Some(Shutdown::GuestPanic) => "the guest crashed",
            Some(_) => "somebody on the host ended it",
            None => "it ended without a word; see qemu.log",
        };
        Err(failure::transient("QemuEnded", "run the guest", "a QEMU that runs as long as the guest", actual))
    }

    fn note_qemu_end(&mut self) -> Result<(), Box<Failure>> {
        self.record.qemu = None;
        self.record.reset_pending = true;
        (self.record.stop_deadline, self.record.press_again_at) = (None, None);
        self.keep()
    }

    async fn tell_reset(&mut self) -> Result<(), Box<Failure>> {
        control::ask(&self.dir.socket("control.sock"), &ControlRequest::GuestReset).await?;
        self.record.reset_pending = false;
        self.keep()
    }

    /// What comes of it is in the paravisor's events. A paravisor that does not take the request keeps its guest running.
    async fn change_key(&mut self, key_id: &str) -> Result<(), Box<Failure>> {
        let retry_at = now() + KEY_PAUSE;
        self.record.key_asked = Some(KeyAsked { key_id: key_id.to_owned(), retry_at });
        self.keep()?;
        let request = ControlRequest::ChangeKey { key_id: key_id.to_owned() };
        if let Err(failure) = control::ask(&self.dir.socket("control.sock"), &request).await {
            tracing::warn!(
                vm = self.spec.vm_id,
                actual = failure.actual,
                "the paravisor was not told of its new key"
            );
        }
        Ok(())
    }

    /// Remembers which key the guest state is under, also for the time when nobody says so.
    pub(super) fn note_key(&mut self, in_use: Option<&String>) {
        if in_use.is_none() || self.record.key_in_use.as_ref() == in_use {
            return;
        }
        self.record.key_in_use = in_use.cloned();
        if let Err(failure) = self.keep() {
            tracing::error!(
                vm = self.spec.vm_id,
                actual = failure.actual,
                "the key in use could not be noted"
            );
        }
    }

    /// A paravisor that cannot be told is ended: its state is safe against that at any time.
    async fn tell_stopped(&mut self) -> Result<(), Box<Failure>> {
        let told = control::ask(&self.dir.socket("control.sock"), &ControlRequest::GuestStopped).await;
        if let Err(failure) = told {
            tracing::warn!(
                vm = self.spec.vm_id,
                actual = failure.actual,
                "the paravisor did not stop cleanly"
            );
            return self.end_paravisor().await;
        }
        self.record.told_stopped = true;
        self.record.stop_deadline = Some(now() + STOP_MILLIS);
        self.keep()
    }

    async fn end_paravisor(&mut self) -> Result<(), Box<Failure>> {
        if let Some(paravisor) = self.record.paravisor.clone() {
            paravisor.terminate();
            end(&paravisor).await;
        }
        self.forget_paravisor()
    }

    fn forget_paravisor(&mut self) -> Result<(), Box<Failure>> {
        self.record.paravisor = None;
        (self.record.told_stopped, self.record.reset_pending) = (false, false);
        self.record.stop_deadline = None;
        self.paravisor.seen = ParavisorSeen::default();
        self.keep()
    }

    async fn decommission(&mut self) -> Result<(), Box<Failure>> {
        if let Some(context) = self.record.context.take() {
            let host = self.host.clone();
            // The only error is an agent that ends: the context is then given back by the next one.
            if let Err(error) =
                tokio::task::spawn_blocking(move || host.processor.decommission(context)).await
            {
                tracing::info!(context, %error, "a launch context was not given back");
                self.record.context = Some(context);
            }
        }
        self.keep()
    }

    pub(super) fn took(&mut self, step: &str, since: Instant) {
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.record.timings.insert(step.to_owned(), millis);
    }
}

/// Waits for a process that was asked to end, and ends it when it does not.
pub(super) async fn end(process: &ProcessRef) {
    let limit = Instant::now() + END_LIMIT;
    while process.alive() {
        if Instant::now() > limit {
            process.kill();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
