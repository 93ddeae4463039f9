//! Stand-ins for paravisor and QEMU: real processes that speak as those do. They are this test program itself, started
//! by a script that names the stand-in.
//!
//! The stand-in for the paravisor opens no disk and knows no key; a machine that connects to its TPM counts as one that
//! opened its volume. A file `paravisor-behaviour` beside its configuration
//! changes what it does: `refuse`, `die`, `never-ready`, `refuse-reset`, `refuse-key`.
//!
//! The stand-in for QEMU runs no guest, but obeys the power button. A file `qemu-behaviour` beside the event files changes
//! what it does: `fail` ends it at once, `deaf` makes the guest ignore the button, `closed` keeps it deaf in front of its
//! closed disk. A file `guest` makes the guest act:
//! `reset` or `off`.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use internal_api::launch::LaunchDocument;
use internal_api::paravisor::{ControlRequest, ControlResponse, Event, Failure, ParavisorConfig, Step};

/// Writes the script that starts the stand-in `name`. Its arguments go through the environment; the argument that names
/// the VM is also one of the process, as the agent finds processes by it.
pub fn script(folder: &Path, name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("this test");
    let path = folder.join(name);
    // Written once: a later agent may find the first one's script still being started, and so busy.
    if path.exists() {
        return path;
    }
    let text = format!(
        "#!/bin/sh\nfor word; do case $word in *paravisor.toml|pipe,id=events,*) vm=$word;; unix:*) qmp=$word;; socket,id=tpm,*) tpm=$word;; esac; done\n\
         export STAND_IN={name} VM=\"$vm\" QMP=\"$qmp\" TPM=\"$tpm\"\n\
         exec {} --exact agent::tests::stand_in::stand_in --ignored --nocapture --skip \"$vm\"\n",
        program.display()
    );
    std::fs::write(&path, text).expect("script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    path
}

#[test]
#[ignore = "a process that other tests start"]
fn stand_in() {
    let variable = |name: &str| std::env::var(name).expect("set by the script");
    let vm = variable("VM");
    let done = match variable("STAND_IN").as_str() {
        "paravisor" => paravisor(Path::new(&vm)),
        _ => {
            let events = vm.trim_start_matches("pipe,id=events,path=").to_owned();
            let (qmp, tpm) = (variable("QMP"), variable("TPM"));
            let qmp = qmp.trim_start_matches("unix:").split(',').next().expect("a path");
            let tpm = tpm.trim_start_matches("socket,id=tpm,path=");
            qemu(Path::new(&events), Path::new(qmp), Path::new(tpm))
        }
    };
    if let Err(error) = done {
        let _ = writeln!(std::io::stderr(), "{error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

fn paravisor(path: &Path) -> Result<(), Box<dyn Error>> {
    let config: ParavisorConfig = toml::from_str(&std::fs::read_to_string(path)?)?;
    let behaviour = std::fs::read_to_string(path.with_file_name("paravisor-behaviour")).unwrap_or_default();
    say(&Event::Step { step: Step::Attest })?;
    say(&Event::StepDone { step: Step::Attest, millis: 1 })?;
    match behaviour.trim() {
        "refuse" => {
            say(&Event::Refused { failure: refusal() })?;
            std::process::exit(3);
        }
        "die" => std::process::exit(1),
        "never-ready" => loop {
            std::thread::park();
        },
        _ => {}
    }
    let listener = UnixListener::bind(&config.control_socket)?;
    let tpm = UnixListener::bind(&config.tpm_socket)?;
    let document: LaunchDocument = serde_json::from_str(&std::fs::read_to_string(&config.launch_document)?)?;
    say(&Event::KeyInUse { key_id: document.key_id })?;
    say(&Event::Ready { generation: 1, evidence: format!("{{\"pid\":{}}}", std::process::id()) })?;
    std::thread::spawn(move || {
        for _machine in tpm.incoming() {
            say(&Event::VolumeOpened).expect("said");
        }
    });
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let request: ControlRequest = serde_json::from_str(&line)?;
        let refuses = behaviour.trim() == "refuse-reset" && request == ControlRequest::GuestReset;
        let response = if refuses { ControlResponse::Failed(refusal()) } else { ControlResponse::Done };
        writeln!(stream, "{}", serde_json::to_string(&response)?)?;
        if let ControlRequest::ChangeKey { key_id } = request.clone() {
            say(&match behaviour.trim() {
                "refuse-key" => Event::KeyNotChanged { key_id, failure: refusal() },
                _ => Event::KeyInUse { key_id },
            })?;
        }
        if request == ControlRequest::GuestStopped {
            say(&Event::Stopped { generation: 2 })?;
            return Ok(());
        }
    }
    Ok(())
}

fn say(event: &Event) -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(event)?)?;
    Ok(stdout.flush()?)
}

fn refusal() -> Failure {
    Failure {
        code: "PolicyRefused".to_owned(),
        claim: "c".to_owned(),
        expected: "e".to_owned(),
        actual: "a".to_owned(),
        rule: "r".to_owned(),
        remedy: "m".to_owned(),
        transient: false,
    }
}

fn qemu(events: &Path, qmp: &Path, tpm: &Path) -> Result<(), Box<dyn Error>> {
    let folder = events.parent().ok_or("no folder")?.to_owned();
    let behaviour = std::fs::read_to_string(folder.join("qemu-behaviour")).unwrap_or_default();
    if behaviour.trim() == "fail" {
        return Err("Could not set up host forwarding rule".into());
    }
    let mut capabilities = String::new();
    let pipe = std::fs::File::options().read(true).write(true).open(events.with_extension("in"))?;
    BufReader::new(pipe).read_line(&mut capabilities)?;
    if !capabilities.contains("qmp_capabilities") {
        return Err("no capabilities command".into());
    }
    let behaviour = behaviour.trim();
    let _tpm = (behaviour != "closed").then(|| UnixStream::connect(tpm)).transpose()?;
    append(events, "{\"return\": {}}")?;
    let listener = UnixListener::bind(qmp)?;
    let guest_events = events.to_owned();
    std::thread::spawn(move || act(&folder.join("guest"), &guest_events));
    for stream in listener.incoming() {
        let mut stream = stream?;
        writeln!(stream, "{{\"QMP\": {{}}}}")?;
        for line in BufReader::new(stream.try_clone()?).lines() {
            let line = line?;
            writeln!(stream, "{{\"return\": {{}}}}")?;
            if line.contains("system_powerdown") && !["deaf", "closed"].contains(&behaviour) {
                end(events, "guest-shutdown");
            } else if line.contains("\"quit\"") {
                end(events, "host-qmp-quit");
            }
        }
    }
    Ok(())
}

/// The guest's own doings.
fn act(order: &Path, events: &Path) {
    loop {
        let asked = std::fs::read_to_string(order).unwrap_or_default();
        let reason = match asked.trim() {
            "reset" => Some("guest-reset"),
            "off" => Some("guest-shutdown"),
            _ => None,
        };
        if let Some(reason) = reason {
            let _ = std::fs::remove_file(order);
            end(events, reason);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn end(events: &Path, reason: &str) {
    let _ = append(events, &format!("{{\"event\": \"SHUTDOWN\", \"data\": {{\"reason\": \"{reason}\"}}}}"));
    std::process::exit(0);
}

fn append(events: &Path, line: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::options().append(true).open(events.with_extension("out"))?;
    writeln!(file, "{line}")
}
