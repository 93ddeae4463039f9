//! The TPM behind QEMU's emulator protocol, driven by a client of that protocol.

use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use paravisor::tpm::engine::{BufferSizes, EngineError, TpmEngine};
use paravisor::tpm::libtpms::LibTpms;
use paravisor::tpm::server::{SharedDevice, TpmDevice, serve};

use crate::support::one_tpm_at_a_time;

const STARTUP_CLEAR: &str = "80010000000c000001440000";
const READ_CLOCK: &str = "80010000000a00000181";
const GET_RANDOM_8: &str = "80010000000c0000017b0008";

/// The engine without anything of the paravisor's in between.
struct Bare(LibTpms);

impl TpmDevice for Bare {
    fn power_on(&mut self) -> bool {
        self.0.power_on().is_ok()
    }
    fn power_off(&mut self) {
        self.0.power_off();
    }
    fn command(&mut self, command: &[u8]) -> Vec<u8> {
        self.0.process(command).unwrap_or_else(|_| hex::decode("80010000000a00000101").unwrap())
    }
    fn set_locality(&mut self, locality: u8) {
        self.0.set_locality(locality);
    }
    fn buffer_sizes(&mut self, wanted: u32) -> BufferSizes {
        self.0.buffer_sizes(wanted)
    }
    fn established(&self) -> bool {
        self.0.established()
    }
    fn reset_established(&mut self, locality: u8) -> bool {
        self.0.reset_established(locality)
    }
}

/// What QEMU's `tpm_emulator.c` does.
struct Qemu {
    control: UnixStream,
    data: UnixStream,
}

impl Qemu {
    fn connect(path: &Path) -> Self {
        let control = UnixStream::connect(path).unwrap();
        let (data, theirs) = UnixStream::pair().unwrap();
        let descriptors = [theirs.as_raw_fd()];
        sendmsg::<()>(
            control.as_raw_fd(),
            &[IoSlice::new(&0x10u32.to_be_bytes())],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        let mut qemu = Self { control, data };
        assert_eq!(qemu.answer(4), "00000000");
        qemu
    }

    fn answer(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.control.read_exact(&mut bytes).unwrap();
        hex::encode(bytes)
    }

    fn control(&mut self, request: &str, answer: usize) -> String {
        self.control.write_all(&hex::decode(request).unwrap()).unwrap();
        self.answer(answer)
    }

    fn tpm(&mut self, command: &str) -> String {
        self.data.write_all(&hex::decode(command).unwrap()).unwrap();
        let mut header = [0; 10];
        self.data.read_exact(&mut header).unwrap();
        let size = u32::from_be_bytes(header[2..6].try_into().unwrap()) as usize;
        let mut rest = vec![0; size - 10];
        self.data.read_exact(&mut rest).unwrap();
        hex::encode([&header[..], &rest].concat())
    }
}

/// A served TPM; the server ends with this value.
struct Fixture {
    path: PathBuf,
    listener: UnixListener,
    server: Option<JoinHandle<std::io::Result<()>>>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn start(engine: LibTpms) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tpm.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = listener.try_clone().unwrap();
        let device: SharedDevice = Arc::new(Mutex::new(Bare(engine)));
        let server = Some(std::thread::spawn(move || serve(&served, &device)));
        Self { path, listener, server, _folder: folder }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        shutdown(self.listener.as_raw_fd(), Shutdown::Both).unwrap();
        self.server.take().unwrap().join().unwrap().unwrap();
    }
}

#[test]
fn qemus_own_order_of_commands_starts_a_tpm_that_survives_reset_and_a_new_qemu() {
    let _tpm = one_tpm_at_a_time();
    let fixture = Fixture::start(LibTpms::new(None).unwrap());
    let mut qemu = Qemu::connect(&fixture.path);
    let capabilities = u64::from_str_radix(&qemu.control("00000001", 8), 16).unwrap();
    // INIT, SHUTDOWN, GET_TPMESTABLISHED, SET_LOCALITY, RESET_TPMESTABLISHED, STOP, SET_DATAFD, SET_BUFFERSIZE.
    let demanded = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x400 | 0x1000 | 0x2000;
    assert_eq!(capabilities & demanded, demanded, "the bits that QEMU demands of a TPM 2.0");
    assert_eq!(capabilities & (0x40 | 0x100 | 0x200), 0, "no state blob for the host");
    assert!(qemu.tpm(READ_CLOCK).starts_with("8001"), "QEMU probes the version before INIT");
    assert_eq!(qemu.control("0000000e", 4), "00000000");
    assert_eq!(qemu.control("0000001100000000", 16), "000000000000100000000af800001000");
    assert_eq!(qemu.control("0000000e", 4), "00000000");
    assert_eq!(qemu.control("0000001100000f80", 16), "0000000000000f8000000af800001000");
    assert_eq!(qemu.control("0000000200000000", 4), "00000000");
    assert_eq!(qemu.control("00000004", 8), "0000000000000000");
    assert_eq!(qemu.control("0000000500000000", 4), "00000000");
    assert_eq!(qemu.tpm(GET_RANDOM_8), "80010000000a00000100", "not started: TPM_RC_INITIALIZE");
    assert_eq!(qemu.tpm(STARTUP_CLEAR), "80010000000a00000000");
    assert!(qemu.tpm(GET_RANDOM_8).starts_with("800100000014000000000008"));
    // reset
    assert_eq!(qemu.control("0000000e", 4), "00000000");
    assert_eq!(qemu.control("0000000200000000", 4), "00000000");
    assert_eq!(qemu.tpm(GET_RANDOM_8), "80010000000a00000100");
    assert_eq!(qemu.tpm(STARTUP_CLEAR), "80010000000a00000000");
    // a state blob is not for the host
    assert_eq!(&qemu.control("0000000c000000000000000100000000", 4), "0000000a");
    drop(qemu);

    let mut next = Qemu::connect(&fixture.path);
    assert_eq!(next.control("0000000200000000", 4), "00000000");
    assert_eq!(next.tpm(STARTUP_CLEAR), "80010000000a00000000");
    assert_eq!(next.control("00000003", 4), "00000000");
}

#[test]
fn a_command_with_an_impossible_size_ends_the_data_connection() {
    let _tpm = one_tpm_at_a_time();
    let fixture = Fixture::start(LibTpms::new(None).unwrap());
    for command in ["8001000000090000017b", "8001ffffffff0000017b"] {
        let mut qemu = Qemu::connect(&fixture.path);
        assert_eq!(qemu.control("0000000200000000", 4), "00000000");
        qemu.data.write_all(&hex::decode(command).unwrap()).unwrap();
        assert_eq!(qemu.data.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}

#[test]
fn state_given_back_is_the_same_tpm_and_damaged_state_is_refused() {
    let _tpm = one_tpm_at_a_time();
    let mut engine = LibTpms::new(None).unwrap();
    assert!(matches!(LibTpms::new(None).err(), Some(EngineError::InUse)));
    engine.power_on().unwrap();
    let state = engine.state();
    assert!(state.len() > 1000);
    drop(engine);

    let mut again = LibTpms::new(Some(state.clone())).unwrap();
    again.power_on().unwrap();
    drop(again);

    let mut broken = state;
    let middle = broken.len() / 2;
    broken.truncate(middle);
    let mut engine = LibTpms::new(Some(broken)).unwrap();
    assert!(engine.power_on().is_err());
    drop(engine);
    LibTpms::new(None).unwrap().power_on().expect("a start that failed does not keep others from starting");
}
