//! QEMU's command line for one VM. A pure function, so that a test can show it whole.
//!
//! The VM has: flash (code read-only, variables), a TPM and two disks that the paravisor serves, a network card to the
//! outside and one to the metadata service, a source of entropy, a serial console. Nothing else: no display, no USB, no
//! monitor but QMP.
//!
//! A reset ends QEMU (`-no-reboot`): the paravisor has to seal for the next boot before the next firmware runs.

use std::path::{Path, PathBuf};

use internal_api::host::Accelerator;
use snp::psp::port::PORT_NAME;

/// What the command line depends on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Upper-case GUID; also the SMBIOS system UUID.
    pub vm_id: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// How guest code is run.
    pub accelerator: Accelerator,
    /// Loopback port for SSH.
    pub ssh_port: u16,
    /// Whether the guest may open connections to the outside.
    pub outbound: bool,
    /// Firmware code, read-only.
    pub firmware_code: PathBuf,
    /// Firmware variables.
    pub vars: PathBuf,
    /// Where the paravisor serves the TPM.
    pub tpm_socket: PathBuf,
    /// Where the paravisor serves the OS disk.
    pub disk_socket: PathBuf,
    /// Where the paravisor serves the config drive.
    pub config_drive_socket: PathBuf,
    /// Where the paravisor serves the guest's port to the secure processor; on development hosts only.
    pub guest_port_socket: Option<PathBuf>,
    /// The serial console, for one client at a time.
    pub console_socket: PathBuf,
    /// All that the serial console ever said.
    pub serial_log: PathBuf,
    /// QMP.
    pub qmp_socket: PathBuf,
    /// Prefix of the pair of event files: `.in` and `.out`.
    pub events: PathBuf,
    /// The metadata service's socket.
    pub metadata_socket: PathBuf,
    /// Program with the subcommand `forward`: the host agent itself.
    pub forwarder: PathBuf,
}

impl Machine {
    /// The arguments.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Arguments::default();
        self.board(&mut arguments);
        self.firmware(&mut arguments);
        self.devices(&mut arguments);
        self.network(&mut arguments);
        self.consoles(&mut arguments);
        arguments.0
    }

    fn board(&self, to: &mut Arguments) {
        let (accelerator, cpu) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            // Five-level paging costs a translated guest much and gives it nothing.
            Accelerator::Tcg => ("tcg,thread=multi", "max,la57=off"),
        };
        to.option("-name", format!("casemate-{}", self.vm_id));
        to.option("-uuid", self.vm_id.to_lowercase());
        to.flag("-nodefaults");
        to.flag("-no-user-config");
        to.flag("-no-reboot");
        to.option("-display", "none");
        // `elevateprivileges` and `resourcecontrol` would also bind the children of the forward to the metadata
        // service, which call setsid and sched_getaffinity before they run.
        to.option("-sandbox", "on,obsolete=deny");
        to.option("-machine", "q35,smm=on,vmport=off");
        to.option("-accel", accelerator);
        to.option("-cpu", cpu);
        to.option("-smp", self.vcpus.to_string());
        to.option("-m", format!("{}M", self.memory_mib));
        to.option("-rtc", "base=utc");
    }

    fn firmware(&self, to: &mut Arguments) {
        to.option("-global", "driver=cfi.pflash01,property=secure,value=on");
        to.option("-global", "ICH9-LPC.disable_s3=1");
        let (code, vars) = (value(&self.firmware_code), value(&self.vars));
        to.option("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"));
        to.option("-drive", format!("if=pflash,unit=1,format=raw,file={vars}"));
    }

    fn devices(&self, to: &mut Arguments) {
        to.option("-chardev", format!("socket,id=tpm,path={}", value(&self.tpm_socket)));
        to.option("-tpmdev", "emulator,id=tpm0,chardev=tpm");
        to.option("-device", "tpm-crb,tpmdev=tpm0");
        // Without the page cache's say: what the paravisor answers is what the guest reads.
        to.option("-blockdev", nbd("os", &self.disk_socket, ""));
        to.option("-device", "virtio-blk-pci,drive=os,bootindex=0");
        to.option("-blockdev", nbd("config", &self.config_drive_socket, ",read-only=on"));
        to.option("-device", "virtio-blk-pci,drive=config");
        to.option("-object", "rng-random,id=rng0,filename=/dev/urandom");
        to.option("-device", "virtio-rng-pci,rng=rng0");
    }

    fn network(&self, to: &mut Arguments) {
        let restrict = if self.outbound { "off" } else { "on" };
        to.option(
            "-netdev",
            format!("user,id=net0,restrict={restrict},hostfwd=tcp:127.0.0.1:{}-:22", self.ssh_port),
        );
        to.option("-device", format!("virtio-net-pci,netdev=net0,romfile=,mac={}", mac(&self.vm_id, 0)));
        let command = format!("{} forward {}", word(&self.forwarder), word(&self.metadata_socket));
        to.option(
            "-netdev",
            format!(
                "user,id=net1,restrict=on,net=169.254.169.0/24,host=169.254.169.1,dhcpstart=169.254.169.20,\
                 dns=169.254.169.3,guestfwd=tcp:169.254.169.254:80-cmd:{}",
                command.replace(',', ",,")
            ),
        );
        to.option("-device", format!("virtio-net-pci,netdev=net1,romfile=,mac={}", mac(&self.vm_id, 1)));
    }

    fn consoles(&self, to: &mut Arguments) {
        let (console, log) = (value(&self.console_socket), value(&self.serial_log));
        to.option(
            "-chardev",
            format!("socket,id=console,path={console},server=on,wait=off,logfile={log},logappend=on"),
        );
        to.option("-serial", "chardev:console");
        // The last of the PCI devices: the others keep their slots, with it and without.
        if let Some(socket) = &self.guest_port_socket {
            // The paravisor may be replaced, and ends a connection whose words make no sense. (`reconnect-ms` of newer
            // releases is not known to those of 2022, the older name is known to all.)
            to.option("-chardev", format!("socket,id=snp,path={},reconnect=1", value(socket)));
            to.option("-device", "virtio-serial-pci");
            to.option("-device", format!("virtserialport,chardev=snp,name={PORT_NAME}"));
        }
        to.option("-chardev", events_argument(&self.events));
        to.option("-mon", "chardev=events,mode=control");
        to.option("-qmp", format!("unix:{},server=on,wait=off", value(&self.qmp_socket)));
    }
}

