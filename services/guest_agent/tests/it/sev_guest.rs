//! `/dev/sev-guest` as a program sees it: the kernel's structures in memory, and what comes back.

use guest_agent::sev_guest::ioctls::{GET_DERIVED_KEY, GET_EXT_REPORT, GET_REPORT};
use guest_agent::sev_guest::wire::{errno, opcode};
use guest_agent::sev_guest::{PortError, SecureProcessor, respond};
use snp::psp::{GuestRequest, GuestResponse, status};

use crate::kernel::{Memory, ioctl, message, taken_apart};
use crate::processor::Context;

const CALL: u64 = 0x7000_0000;
const REQUEST: u64 = 0x7100_0000;
const RESPONSE: u64 = 0x7200_0000;
const CERTIFICATES: u64 = 0x7300_0000;

/// Memory with `struct snp_guest_request_ioctl` and a request.
fn memory(version: u8, request: &[u8]) -> Memory {
    let mut memory = Memory::default();
    let mut call = vec![version, 0, 0, 0, 0, 0, 0, 0];
    call.extend(REQUEST.to_le_bytes());
    call.extend(RESPONSE.to_le_bytes());
    call.extend([0xFF; 8]);
    memory.put(CALL, &call);
    memory.put(REQUEST, request);
    memory
}

fn report_request(vmpl: u32) -> Vec<u8> {
    let mut request = vec![0xAB; 64];
    request.extend(vmpl.to_le_bytes());
    request.resize(96, 0);
    request
}

fn extended(vmpl: u32, address: u64, length: u32) -> Vec<u8> {
    let mut request = report_request(vmpl);
    request.extend(address.to_le_bytes());
    request.extend(length.to_le_bytes());
    request.resize(112, 0);
    request
}

fn key_request(vmpl: u32) -> Vec<u8> {
    let mut request = vec![0; 16];
    request.extend(vmpl.to_le_bytes());
    request.resize(40, 0);
    request
}

fn exit_info(memory: &Memory) -> u64 {
    u64::from_le_bytes(memory.get(CALL + 24, 8).try_into().unwrap())
}

fn response_status(memory: &Memory) -> u32 {
    u32::from_le_bytes(memory.get(RESPONSE, 4).try_into().unwrap())
}

fn report_at(memory: &Memory, address: u64) -> snp::Report {
    snp::Report::parse(&memory.get(address + 32, 1184)).unwrap()
}

#[test]
fn a_report_comes_back_in_the_kernels_structure() {
    let mut memory = memory(1, &report_request(1));
    assert_eq!(ioctl(&mut memory, GET_REPORT, CALL, &mut Context::launch()), 0);
    assert_eq!((exit_info(&memory), response_status(&memory)), (0, 0));
    assert_eq!(memory.get(RESPONSE + 4, 4), 1184_u32.to_le_bytes());
    let report = report_at(&memory, RESPONSE);
    assert_eq!((report.vmpl, report.report_data), (1, [0xAB; 64]));
    assert_eq!(memory.get(RESPONSE + 4000, 1), [0xEE], "nothing behind the structure is written");
}

#[test]
fn a_derived_key_comes_back_in_both_message_versions() {
    let mut context = Context::launch();
    let keys = [1, 2].map(|version| {
        let mut memory = memory(version, &key_request(1));
        assert_eq!(ioctl(&mut memory, GET_DERIVED_KEY, CALL, &mut context), 0);
        assert_eq!((exit_info(&memory), response_status(&memory)), (0, 0));
        assert_eq!(memory.get(RESPONSE + 64, 1), [0xEE]);
        memory.get(RESPONSE + 32, 32)
    });
    assert_eq!(keys[0], keys[1], "no mitigation vector is mixed in");
    assert_ne!(keys[0], [0; 32]);
}

#[test]
fn an_extended_report_tells_the_buffers_size_first() {
    let mut context = Context::launch();
    let mut memory = memory(1, &extended(1, 0, 0));
    assert_eq!(ioctl(&mut memory, GET_EXT_REPORT, CALL, &mut context), -errno::ENOSPC);
    assert_eq!(exit_info(&memory), 1 << 32, "the hypervisor's: invalid length");
    let length = u32::from_le_bytes(memory.get(REQUEST + 104, 4).try_into().unwrap());
    assert!(length > 0 && length.is_multiple_of(4096), "{length}");

    memory.put(REQUEST, &extended(1, CERTIFICATES, length));
    assert_eq!(ioctl(&mut memory, GET_EXT_REPORT, CALL, &mut context), 0);
    assert_eq!((exit_info(&memory), response_status(&memory)), (0, 0));
    assert_eq!(report_at(&memory, RESPONSE).report_data, [0xAB; 64]);
    let table = memory.get(CERTIFICATES, length as usize);
    let names: Vec<String> = table.chunks(24).take(4).map(|entry| hex::encode(&entry[..4])).collect();
    assert_eq!(names, ["63da758d", "4ab7b379", "c0b406a4", "00000000"], "VCEK, ASK, ARK, end");
    for entry in table.chunks(24).take(3) {
        let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()) as usize;
        let der = &table[number(16)..number(16) + number(20)];
        assert_eq!(der[..2], [0x30, 0x82]);
        assert_eq!(usize::from(u16::from_be_bytes([der[2], der[3]])) + 4, der.len());
    }
    assert_eq!(memory.get(CERTIFICATES + u64::from(length), 1), [0xEE]);
}

