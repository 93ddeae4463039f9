//! A machine without processors: it takes QEMU's arguments, speaks QEMU's protocols, reaches its devices over the sockets
//! that QEMU would reach them by, and plays a guest that boots, unlocks its disk and writes to it. A boot takes a moment.
//!
//! A guest whose devices are gone hangs, as one does whose disk does not answer; one that cannot unlock its disk powers off.

mod nbd;
mod tpm;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use self::nbd::NbdDisk;
use self::tpm::EmulatedTpm;
use crate::guest::disk::Disk;
use crate::guest::{Devices, Guest};

/// What is taken from QEMU's arguments.
#[derive(Debug)]
pub struct Machine {
    vars: PathBuf,
    tpm: PathBuf,
    disk: PathBuf,
    serial_log: PathBuf,
    events: PathBuf,
    qmp: PathBuf,
}

impl Machine {
    /// Reads QEMU's arguments.
    pub fn from_arguments(arguments: &[String]) -> Result<Self> {
        let path = |option: &str, property: &str| {
            let value = arguments.iter().find(|argument| argument.contains(option));
            let value = value.with_context(|| format!("no argument with {option}"))?;
            let found = value.split(',').find_map(|part| part.strip_prefix(property));
            found.map(PathBuf::from).with_context(|| format!("no {property} in {value}"))
        };
        Ok(Self {
            vars: path("if=pflash,unit=1,", "file=")?,
            tpm: path("socket,id=tpm,", "path=")?,
            disk: path("driver=nbd,node-name=os,", "server.path=")?,
            serial_log: path("socket,id=console,", "logfile=")?,
            events: path("pipe,id=events,", "path=")?,
            qmp: path("unix:", "unix:")?,
        })
    }

    /// Runs until the guest powers off or QMP says `quit`.
    pub fn run(self) -> Result<()> {
        let devices = Sockets::connect(&self)?;
        let listener = UnixListener::bind(&self.qmp).context("listening for QMP")?;
        let _pipe = self.take_capabilities()?;
        self.say("{\"return\": {}}")?;
        let machine = Arc::new(self);
        let (guest, disk) = (Arc::clone(&machine), Arc::clone(&devices.disk));
        std::thread::spawn(move || guest.run_guest(devices));
        for stream in listener.incoming() {
            // A client that goes away ends its own connection only.
            let _ = machine.obey(stream?, &disk);
        }
        Ok(())
    }

    /// The event monitor: its first command turns events on, and the pipe stays open.
    fn take_capabilities(&self) -> Result<File> {
        let pipe = File::options().read(true).write(true).open(self.events.with_extension("in"))?;
        let mut line = String::new();
        BufReader::new(pipe.try_clone()?).read_line(&mut line)?;
        ensure!(line.contains("qmp_capabilities"), "the event monitor's first command is {line}");
        Ok(pipe)
    }

    fn say(&self, line: &str) -> Result<()> {
        let mut file = File::options().append(true).open(self.events.with_extension("out"))?;
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }

    fn obey(&self, stream: UnixStream, disk: &NbdDisk) -> Result<()> {
        let mut writer = stream.try_clone()?;
        writeln!(writer, "{{\"QMP\": {{}}}}")?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            writeln!(writer, "{{\"return\": {{}}}}")?;
            if line.contains("\"system_powerdown\"") {
                // The guest's last words; a disk that is gone makes no difference to them.
                let _ = disk.flush().and_then(|()| disk.disconnect());
                self.end("guest-shutdown");
            } else if line.contains("\"quit\"") {
                self.end("host-qmp-quit");
            }
        }
        Ok(())
    }

    fn end(&self, reason: &str) -> ! {
        let event = format!("{{\"event\": \"SHUTDOWN\", \"data\": {{\"reason\": \"{reason}\"}}}}");
        std::process::exit(i32::from(self.say(&event).is_err()));
    }

    fn run_guest(&self, devices: Sockets) {
        match self.boot(devices) {
            Ok(count) => self.print(&format!("boot {count}: the volume is open")),
            Err(error) if error.is::<NoVolumeKey>() => {
                self.print(&format!("{error:#}"));
                self.end("guest-shutdown");
            }
            Err(error) => {
                self.print(&format!("the guest hangs: {error:#}"));
                loop {
                    std::thread::park();
                }
            }
        }
        // A running guest keeps its devices.
        loop {
            std::thread::park();
        }
    }

    fn boot(&self, devices: Sockets) -> Result<u64> {
        let disk = Arc::clone(&devices.disk);
        let guest: Guest<Sockets> = Guest::boot(devices, &self.vars);
        let key = match guest.open_volume() {
            Ok(key) => key,
            Err(crate::guest::NoVolume::NoDevice) => bail!("a device is gone"),
            Err(why) => return Err(NoVolumeKey(format!("{why:?}")).into()),
        };
        let magic = guest.superblock_magic(&key);
        ensure!(magic == [0x53, 0xef], "the root file system is not the image's");
        let count = guest.count_boot(&key)?;
        disk.flush()?;
        // The guest lives as long as its machine.
        std::mem::forget(guest);
        Ok(count)
    }

    fn print(&self, line: &str) {
        let opened = File::options().create(true).append(true).open(&self.serial_log);
        let _ = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

/// The initramfs could not open the volume.
#[derive(Debug)]
struct NoVolumeKey(String);

impl std::fmt::Display for NoVolumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the volume stays closed: {}", self.0)
    }
}

impl std::error::Error for NoVolumeKey {}

/// The devices behind sockets.
struct Sockets {
    tpm: EmulatedTpm,
    disk: Arc<NbdDisk>,
}

impl Sockets {
    fn connect(machine: &Machine) -> Result<Self> {
        let tpm = EmulatedTpm::connect(&machine.tpm).context("connecting to the TPM")?;
        let disk = Arc::new(NbdDisk::connect(&machine.disk).context("connecting to the disk")?);
        Ok(Self { tpm, disk })
    }
}

impl Devices for Sockets {
    fn power_on(&self) -> bool {
        self.tpm.init().is_ok()
    }

    fn tpm(&self, command: &[u8]) -> Vec<u8> {
        self.tpm.command(command).unwrap_or_default()
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }
}

/// Runs a machine with this process's arguments; QEMU's exit status 1 if it cannot.
pub fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Machine::from_arguments(&arguments).and_then(Machine::run) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "stand-in-qemu: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Where the program lies: beside the others.
pub fn program() -> Result<PathBuf> {
    let path = crate::installation::programs()?.join("stand-in-qemu");
    ensure!(path.exists(), "stand-in-qemu is not built: run `cargo build` first");
    Ok(path)
}

/// How often a guest said that its volume is open, by the counts that it read from its disk.
pub fn boots(serial_log: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(serial_log).unwrap_or_default();
    let count = |line: &str| line.strip_prefix("boot ")?.split(':').next()?.parse().ok();
    text.lines().filter_map(count).collect()
}