/// A locally administered address that stays the same over the VM's life: from its id.
pub fn mac(vm_id: &str, card: u8) -> String {
    let id: String = vm_id.chars().filter(char::is_ascii_hexdigit).take(6).collect();
    let id = id.to_lowercase();
    let byte = |at: usize| id.get(at..at + 2).unwrap_or("00").to_owned();
    format!("52:54:{card:02x}:{}:{}:{}", byte(0), byte(2), byte(4))
}

/// The argument that names the event files; no two VMs have the same.
pub fn events_argument(events: &Path) -> String {
    format!("pipe,id=events,path={}", value(events))
}

/// An NBD client that waits for a paravisor that is being replaced.
fn nbd(node: &str, socket: &Path, more: &str) -> String {
    let socket = value(socket);
    format!("driver=nbd,node-name={node},server.type=unix,server.path={socket},reconnect-delay=60{more}")
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.0.extend([name.to_owned(), value.into()]);
    }
}

/// A path as an option's value: a comma is doubled.
fn value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// A path as a word of a command that is split as a shell does.
fn word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn machine() -> Machine {
        let run = |name: &str| Path::new("/run/vm").join(name);
        Machine {
            vm_id: "0D6F2B8C-4E0B-4E57-9B5C-2C7D9A1E3F00".to_owned(),
            vcpus: 2,
            memory_mib: 1024,
            accelerator: Accelerator::Tcg,
            ssh_port: 22200,
            outbound: true,
            firmware_code: "/fw/code.fd".into(),
            vars: "/vm/vars.fd".into(),
            tpm_socket: run("tpm.sock"),
            disk_socket: run("disk.sock"),
            config_drive_socket: run("config-drive.sock"),
            guest_port_socket: Some(run("guest-port.sock")),
            console_socket: run("console.sock"),
            serial_log: "/vm/serial.log".into(),
            qmp_socket: run("qmp.sock"),
            events: run("qemu-events"),
            metadata_socket: run("metadata.sock"),
            forwarder: "/opt/case mate/casemate-host-agent".into(),
        }
    }

    fn shown(machine: &Machine) -> String {
        let text = machine.arguments().join("\n");
        text.replace("\n-", "\n\u{1}").replace('\n', " ").replace('\u{1}', "\n-").replace(" \n", "\n")
    }

    #[test]
    fn the_whole_command_line() {
        expect![[r#"
            -name casemate-0D6F2B8C-4E0B-4E57-9B5C-2C7D9A1E3F00
            -uuid 0d6f2b8c-4e0b-4e57-9b5c-2c7d9a1e3f00
            -nodefaults
            -no-user-config
            -no-reboot
            -display none
            -sandbox on,obsolete=deny
            -machine q35,smm=on,vmport=off
            -accel tcg,thread=multi
            -cpu max,la57=off
            -smp 2
            -m 1024M
            -rtc base=utc
            -global driver=cfi.pflash01,property=secure,value=on
            -global ICH9-LPC.disable_s3=1
            -drive if=pflash,unit=0,format=raw,readonly=on,file=/fw/code.fd
            -drive if=pflash,unit=1,format=raw,file=/vm/vars.fd
            -chardev socket,id=tpm,path=/run/vm/tpm.sock
            -tpmdev emulator,id=tpm0,chardev=tpm
            -device tpm-crb,tpmdev=tpm0
            -blockdev driver=nbd,node-name=os,server.type=unix,server.path=/run/vm/disk.sock,reconnect-delay=60
            -device virtio-blk-pci,drive=os,bootindex=0
            -blockdev driver=nbd,node-name=config,server.type=unix,server.path=/run/vm/config-drive.sock,reconnect-delay=60,read-only=on
            -device virtio-blk-pci,drive=config
            -object rng-random,id=rng0,filename=/dev/urandom
            -device virtio-rng-pci,rng=rng0
            -netdev user,id=net0,restrict=off,hostfwd=tcp:127.0.0.1:22200-:22
            -device virtio-net-pci,netdev=net0,romfile=,mac=52:54:00:0d:6f:2b
            -netdev user,id=net1,restrict=on,net=169.254.169.0/24,host=169.254.169.1,dhcpstart=169.254.169.20,dns=169.254.169.3,guestfwd=tcp:169.254.169.254:80-cmd:'/opt/case mate/casemate-host-agent' forward '/run/vm/metadata.sock'
            -device virtio-net-pci,netdev=net1,romfile=,mac=52:54:01:0d:6f:2b
            -chardev socket,id=console,path=/run/vm/console.sock,server=on,wait=off,logfile=/vm/serial.log,logappend=on
            -serial chardev:console
            -chardev socket,id=snp,path=/run/vm/guest-port.sock,reconnect=1
            -device virtio-serial-pci
            -device virtserialport,chardev=snp,name=casemate.sev-guest
            -chardev pipe,id=events,path=/run/vm/qemu-events
            -mon chardev=events,mode=control
            -qmp unix:/run/vm/qmp.sock,server=on,wait=off"#]].assert_eq(&shown(&machine()));
    }

    #[test]
    fn kvm_without_outbound_connections() {
        let machine = Machine { accelerator: Accelerator::Kvm, outbound: false, ..machine() };
        let text = shown(&machine);
        assert!(text.contains("-accel kvm") && text.contains("-cpu host"), "{text}");
        assert!(text.contains("id=net0,restrict=on,hostfwd"), "{text}");
    }

    #[test]
    fn a_guest_that_reaches_its_processor_by_itself_has_no_port() {
        let text = shown(&Machine { guest_port_socket: None, ..machine() });
        assert!(!text.contains("virtio-serial") && !text.contains("id=snp"), "{text}");
    }

    #[test]
    fn a_path_cannot_add_options_or_words() {
        let machine = Machine {
            vars: "/vm/a,readonly=off/vars.fd".into(),
            forwarder: "/opt/it's".into(),
            metadata_socket: "/run/a,b.sock".into(),
            ..machine()
        };
        let text = shown(&machine);
        assert!(text.contains("file=/vm/a,,readonly=off/vars.fd"), "{text}");
        assert!(text.contains(r"-cmd:'/opt/it'\''s' forward '/run/a,,b.sock'"), "{text}");
    }
}
