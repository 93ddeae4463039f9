//! The sockets: one for the host, one for each guest. A thread serves a connection.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use snp::psp::{FrameError, GuestRequest, GuestResponse, HostRequest, HostResponse, status};

use crate::RunError;
use crate::config::Config;
use crate::platform::{Effect, Platform};

/// Listens for the host; returns when the socket is there.
pub fn listen(config: &Config, platform: &Arc<Platform>) -> Result<(), RunError> {
    let on = |path: &Path| {
        let on = path.display().to_string();
        move |source| RunError::Listen { on, source }
    };
    fs::create_dir_all(&config.runtime_dir).map_err(on(&config.runtime_dir))?;
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(&config.runtime_dir, private).map_err(on(&config.runtime_dir))?;
    forget_guests(&config.runtime_dir).map_err(on(&config.runtime_dir))?;
    let listener = bind(&config.host_socket).map_err(on(&config.host_socket))?;
    let platform = Arc::clone(platform);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let platform = Arc::clone(&platform);
            thread::spawn(move || serve_host(&stream, &platform));
        }
    });
    Ok(())
}

/// A former process's guests are gone with it.
fn forget_guests(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("guest-") && name.ends_with(".sock") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A socket that only this user can use.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn serve_host(stream: &UnixStream, platform: &Arc<Platform>) {
    let mut from = BufReader::new(stream);
    let mut to = stream;
    let mut begun = Begun { platform, contexts: BTreeSet::new() };
    loop {
        let response = match HostRequest::read(&mut from) {
            Ok(request) => {
                let (point, finished) = (point(&request), finished(&request));
                let response = carry_out(request, platform);
                begun.note(&response, finished);
                fault_plan::reach("soft-pspd", point);
                response
            }
            Err(error) if ends_connection(&error) => return,
            Err(error) => HostResponse::Error { code: status::INVALID_COMMAND, message: error.to_string() },
        };
        if response.write(&mut to).is_err() {
            return;
        }
    }
}

/// The contexts that a connection has begun to launch. They go with it, as those of a host process go with its file
/// descriptors on silicon; a finished one is its guest's.
struct Begun<'a> {
    platform: &'a Arc<Platform>,
    contexts: BTreeSet<u64>,
}

impl Begun<'_> {
    fn note(&mut self, response: &HostResponse, finished: Option<u64>) {
        match (response, finished) {
            (HostResponse::Started { context }, _) => drop(self.contexts.insert(*context)),
            (HostResponse::Finished { .. }, Some(context)) => drop(self.contexts.remove(&context)),
            _ => {}
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        for context in &self.contexts {
            // One that was given back before is unknown by now.
            let _ = self.platform.host(HostRequest::Decommission { context: *context });
        }
    }
}

fn finished(request: &HostRequest) -> Option<u64> {
    match request {
        HostRequest::LaunchFinish { context, .. } => Some(*context),
        _ => None,
    }
}

/// The request in a fault plan: carried out, but not answered.
fn point(request: &HostRequest) -> &'static str {
    match request {
        HostRequest::LaunchStart { .. } => "after LaunchStart",
        HostRequest::LaunchUpdate { .. } => "after LaunchUpdate",
        HostRequest::LaunchFinish { .. } => "after LaunchFinish",
        HostRequest::Decommission { .. } => "after Decommission",
        HostRequest::PlatformStatus => "after PlatformStatus",
    }
}

fn carry_out(request: HostRequest, platform: &Arc<Platform>) -> HostResponse {
    let (response, effect) = platform.host(request);
    match effect {
        Effect::None => response,
        Effect::Open(context) => match open_guest(context, platform) {
            Ok(()) => response,
            Err(error) => {
                let _ = platform.host(HostRequest::Decommission { context });
                let message = format!("opening the guest's socket: {error}");
                HostResponse::Error { code: status::RESOURCE_LIMIT, message }
            }
        },
        Effect::Close(context) => {
            close_guest(&platform.guest_socket(context));
            response
        }
    }
}

fn open_guest(context: u64, platform: &Arc<Platform>) -> std::io::Result<()> {
    let listener = bind(&platform.guest_socket(context))?;
    let platform = Arc::clone(platform);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if !platform.runs(context) {
                return;
            }
            let platform = Arc::clone(&platform);
            thread::spawn(move || serve_guest(&stream, context, &platform));
        }
    });
    Ok(())
}

/// The guest does not run any more: a last connection wakes its listener, which then ends.
fn close_guest(path: &Path) {
    drop(UnixStream::connect(path));
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "a guest's socket could not be removed");
    }
}

fn serve_guest(stream: &UnixStream, context: u64, platform: &Platform) {
    let mut from = BufReader::new(stream);
    let mut to = stream;
    loop {
        let response = match GuestRequest::read(&mut from) {
            Ok(request) => {
                let response = platform.guest(context, &request);
                fault_plan::reach("soft-pspd", "after a guest's request");
                response
            }
            Err(error) if ends_connection(&error) => return,
            Err(error) => GuestResponse::Error { status: status::INVALID_PARAM, message: error.to_string() },
        };
        if response.write(&mut to).is_err() {
            return;
        }
    }
}

/// Whether the stream cannot be read on: it ended, or its frames lost their bounds.
fn ends_connection(error: &FrameError) -> bool {
    matches!(error, FrameError::Closed | FrameError::Io(_) | FrameError::Length { .. })
}
