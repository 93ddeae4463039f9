//! The virtual machine save area as QEMU and KVM set it up at reset (AMD64 APM volume 2, table B-4).

use crate::bytes::put;
use crate::launch::PAGE_SIZE;

/// Where the first CPU starts.
pub(super) const BSP_RESET: u32 = 0xFFFF_FFF0;

/// A segment register: selector, attributes, limit, base.
const fn segment(selector: u16, attributes: u16, base: u32) -> [u8; 16] {
    let [s0, s1] = selector.to_le_bytes();
    let [a0, a1] = attributes.to_le_bytes();
    let [b0, b1, b2, b3] = base.to_le_bytes();
    [s0, s1, a0, a1, 0xff, 0xff, 0, 0, b0, b1, b2, b3, 0, 0, 0, 0]
}

/// The save area of a CPU that starts at `eip`.
pub(super) fn page(eip: u32, signature: u32, features: u64) -> [u8; PAGE_SIZE] {
    let mut area = [0; PAGE_SIZE];
    segments(&mut area, eip);
    put::<0x0D0, 8, _>(&mut area, 0x1000u64.to_le_bytes()); // EFER: SVME, set by KVM
    put::<0x148, 8, _>(&mut area, 0x40u64.to_le_bytes()); // CR4: MCE, set by KVM
    put::<0x158, 8, _>(&mut area, 0x10u64.to_le_bytes()); // CR0: ET
    put::<0x160, 8, _>(&mut area, 0x400u64.to_le_bytes()); // DR7
    put::<0x168, 8, _>(&mut area, 0xFFFF_0FF0u64.to_le_bytes()); // DR6
    put::<0x170, 8, _>(&mut area, 2u64.to_le_bytes()); // RFLAGS
    put::<0x178, 8, _>(&mut area, u64::from(eip & 0xFFFF).to_le_bytes()); // RIP
    put::<0x268, 8, _>(&mut area, 0x0007_0406_0007_0406u64.to_le_bytes()); // G_PAT
    put::<0x310, 8, _>(&mut area, u64::from(signature).to_le_bytes()); // RDX
    put::<0x3B0, 8, _>(&mut area, features.to_le_bytes()); // SEV_FEATURES
    put::<0x3E8, 8, _>(&mut area, 1u64.to_le_bytes()); // XCR0
    put::<0x408, 4, _>(&mut area, 0x1F80u32.to_le_bytes()); // MXCSR
    put::<0x410, 2, _>(&mut area, 0x037Fu16.to_le_bytes()); // x87 FCW
    area
}

fn segments(area: &mut [u8; PAGE_SIZE], eip: u32) {
    let data = segment(0, 0x93, 0);
    put::<0x00, 16, _>(area, data); // ES
    put::<0x10, 16, _>(area, segment(0xF000, 0x9B, eip & 0xFFFF_0000)); // CS
    put::<0x20, 16, _>(area, data); // SS
    put::<0x30, 16, _>(area, data); // DS
    put::<0x40, 16, _>(area, data); // FS
    put::<0x50, 16, _>(area, data); // GS
    put::<0x60, 16, _>(area, segment(0, 0, 0)); // GDTR
    put::<0x70, 16, _>(area, segment(0, 0x82, 0)); // LDTR
    put::<0x80, 16, _>(area, segment(0, 0, 0)); // IDTR
    put::<0x90, 16, _>(area, segment(0, 0x8B, 0)); // TR
}