#[test]
fn impossible_certificate_buffers_are_refused() {
    for length in [1, 4095, 0x5000, u32::MAX] {
        let mut memory = memory(1, &extended(1, CERTIFICATES, length));
        let result = ioctl(&mut memory, GET_EXT_REPORT, CALL, &mut Context::launch());
        assert_eq!(result, -errno::EINVAL, "{length:#x}");
    }
}

#[test]
fn what_the_firmware_refuses_stands_in_the_answer() {
    let mut memory = memory(1, &report_request(9));
    assert_eq!(ioctl(&mut memory, GET_REPORT, CALL, &mut Context::launch()), 0);
    assert_eq!(response_status(&memory), status::INVALID_PARAM);
    assert_eq!(memory.get(RESPONSE + 32, 1184), [0; 1184]);
}

/// A host that answers, but not with what was asked for.
struct Strange(GuestResponse);

impl SecureProcessor for Strange {
    fn ask(&mut self, _: &GuestRequest) -> Result<GuestResponse, PortError> {
        Ok(self.0.clone())
    }
}

#[test]
fn a_host_that_fails_fails_the_call() {
    let busy = GuestResponse::Error { status: status::RESOURCE_LIMIT, message: String::new() };
    let mut memory = memory(1, &report_request(1));
    assert_eq!(ioctl(&mut memory, GET_REPORT, CALL, &mut Strange(busy)), -errno::EIO);
    assert_eq!(exit_info(&memory), u64::from(status::RESOURCE_LIMIT));
    let key = GuestResponse::DerivedKey { key: [1; 32] };
    assert_eq!(ioctl(&mut memory, GET_REPORT, CALL, &mut Strange(key)), -errno::EIO);
    let no_chain =
        GuestResponse::ExtendedReport { report: vec![0; 1184], certificates_pem: "none".to_owned() };
    memory.put(REQUEST, &extended(1, 0, 0));
    assert_eq!(ioctl(&mut memory, GET_EXT_REPORT, CALL, &mut Strange(no_chain)), -errno::EIO);
}

#[test]
fn other_ioctls_and_message_version_0_are_refused() {
    let mut context = Context::launch();
    for command in [0, 0xC020_5303, 0x5401] {
        let mut memory = memory(1, &report_request(1));
        assert_eq!(ioctl(&mut memory, command, CALL, &mut context), -errno::ENOTTY);
    }
    let mut memory = memory(0, &report_request(1));
    assert_eq!(ioctl(&mut memory, GET_REPORT, CALL, &mut context), -errno::EINVAL);
}

#[test]
fn the_device_is_announced_and_its_files_opened_and_closed() {
    let mut context = Context::launch();
    let mut answer = |opcode| respond(&message(opcode, 5, &[0; 16]), &mut context);
    let initialised = answer(opcode::CUSE_INIT).unwrap();
    let (error, body) = taken_apart(&initialised, 5);
    assert_eq!((error, body.len()), (0, 72 + b"DEVNAME=sev-guest\0".len()));
    assert_eq!(body[..4], 7_u32.to_le_bytes());
    assert_eq!(body[12..16], 1_u32.to_le_bytes(), "CUSE_UNRESTRICTED_IOCTL");
    assert!(body.ends_with(b"DEVNAME=sev-guest\0"));
    assert_eq!(taken_apart(&answer(opcode::OPEN).unwrap(), 5), (0, &[0; 16][..]));
    assert_eq!(taken_apart(&answer(opcode::RELEASE).unwrap(), 5), (0, &[][..]));
    assert_eq!(answer(opcode::INTERRUPT), None);
    assert_eq!(taken_apart(&answer(15).unwrap(), 5), (-errno::ENOSYS, &[][..]), "there is nothing to read");
}

proptest::proptest! {
    #[test]
    fn any_message_of_the_kernel_is_survived(
        opcode in 0_u32..42,
        command in 0xC020_5300_u32..0xC020_5304,
        input in proptest::collection::vec(proptest::num::u8::ANY, 0..160),
        out in 0_u32..9000,
        body in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
    ) {
        let mut strange = Strange(GuestResponse::Report { report: vec![0; 1184] });
        let _ = respond(&body, &mut strange);
        let _ = respond(&message(opcode, 1, &body), &mut strange);
        let mut ioctl = vec![0; 12];
        ioctl.extend(command.to_le_bytes());
        ioctl.extend([0; 8]);
        ioctl.extend(u32::try_from(input.len()).unwrap().to_le_bytes());
        ioctl.extend(out.to_le_bytes());
        ioctl.extend(&input);
        let _ = respond(&message(opcode::IOCTL, 1, &ioctl), &mut strange);
    }
}
