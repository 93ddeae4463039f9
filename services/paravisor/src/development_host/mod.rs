//! The front end for a development host: a process beside QEMU that serves the VM's devices over Unix sockets.
//!
//! The operator can read this process. Everything that speaks of such a VM says `trustRoot: development`.

mod control;
pub mod guest_port;
mod observer;
mod secure_processor;
mod services;

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use std::{fs, io, thread};

use internal_api::paravisor::{ControlRequest, ControlResponse, Event, ParavisorConfig};
use nix::sys::signal::{SigSet, Signal};
use zeroize::Zeroizing;

pub use secure_processor::GuestChannel;
pub use services::HttpServices;

use self::control::Asker;
use self::observer::LineWriter;
use crate::failure::Stop;
use crate::flow::key_check::{Answer, Next, Watch};
use crate::flow::start::{Running, World, start};
use crate::flow::world::{Observer as _, Services, TpmFactory};
use crate::tpm::engine::{EngineError, TpmEngine};
use crate::tpm::libtpms::LibTpms;
use crate::tpm::server::SharedDevice;
use crate::{nbd, tpm};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Status 0: the guest stopped, or the process was asked to go.
    Clean,
    /// Status 3, after a `Refused` event.
    Refused,
}

/// What the main thread waits for.
enum Message {
    /// The TPM front stopped the VM; the event is out already.
    Refused,
    /// New evidence is due.
    BootChainChanged,
    /// A request of the host, and where its answer goes.
    Control(ControlRequest, Asker),
    /// SIGTERM.
    Terminate,
}

/// Runs one VM's paravisor to its end.
pub fn run(config: &ParavisorConfig) -> Ending {
    let (sender, messages) = channel();
    let observer = Arc::new(LineWriter::new(sender.clone()));
    match begin(config, &observer, &sender) {
        Ok(running) => {
            let running = Arc::new(running);
            ask_for_certificate(&running);
            watch_key(&running, &observer);
            serve_host(&running, &observer, &messages)
        }
        Err(stop) => {
            observer.refused(stop.into());
            Ending::Refused
        }
    }
}

fn begin(
    config: &ParavisorConfig,
    observer: &Arc<LineWriter>,
    sender: &Sender<Message>,
) -> Result<Running, Stop> {
    watch_signals(sender.clone()).map_err(|error| Stop::io("waiting for signals", &error))?;
    let (bundle, token) = (observer.clone(), config.release_token.clone());
    let world = World {
        config: config.clone(),
        processor: Arc::new(GuestChannel::new(config.secure_processor.clone())),
        services: Box::new(move |launch| {
            let services: Arc<dyn Services> = Arc::new(HttpServices::new(launch, token.clone())?);
            Ok(services)
        }),
        tpms: Box::new(OneTpm),
        observer: bundle,
        now: jiff::Timestamp::now(),
        listen: Box::new({
            let (config, sender) = (config.clone(), sender.clone());
            move |running| listen(running, &config, &sender).map_err(|error| Stop::io("listening", &error))
        }),
    };
    start(world)
}

/// On a thread of its own: the guest boots meanwhile, with the certificate of before.
fn ask_for_certificate(running: &Running) {
    let certificate = running.ak_certificate();
    let thread = thread::Builder::new().name("ak-certificate".to_owned());
    if let Err(error) = thread.spawn(move || certificate.renew_or_log()) {
        tracing::warn!(%error, "no thread to ask for the attestation key's certificate");
    }
}

/// Asks for the key again and again, on a thread of its own, for as long as the process lives.
fn watch_key(running: &Arc<Running>, observer: &Arc<LineWriter>) {
    let (running, observer) = (Arc::clone(running), Arc::clone(observer));
    let thread = thread::Builder::new().name("key-check".to_owned());
    if let Err(error) = thread.spawn(move || keep_asking(&running, &observer)) {
        tracing::error!(%error, "no thread to ask for the key again");
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the pause between two questions; only the process's end ends it"
)]
fn keep_asking(running: &Running, observer: &LineWriter) {
    let begun = Instant::now();
    let mut watch = Watch::new(running.key_check());
    let mut pause = watch.first();
    loop {
        thread::sleep(pause);
        let answer = running.check_key();
        let failure = match &answer {
            Answer::Revoked(failure) => Some(failure.clone()),
            Answer::Granted | Answer::Silent => None,
        };
        let (next, changed) = watch.heard(answer, begun.elapsed());
        if changed {
            observer.event(Event::KeyCheck { failure });
        }
        match next {
            Next::Ask(after) => pause = after,
            Next::End(failure) => return running.revoke(failure),
        }
    }
}

