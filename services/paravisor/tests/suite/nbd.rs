//! The NBD server against QEMU's and libnbd's clients, and against a client that does not keep to the protocol.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use paravisor::disk::BlockDevice;
use paravisor::nbd::server::{SharedDisk, serve};

const SIZE: u64 = 16 << 20;

#[derive(Default)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    flushes: AtomicU64,
    read_only: bool,
    full: bool,
}

impl BlockDevice for Memory {
    fn size(&self) -> u64 {
        SIZE
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes.lock().unwrap()[start..start + buffer.len()]);
        Ok(())
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if self.full {
            return Err(io::Error::from_raw_os_error(28));
        }
        let start = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, length: u64, _keep_space: bool) -> io::Result<()> {
        self.write_at(&vec![0; usize::try_from(length).unwrap()], offset)
    }
    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_zeroes(offset, length, false)
    }
    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct Server {
    disk: Arc<Memory>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn start(configure: impl FnOnce(&mut Memory)) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nbd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut disk = Memory { bytes: Mutex::new(vec![0; 16 << 20]), ..Memory::default() };
    configure(&mut disk);
    let disk = Arc::new(disk);
    let shared: SharedDisk = Arc::<Memory>::clone(&disk);
    std::thread::spawn(move || serve(&listener, &shared));
    Server { disk, path, _folder: folder }
}

impl Server {
    fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.path.display())
    }

    fn qemu_io(&self, options: &[&str], commands: &[&str]) -> (bool, String) {
        let mut command = Command::new("qemu-io");
        command.args(["-f", "raw"]).args(options);
        for c in commands {
            command.args(["-c", c]);
        }
        let output = command.arg(self.uri()).output().expect("qemu-io is installed (qemu-utils)");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    }
}

#[test]
fn nbdinfo_sees_the_export_as_it_is() {
    let server = start(|_| {});
    let output = Command::new("nbdinfo").args(["--json", &server.uri()]).output().expect("libnbd-bin");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let export = &info["exports"][0];
    assert_eq!(info["protocol"], "newstyle-fixed");
    assert_eq!(export["export-size"], SIZE);
    for (flag, value) in [("is_read_only", false), ("can_flush", true), ("can_fua", true), ("can_zero", true)]
    {
        assert_eq!(export[flag], value, "{flag}");
    }
}

#[test]
fn qemu_writes_reads_zeroes_trims_and_flushes() {
    let server = start(|_| {});
    let (ok, text) = server.qemu_io(
        &[],
        &[
            "write -P 0x5a 1000 70000",
            "read -P 0x5a 1000 70000",
            "read -P 0 0 1000",
            "write -z 4096 8192",
            "read -P 0 4096 8192",
            "read -P 0x5a 12288 4096",
            "discard 1M 1M",
            "write -f -P 1 0 512",
            "flush",
            "write -P 7 7M 1M",
            "read -P 7 7M 1M",
        ],
    );
    assert!(ok, "{text}");
    assert!(!text.contains("failed"), "{text}");
    assert!(server.disk.flushes.load(Ordering::SeqCst) >= 2);
}

#[test]
fn a_read_only_export_takes_no_writes() {
    let server = start(|disk| disk.read_only = true);
    let (ok, text) = server.qemu_io(&["-r"], &["read -P 0 0 4096"]);
    assert!(ok, "{text}");
    let mut client = Raw::connect(&server);
    assert_eq!(client.request(1, 0, &[1; 512], 512), 1);
    assert_eq!(client.request(6, 0, &[], 512), 1);
    assert_eq!(client.request(4, 0, &[], 512), 1);
    assert!(server.disk.bytes.lock().unwrap().iter().all(|b| *b == 0));
}

#[test]
fn a_full_disk_is_told_as_such() {
    let server = start(|disk| disk.full = true);
    assert_eq!(Raw::connect(&server).request(1, 0, &[1; 512], 512), 28);
}

#[test]
fn ranges_outside_the_disk_are_refused_and_the_connection_goes_on() {
    let server = start(|_| {});
    let mut client = Raw::connect(&server);
    for (command, offset, length, error) in [
        (0, SIZE, 1, 22),
        (0, SIZE - 1, 2, 22),
        (0, u64::MAX, 2, 22),
        (0, 0, (8 << 20) + 1, 22),
        (4, SIZE, 1, 28),
        (6, u64::MAX - 1, 4096, 28),
        (99, 0, 0, 22),
    ] {
        assert_eq!(client.request(command, offset, &[], length), error, "{command} {offset} {length}");
    }
    assert_eq!(client.request(1, SIZE - 1, &[1, 1], 2), 28);
    assert_eq!(client.request(3, 0, &[], 0), 0);
}

#[test]
fn an_unknown_export_and_unknown_options_are_refused() {
    let server = start(|_| {});
    let uri = format!("nbd+unix:///other?socket={}", server.path.display());
    assert!(!Command::new("nbdinfo").arg(&uri).output().unwrap().status.success());
    let mut stream = Raw::greet(&server);
    stream.write_all(&option(5, &[])).unwrap();
    assert_eq!(reply_kind(&mut stream), 0x8000_0001, "STARTTLS is not offered");
    stream.write_all(&option(7, &[0, 0, 0, 9, 1])).unwrap();
    assert_eq!(reply_kind(&mut stream), 0x8000_0003, "a name longer than its option");
    stream.write_all(&option(2, &[])).unwrap();
    assert_eq!(reply_kind(&mut stream), 1);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "hung up after ABORT");
}

#[test]
fn an_oversized_option_or_a_wrong_magic_ends_the_connection() {
    let server = start(|_| {});
    for bytes in [&b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff"[..], b"NOTMAGIC\0\0\0\x07\0\0\0\0"] {
        let mut stream = Raw::greet(&server);
        stream.write_all(bytes).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}

/// A client of raw bytes.
struct Raw(UnixStream);

impl Raw {
    fn greet(server: &Server) -> UnixStream {
        let mut stream = UnixStream::connect(&server.path).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        stream
    }

    fn connect(server: &Server) -> Self {
        let mut stream = Self::greet(server);
        stream.write_all(&option(1, &[])).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        Self(stream)
    }

    /// Sends a request and returns the error code of the answer (data of successful reads is not expected).
    fn request(&mut self, command: u16, offset: u64, payload: &[u8], length: u32) -> u32 {
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(command.to_be_bytes());
        bytes.extend(77u64.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(payload);
        self.0.write_all(&bytes).unwrap();
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply).unwrap();
        assert_eq!(&reply[..4], &0x6744_6698u32.to_be_bytes());
        assert_eq!(&reply[8..], &77u64.to_be_bytes());
        u32::from_be_bytes(reply[4..8].try_into().unwrap())
    }
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn reply_kind(stream: &mut UnixStream) -> u32 {
    let mut header = [0; 20];
    stream.read_exact(&mut header).unwrap();
    let length = u32::from_be_bytes(header[16..].try_into().unwrap());
    stream.read_exact(&mut vec![0; length as usize]).unwrap();
    u32::from_be_bytes(header[12..16].try_into().unwrap())
}
