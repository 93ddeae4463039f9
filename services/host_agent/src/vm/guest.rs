//! The guest's machine: QEMU, its event files, its metadata service, its power button.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use internal_api::host::Platform;
use internal_api::launch::{LaunchDocument, SecurityEncryption};
use internal_api::paravisor::Failure;
use nix::sys::stat::Mode;

use super::execute::end;
use super::watch::QemuWatch;
use super::{QEMU_EVENTS, Vm};
use crate::failure;
use crate::host::{now, remove_stale};
use crate::metadata::{self, Metadata};
use crate::process::{self, ProcessRef};
use crate::qemu::Machine;
use crate::qmp;

/// How long QEMU may take until it speaks.
const QEMU_LIMIT: Duration = Duration::from_secs(30);
/// Between two presses of the power button.
const PRESS_AGAIN: u64 = 10_000;

impl Vm {
    pub(super) async fn start_qemu(&mut self) -> Result<(), Box<Failure>> {
        const CLAIM: &str = "start the guest";
        let start = Instant::now();
        let port = self.host.take_port(self.record.ssh_port)?;
        self.record.ssh_port = Some(port);
        self.serve_metadata();
        let machine = self.machine(port);
        for socket in [&machine.qmp_socket, &machine.console_socket] {
            remove_stale(socket);
        }
        // All but the process is noted before it: after a crash in between, the process table tells the rest.
        self.record.volumes_before = self.paravisor.seen.volumes_opened;
        self.record.restarts = self.spec.restarts;
        self.record.stop_deadline = None;
        self.keep()?;
        let events = self.event_files()?;
        let log = self.dir.log("qemu.log")?;
        let both = log.try_clone().map_err(|e| failure::io(CLAIM, &self.dir.file("qemu.log"), &e))?;
        let program = &self.host.config.qemu;
        let started = process::start(program, &machine.arguments(), both, log);
        let started = started.map_err(|error| failure::start(CLAIM, program, &error))?;
        self.host.crash.reach("qemu-started");
        self.record.qemu = Some(started.clone());
        self.keep()?;
        self.until_heard(&started).await?;
        drop(events);
        self.took("qemu", start);
        self.keep()
    }