/// Moves the guest state to another key, on a thread of its own: a reset of the guest does not wait for it.
fn change_key(running: &Arc<Running>, key_id: &str) {
    let (running, key_id) = (Arc::clone(running), key_id.to_owned());
    let thread = thread::Builder::new().name("change-key".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(stop) = running.change_key(&key_id) {
            let failure = stop.failure();
            tracing::warn!(
                code = failure.code,
                actual = failure.actual,
                "the guest state stays under its key"
            );
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to change the key");
    }
}

/// libtpms, of which a process has one.
struct OneTpm;

impl TpmFactory for OneTpm {
    fn tpm(&self, state: Option<Zeroizing<Vec<u8>>>) -> Result<Box<dyn TpmEngine>, EngineError> {
        Ok(Box::new(LibTpms::new(state)?))
    }
}

fn listen(running: &Running, config: &ParavisorConfig, sender: &Sender<Message>) -> io::Result<()> {
    let device: SharedDevice = running.tpm();
    serve_on(&config.tpm_socket, "tpm", move |listener| tpm::server::serve(&listener, &device))?;
    let disk = running.disk();
    serve_on(&config.disk_socket, "disk", move |listener| nbd::server::serve(&listener, &disk))?;
    let drive = running.config_drive();
    serve_on(&config.config_drive_socket, "config-drive", move |listener| {
        nbd::server::serve(&listener, &drive)
    })?;
    if let Some(socket) = &config.guest_port_socket {
        let processor = GuestChannel::new(config.secure_processor.clone());
        serve_on(socket, "guest-port", move |listener| guest_port::serve(&listener, &processor))?;
    }
    let sender = Mutex::new(sender.clone());
    serve_on(&config.control_socket, "control", move |listener| control::serve(&listener, &sender))
}

/// Binds a socket for this user alone and serves it on a thread.
fn serve_on(
    path: &Path,
    name: &str,
    serve: impl FnOnce(UnixListener) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let label = name.to_owned();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(error) = serve(listener) {
            tracing::error!(%error, socket = label, "a socket is not served any more");
        }
    })?;
    Ok(())
}

/// SIGTERM becomes a message; all threads started later leave it to this one.
fn watch_signals(sender: Sender<Message>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            // The main thread is gone only when the process ends anyway.
            let _ = sender.send(Message::Terminate);
        }
    })?;
    Ok(())
}

fn serve_host(running: &Arc<Running>, observer: &LineWriter, messages: &Receiver<Message>) -> Ending {
    for message in messages {
        match message {
            Message::Refused => return Ending::Refused,
            Message::Terminate => {
                if let Err(error) = running.disk().flush() {
                    tracing::error!(%error, "the disk could not be flushed on SIGTERM");
                }
                return Ending::Clean;
            }
            Message::BootChainChanged => {
                if let Err(stop) = running.renew_evidence() {
                    tracing::warn!(code = stop.failure().code, "no new evidence for the changed boot chain");
                }
            }
            Message::Control(request, asker) => {
                if let Some(ending) = obey(running, observer, &request, &asker) {
                    return ending;
                }
            }
        }
    }
    Ending::Clean
}

fn obey(
    running: &Arc<Running>,
    observer: &LineWriter,
    request: &ControlRequest,
    asker: &Asker,
) -> Option<Ending> {
    match request {
        ControlRequest::ChangeKey { key_id } => {
            change_key(running, key_id);
            asker.reply(ControlResponse::Done);
            None
        }
        ControlRequest::Status => {
            asker.reply(ControlResponse::Done);
            None
        }
        ControlRequest::GuestReset => match running.reset() {
            Ok(()) => {
                asker.reply(ControlResponse::Done);
                None
            }
            Err(stop) => {
                observer.refused(stop.failure().clone());
                asker.reply(ControlResponse::Failed(stop.into()));
                Some(Ending::Refused)
            }
        },
        ControlRequest::GuestStopped => match running.stop() {
            Ok(generation) => {
                observer.event(Event::Stopped { generation });
                asker.reply(ControlResponse::Done);
                Some(Ending::Clean)
            }
            Err(stop) => {
                asker.reply(ControlResponse::Failed(stop.into()));
                None
            }
        },
    }
}
