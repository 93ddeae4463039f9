//! The guest policy and the platform information, both bit fields of the report.

use std::fmt;

/// POLICY (ABI section 4.3 "Guest Policy"): what the guest's owner allows the host to do, fixed at launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// Bit 17 must be one.
    pub const RESERVED_ONE: u64 = 1 << 17;
    /// Bits 26 to 63 must be zero.
    pub const RESERVED_ZERO: u64 = !((1 << 26) - 1);

    /// SMT allowed, no debugging, no migration agent, any firmware: what Casemate launches with.
    pub const fn casemate() -> Self {
        Self(0x3_0000)
    }

    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// The oldest firmware ABI, minor part, that may run the guest.
    pub const fn abi_minor(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// The oldest firmware ABI, major part, that may run the guest.
    pub const fn abi_major(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// The guest may run where SMT is on.
    pub const fn smt_allowed(self) -> bool {
        self.bit(16)
    }

    /// Bit 17 is set, as it must be.
    pub const fn reserved_one(self) -> bool {
        self.bit(17)
    }

    /// The guest may be associated with a migration agent.
    pub const fn migrate_ma(self) -> bool {
        self.bit(18)
    }

    /// The host may read and write the guest's memory in plain text.
    pub const fn debug(self) -> bool {
        self.bit(19)
    }

    /// The guest may run on one socket only.
    pub const fn single_socket(self) -> bool {
        self.bit(20)
    }

    /// CXL devices may be populated.
    pub const fn cxl_allowed(self) -> bool {
        self.bit(21)
    }

    /// Memory must be encrypted with AES-256-XTS.
    pub const fn mem_aes_256_xts(self) -> bool {
        self.bit(22)
    }

    /// Running average power limit must be off.
    pub const fn rapl_disabled(self) -> bool {
        self.bit(23)
    }

    /// Ciphertext hiding must be on.
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(24)
    }

    /// The host may not move or swap the guest's pages.
    pub const fn page_swap_disabled(self) -> bool {
        self.bit(25)
    }

    /// Reserved bits that are set although they must be zero.
    pub const fn reserved_set(self) -> u64 {
        self.0 & Self::RESERVED_ZERO
    }
}

impl fmt::Display for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// PLATFORM_INFO (ABI table "PLATFORM_INFO Field"): how the platform was configured when the report was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// SMT is on.
    pub const fn smt_enabled(self) -> bool {
        self.bit(0)
    }

    /// Transparent SME is on.
    pub const fn tsme_enabled(self) -> bool {
        self.bit(1)
    }

    /// All memory is ECC memory.
    pub const fn ecc_enabled(self) -> bool {
        self.bit(2)
    }

    /// Running average power limit is off.
    pub const fn rapl_disabled(self) -> bool {
        self.bit(3)
    }

    /// Ciphertext hiding for DRAM is on.
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(4)
    }

    /// Memory was checked for aliases since the last reset (the answer to CVE-2024-21944).
    pub const fn alias_check_complete(self) -> bool {
        self.bit(5)
    }

    /// Trusted I/O is on.
    pub const fn tio_enabled(self) -> bool {
        self.bit(7)
    }

    /// Bits that are set and have no meaning here: 6, and 8 on. New firmware defines them without a new version of the
    /// report, and each says something more about the platform, so they are shown and not refused.
    pub const fn unknown_set(self) -> u64 {
        self.0 & !0b1011_1111
    }
}

impl fmt::Display for PlatformInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
