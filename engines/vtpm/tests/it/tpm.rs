//! The command builders and parsers against a real TPM implementation (swtpm), where it is installed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vtpm::command::{self, CommandError, ResponseCode, handle, nv, template};
use vtpm::hcl::{HANDLE_AK, HANDLE_SRK, NV_INDEX_REPORT};
use vtpm::{PcrBank, quote};

struct Tpm {
    process: Child,
    stream: UnixStream,
    _state: tempfile::TempDir,
}

impl Tpm {
    /// A fresh TPM, not started yet; `None` where swtpm is not installed.
    fn start() -> Option<Self> {
        let state = tempfile::tempdir().unwrap();
        let (socket, control) = (state.path().join("tpm"), state.path().join("control"));
        let spawned = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init"])
            .args(["--tpmstate", &format!("dir={}", state.path().display())])
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .args(["--ctrl", &format!("type=unixio,path={}", control.display())])
            .stdin(Stdio::null())
            .spawn();
        let Ok(process) = spawned else {
            eprintln!("skipped: swtpm is not installed");
            return None;
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => panic!("swtpm does not listen: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        };
        Some(Self { process, stream, _state: state })
    }

    fn send(&mut self, command: &[u8]) -> Vec<u8> {
        self.stream.write_all(command).unwrap();
        let mut header = [0; 10];
        self.stream.read_exact(&mut header).unwrap();
        let size = u32::from_be_bytes(header[2..6].try_into().unwrap());
        let mut response = header.to_vec();
        response.resize(usize::try_from(size).unwrap(), 0);
        self.stream.read_exact(&mut response[10..]).unwrap();
        response
    }

    fn run(&mut self, command: &[u8]) {
        command::success(&self.send(command)).unwrap();
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn tpm_is_provisioned_and_quotes() {
    let Some(mut tpm) = Tpm::start() else { return };
    tpm.run(&command::startup_clear());
    tpm.run(&command::self_test());

    let (srk_handle, srk) =
        command::created_primary(&tpm.send(&command::create_primary(handle::OWNER, b"", &template::SRK)))
            .unwrap();
    tpm.run(&command::evict_control(handle::OWNER, b"", srk_handle, HANDLE_SRK));
    tpm.run(&command::flush_context(srk_handle));
    assert_eq!(command::read_public_key(&tpm.send(&command::read_public(HANDLE_SRK))).unwrap(), srk);
    assert_eq!(srk.tpm2b_public.len(), 92);

    let created = tpm.send(&command::create_primary(handle::ENDORSEMENT, b"", &template::AK));
    let (ak_handle, ak) = command::created_primary(&created).unwrap();
    tpm.run(&command::evict_control(handle::OWNER, b"", ak_handle, HANDLE_AK));
    tpm.run(&command::flush_context(ak_handle));
    let listed = command::handles(&tpm.send(&command::get_handles(HANDLE_SRK, 16))).unwrap();
    assert_eq!(listed, [HANDLE_SRK, HANDLE_AK]);

    let (_, ek) = command::created_primary(&tpm.send(&command::create_primary(
        handle::ENDORSEMENT,
        b"",
        &template::ek(),
    )))
    .unwrap();
    assert_eq!(ek.rsa().unwrap().modulus().len(), 256);

    let digest = vtpm::pcr::sha256(b"event");
    tpm.run(&command::pcr_extend(9, &digest));
    let mut expected = PcrBank::default();
    expected.extend(9, &digest);
    let pcrs = command::pcr_values(&tpm.send(&command::pcr_read(&[9, 12]))).unwrap();
    assert_eq!(pcrs.value(9), expected.value(9));
    assert_eq!(pcrs.value(12), Some(&[0; 32]));

    let (attest, signature) =
        command::quoted(&tpm.send(&command::quote(HANDLE_AK, b"", b"nonce", &[12, 9]))).unwrap();
    let verified = quote::verify(&attest, &signature, ak.rsa().unwrap(), b"nonce", &pcrs).unwrap();
    assert_eq!(*verified.pcrs(), pcrs);
    let replayed = quote::verify(&attest, &signature, ak.rsa().unwrap(), b"other", &pcrs);
    assert_eq!(replayed, Err(quote::QuoteError::Nonce));
    let stranger = quote::verify(&attest, &signature, ek.rsa().unwrap(), b"nonce", &pcrs);
    assert_eq!(stranger, Err(quote::QuoteError::Signature));
    tpm.run(&command::shutdown_clear());
}

#[test]
fn nv_index_of_the_largest_report_is_written_and_read_in_chunks() {
    let Some(mut tpm) = Tpm::start() else { return };
    tpm.run(&command::startup_clear());
    let data: Vec<u8> = (0..2048u32).map(|number| (number % 251) as u8).collect();
    let attributes = nv::PLATFORM_DATA;
    tpm.run(&command::nv_define_space(handle::PLATFORM, b"", NV_INDEX_REPORT, attributes, 2048));
    let again = tpm.send(&command::nv_define_space(handle::PLATFORM, b"", NV_INDEX_REPORT, attributes, 2048));
    assert_eq!(command::success(&again), Err(CommandError::Tpm(ResponseCode::NV_DEFINED)));
    let unwritten = tpm.send(&command::nv_read(NV_INDEX_REPORT, b"", NV_INDEX_REPORT, 16, 0));
    assert_eq!(command::success(&unwritten), Err(CommandError::Tpm(ResponseCode::NV_UNINITIALIZED)));

    for part in command::nv_write_all(handle::PLATFORM, b"", NV_INDEX_REPORT, &data) {
        tpm.run(&part);
    }
    let public = command::nv_public(&tpm.send(&command::nv_read_public(NV_INDEX_REPORT))).unwrap();
    assert_eq!((public.index, public.size), (NV_INDEX_REPORT, 2048));
    assert_eq!(public.attributes, attributes | nv::WRITTEN);
    let mut read = Vec::new();
    for offset in [0, 1024] {
        let part = tpm.send(&command::nv_read(handle::OWNER, b"", NV_INDEX_REPORT, 1024, offset));
        read.extend(command::nv_data(&part).unwrap());
    }
    assert_eq!(read, data);
    let beyond = tpm.send(&command::nv_read(handle::OWNER, b"", NV_INDEX_REPORT, 16, 2040));
    assert_eq!(command::success(&beyond), Err(CommandError::Tpm(ResponseCode::NV_RANGE)));
}

#[test]
fn guest_that_owns_the_tpm_cannot_write_or_remove_the_platforms_index() {
    let Some(mut tpm) = Tpm::start() else { return };
    tpm.run(&command::startup_clear());
    tpm.run(&command::nv_define_space(handle::PLATFORM, b"", NV_INDEX_REPORT, nv::PLATFORM_DATA, 64));
    tpm.run(&command::nv_write(handle::PLATFORM, b"", NV_INDEX_REPORT, b"report", 0));
    tpm.run(&command::hierarchy_change_auth(handle::PLATFORM, b"", b"firmware's secret"));

    let forged = tpm.send(&command::nv_write(handle::OWNER, b"", NV_INDEX_REPORT, b"forged", 0));
    assert_eq!(command::success(&forged), Err(CommandError::Tpm(ResponseCode::NV_AUTHORIZATION)));
    for command in [
        command::nv_write(NV_INDEX_REPORT, b"", NV_INDEX_REPORT, b"forged", 0),
        command::nv_write(handle::PLATFORM, b"", NV_INDEX_REPORT, b"forged", 0),
        command::nv_undefine_space(handle::OWNER, b"", NV_INDEX_REPORT),
        command::nv_undefine_space(handle::PLATFORM, b"", NV_INDEX_REPORT),
    ] {
        assert!(command::success(&tpm.send(&command)).is_err());
    }
    let kept =
        command::nv_data(&tpm.send(&command::nv_read(handle::OWNER, b"", NV_INDEX_REPORT, 6, 0))).unwrap();
    assert_eq!(kept, b"report");
    tpm.run(&command::nv_undefine_space(handle::PLATFORM, b"firmware's secret", NV_INDEX_REPORT));
    let gone = command::success(&tpm.send(&command::nv_read_public(NV_INDEX_REPORT)));
    assert!(matches!(gone, Err(CommandError::Tpm(code)) if code.is_missing_handle()), "{gone:?}");
}

#[test]
fn handle_counts_are_those_of_the_tpm() {
    let Some(mut tpm) = Tpm::start() else { return };
    tpm.run(&command::startup_clear());
    // TPM2_GetCapability(TPM_CAP_COMMANDS): TPMA_CC has the number of handles in bits 25 to 27.
    let mut query = vec![0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7A];
    query.extend([2u32, 0x11F, 256].iter().flat_map(|word| word.to_be_bytes()));
    let response = tpm.send(&query);
    let count = u32::from_be_bytes(response[15..19].try_into().unwrap());
    assert!(count > 80);
    for entry in response[19..].chunks(4) {
        let attributes = u32::from_be_bytes(entry.try_into().unwrap());
        let (code, handles) = (attributes & 0xFFFF, attributes >> 25 & 7);
        assert_eq!(command::handle_count(code), Some(handles as usize), "{code:#x}");
    }
}