    /// QEMU opens the pair as its event monitor: it reads the capabilities command from the pipe, which then stays
    /// open on its side, and writes each event to the file.
    fn event_files(&mut self) -> Result<File, Box<Failure>> {
        let pipe = self.event_pipe();
        remove_stale(&pipe);
        self.dir.log(&format!("{QEMU_EVENTS}.out"))?;
        self.qemu = QemuWatch::new(self.dir.file(&format!("{QEMU_EVENTS}.out")));
        let made = nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR);
        made.map_err(std::io::Error::from)
            .and_then(|()| ask_for_events(&pipe))
            .map_err(|error| failure::io("make QEMU's event files", &pipe, &error))
    }

    fn event_pipe(&self) -> PathBuf {
        self.dir.file(&format!("{QEMU_EVENTS}.in"))
    }

    /// Takes up a QEMU that a former agent started. One that died right after the start took the command with it.
    pub(super) fn take_up_qemu(&mut self) {
        self.qemu.poll();
        if self.record.qemu.as_ref().is_some_and(ProcessRef::alive) && !self.qemu.heard {
            match ask_for_events(&self.event_pipe()) {
                Ok(pipe) => self.events = Some(pipe),
                Err(error) => tracing::warn!(vm = self.spec.vm_id, %error, "no events of this QEMU"),
            }
        }
    }

    async fn until_heard(&mut self, qemu: &ProcessRef) -> Result<(), Box<Failure>> {
        let limit = Instant::now() + QEMU_LIMIT;
        loop {
            let alive = qemu.alive();
            self.qemu.poll();
            if self.qemu.heard {
                return Ok(());
            }
            if !alive || Instant::now() > limit {
                qemu.kill();
                self.record.qemu = None;
                let log = std::fs::read_to_string(self.dir.file("qemu.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing").to_owned();
                return Err(failure::transient("QemuFailed", "start the guest", "a QEMU that runs", last));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn machine(&self, ssh_port: u16) -> Machine {
        let (file, socket) = (|name: &str| self.dir.file(name), |name: &str| self.dir.socket(name));
        Machine {
            vm_id: self.spec.vm_id.clone(),
            vcpus: self.spec.vcpus,
            memory_mib: self.spec.memory_mib,
            accelerator: self.host.accelerator,
            ssh_port,
            outbound: self.host.config.outbound,
            firmware_code: self.host.config.firmware_code.clone(),
            vars: file("vars.fd"),
            tpm_socket: socket("tpm.sock"),
            disk_socket: socket("disk.sock"),
            config_drive_socket: socket("config-drive.sock"),
            guest_port_socket: self.guest_port_socket(),
            console_socket: socket("console.sock"),
            serial_log: file("serial.log"),
            qmp_socket: socket("qmp.sock"),
            events: file(QEMU_EVENTS),
            metadata_socket: self.metadata_socket(),
            forwarder: self.host.forwarder.clone(),
        }
    }

    /// On silicon a guest reaches its secure processor by itself, and this host has no way in.
    pub(super) fn guest_port_socket(&self) -> Option<PathBuf> {
        let development = self.host.config.platform == Platform::Development;
        development.then(|| self.dir.socket("guest-port.sock"))
    }

    fn metadata_socket(&self) -> PathBuf {
        self.dir.socket("metadata.sock")
    }

    /// Starts the VM's metadata service unless it runs. A guest without it boots all the same.
    pub(super) fn serve_metadata(&mut self) {
        if self.metadata.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let instance = metadata::document(&self.spec, &self.host.config.region);
        let metadata = Metadata { instance, certificates: self.certificates.clone() };
        match metadata::serve(&self.metadata_socket(), metadata) {
            Ok(task) => self.metadata = Some(task),
            Err(error) => tracing::error!(vm = self.spec.vm_id, %error, "no metadata service"),
        }
    }

    pub(super) async fn power_down(&mut self) -> Result<(), Box<Failure>> {
        let now = now();
        if let Err(error) = qmp::command(&self.dir.socket("qmp.sock"), "system_powerdown").await {
            tracing::warn!(vm = self.spec.vm_id, %error, "the power button could not be pressed");
        }
        self.record.press_again_at = Some(now + PRESS_AGAIN);
        let patience = if self.disk_is_still_closed() { 0 } else { self.host.config.shutdown_seconds * 1000 };
        let deadline = now + patience;
        self.record.stop_deadline.get_or_insert(deadline);
        self.keep()
    }

    /// Whether the guest is still in front of its encrypted disk: it has mounted nothing that wants to be written back, and
    /// its firmware does not hear the button.
    fn disk_is_still_closed(&self) -> bool {
        let document: Option<LaunchDocument> = serde_json::from_str(&self.spec.launch_document).ok();
        let encrypted = document
            .is_some_and(|document| document.security_encryption == SecurityEncryption::DiskWithVMGuestState);
        encrypted && self.paravisor.seen.volumes_opened <= self.record.volumes_before
    }

    pub(super) async fn end_qemu(&mut self) -> Result<(), Box<Failure>> {
        let Some(qemu) = self.record.qemu.clone() else { return Ok(()) };
        if let Err(error) = qmp::command(&self.dir.socket("qmp.sock"), "quit").await {
            tracing::info!(vm = self.spec.vm_id, %error, "QEMU could not be asked to quit");
            qemu.terminate();
        }
        end(&qemu).await;
        Ok(())
    }
}

/// Puts the command that turns events on into QEMU's pipe. The pipe keeps it as long as somebody has it open.
fn ask_for_events(pipe: &Path) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).open(pipe)?;
    file.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
    Ok(file)
}
