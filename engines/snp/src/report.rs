//! The attestation report: 1,184 bytes (ABI table "ATTESTATION_REPORT Structure").
//!
//! Parsing says what the bytes mean, not that they are true: only [`crate::verify`] does. Bytes that the report's
//! version reserves must be zero: firmware that has more to say raises the version, and what nobody understands is
//! refused. Bits of POLICY and PLATFORM_INFO are defined without a new version; [`GuestPolicy`] and
//! [`PlatformInfo`] say which.

use std::fmt;

use crate::bytes::{field, put};
use crate::policy::{GuestPolicy, PlatformInfo};
use crate::product::{CpuIdentity, Product};
use crate::tcb::TcbBytes;

/// Length of a report.
pub const REPORT_SIZE: usize = 0x4A0;
/// The signature covers the bytes before this offset.
pub const SIGNED_SIZE: usize = 0x2A0;
/// Bytes of r and of s in the signature, little endian.
pub const SCALAR_SIZE: usize = 72;
/// SIGNATURE_ALGO of ECDSA P-384 with SHA-384.
pub const ECDSA_P384_SHA384: u32 = 1;

/// Why bytes are not a report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Not 1,184 bytes.
    #[error("an attestation report has {REPORT_SIZE} bytes, not {actual}")]
    Size {
        /// Bytes given.
        actual: usize,
    },
    /// A version whose layout is not known.
    #[error("attestation report version {version} is not one of 2, 3, 4, 5")]
    Version {
        /// VERSION.
        version: u32,
    },
    /// Something stands where the version has nothing.
    #[error("byte {offset:#x} of the attestation report is reserved in version {version} and not zero")]
    Reserved {
        /// Offset of the first such byte.
        offset: usize,
        /// VERSION.
        version: u32,
    },
    /// SIGNING_KEY has a reserved value.
    #[error("the signing-key selector {value} of the attestation report is reserved")]
    SigningKey {
        /// The three bits.
        value: u8,
    },
}

/// Which key signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningKey {
    /// The chip's own versioned endorsement key.
    Vcek,
    /// The versioned loaded endorsement key of a cloud provider.
    Vlek,
    /// None: the report is unsigned.
    None,
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::None => "none",
        })
    }
}

/// A firmware version: major, minor, build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FirmwareVersion {
    /// ABI major.
    pub major: u8,
    /// ABI minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// A report's fields in the order of their offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Format version: 2, 3, 4 or 5.
    pub version: u32,
    /// Guest security version of the ID block.
    pub guest_svn: u32,
    /// Guest policy.
    pub policy: GuestPolicy,
    /// Family id of the ID block.
    pub family_id: [u8; 16],
    /// Image id of the ID block.
    pub image_id: [u8; 16],
    /// VMPL that asked; 0xFFFF_FFFF when the host asked.
    pub vmpl: u32,
    /// Signature algorithm; [`ECDSA_P384_SHA384`].
    pub signature_algo: u32,
    /// TCB that runs now.
    pub current_tcb: TcbBytes,
    /// Platform configuration.
    pub platform_info: PlatformInfo,
    /// The author key's digest is present.
    pub author_key_en: bool,
    /// The platform was told not to sign with the chip's key.
    pub mask_chip_key: bool,
    /// Which key signed.
    pub signing_key: SigningKey,
    /// What the guest wanted to have signed.
    pub report_data: [u8; 64],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// What the host gave at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the ID public key.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author public key.
    pub author_key_digest: [u8; 48],
    /// Id of the guest, for as long as it lives.
    pub report_id: [u8; 32],
    /// Id of its migration agent; all ones without.
    pub report_id_ma: [u8; 32],
    /// TCB that the signing key was derived for.
    pub reported_tcb: TcbBytes,
    /// CPU family, model and stepping; from version 3 on.
    pub cpu: Option<CpuIdentity>,
    /// Chip id; zero when the platform masks it.
    pub chip_id: [u8; 64],
    /// TCB below which the firmware cannot go back.
    pub committed_tcb: TcbBytes,
    /// Firmware that runs now.
    pub current_version: FirmwareVersion,
    /// Firmware that was committed.
    pub committed_version: FirmwareVersion,
    /// TCB when the guest was launched or imported.
    pub launch_tcb: TcbBytes,
    /// Mitigations when the guest was launched; from version 5 on.
    pub launch_mit_vector: Option<u64>,
    /// Mitigations now; from version 5 on.
    pub current_mit_vector: Option<u64>,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// A wrong length, an unknown version, a reserved signing key.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let raw: &[u8; REPORT_SIZE] =
            bytes.try_into().map_err(|_| ReportError::Size { actual: bytes.len() })?;
        let version = u32::from_le_bytes(field::<0x000, 4, _>(raw));
        if !(2..=5).contains(&version) {
            return Err(ReportError::Version { version });
        }
        if let Some(offset) = reserved(raw, version) {
            return Err(ReportError::Reserved { offset, version });
        }
        let key_info = u32::from_le_bytes(field::<0x048, 4, _>(raw));
        Ok(Self {
            version,
            guest_svn: u32::from_le_bytes(field::<0x004, 4, _>(raw)),
            policy: GuestPolicy(u64::from_le_bytes(field::<0x008, 8, _>(raw))),
            family_id: field::<0x010, 16, _>(raw),
            image_id: field::<0x020, 16, _>(raw),
            vmpl: u32::from_le_bytes(field::<0x030, 4, _>(raw)),
            signature_algo: u32::from_le_bytes(field::<0x034, 4, _>(raw)),
            current_tcb: TcbBytes(field::<0x038, 8, _>(raw)),
            platform_info: PlatformInfo(u64::from_le_bytes(field::<0x040, 8, _>(raw))),
            author_key_en: key_info & 1 == 1,
            mask_chip_key: key_info >> 1 & 1 == 1,
            signing_key: signing_key(key_info)?,
            report_data: field::<0x050, 64, _>(raw),
            measurement: field::<0x090, 48, _>(raw),
            host_data: field::<0x0C0, 32, _>(raw),
            id_key_digest: field::<0x0E0, 48, _>(raw),
            author_key_digest: field::<0x110, 48, _>(raw),
            report_id: field::<0x140, 32, _>(raw),
            report_id_ma: field::<0x160, 32, _>(raw),
            reported_tcb: TcbBytes(field::<0x180, 8, _>(raw)),
            cpu: (version >= 3).then(|| cpu_identity(field::<0x188, 3, _>(raw))),
            chip_id: field::<0x1A0, 64, _>(raw),
            committed_tcb: TcbBytes(field::<0x1E0, 8, _>(raw)),
            current_version: firmware_version(field::<0x1E8, 3, _>(raw)),
            committed_version: firmware_version(field::<0x1EC, 3, _>(raw)),
            launch_tcb: TcbBytes(field::<0x1F0, 8, _>(raw)),
            launch_mit_vector: (version >= 5).then(|| u64::from_le_bytes(field::<0x1F8, 8, _>(raw))),
            current_mit_vector: (version >= 5).then(|| u64::from_le_bytes(field::<0x200, 8, _>(raw))),
        })
    }

    /// The report as a secure processor writes it, its signature zero: the first [`SIGNED_SIZE`] bytes are to be signed.
    pub fn encode(&self) -> [u8; REPORT_SIZE] {
        let mut raw = [0; REPORT_SIZE];
        put::<0x000, 4, _>(&mut raw, self.version.to_le_bytes());
        put::<0x004, 4, _>(&mut raw, self.guest_svn.to_le_bytes());
        put::<0x008, 8, _>(&mut raw, self.policy.0.to_le_bytes());
        put::<0x010, 16, _>(&mut raw, self.family_id);
        put::<0x020, 16, _>(&mut raw, self.image_id);
        put::<0x030, 4, _>(&mut raw, self.vmpl.to_le_bytes());
        put::<0x034, 4, _>(&mut raw, self.signature_algo.to_le_bytes());
        put::<0x038, 8, _>(&mut raw, self.current_tcb.0);
        put::<0x040, 8, _>(&mut raw, self.platform_info.0.to_le_bytes());
        put::<0x048, 4, _>(&mut raw, self.key_info().to_le_bytes());
        put::<0x050, 64, _>(&mut raw, self.report_data);
        put::<0x090, 48, _>(&mut raw, self.measurement);
        put::<0x0C0, 32, _>(&mut raw, self.host_data);
        put::<0x0E0, 48, _>(&mut raw, self.id_key_digest);
        put::<0x110, 48, _>(&mut raw, self.author_key_digest);
        put::<0x140, 32, _>(&mut raw, self.report_id);
        put::<0x160, 32, _>(&mut raw, self.report_id_ma);
        put::<0x180, 8, _>(&mut raw, self.reported_tcb.0);
        let cpu = self.cpu.map_or([0; 3], |cpu| [cpu.family, cpu.model, cpu.stepping]);
        put::<0x188, 3, _>(&mut raw, cpu);
        put::<0x1A0, 64, _>(&mut raw, self.chip_id);
        put::<0x1E0, 8, _>(&mut raw, self.committed_tcb.0);
        put::<0x1E8, 3, _>(&mut raw, firmware_bytes(self.current_version));
        put::<0x1EC, 3, _>(&mut raw, firmware_bytes(self.committed_version));
        put::<0x1F0, 8, _>(&mut raw, self.launch_tcb.0);
        put::<0x1F8, 8, _>(&mut raw, self.launch_mit_vector.unwrap_or(0).to_le_bytes());
        put::<0x200, 8, _>(&mut raw, self.current_mit_vector.unwrap_or(0).to_le_bytes());
        raw
    }

    /// Whether the platform hides the chip's id.
    pub fn chip_id_masked(&self) -> bool {
        self.chip_id == [0; 64]
    }

    /// The product that the report itself names; nothing in version 2, and nothing for unknown silicon.
    pub fn product(&self) -> Option<Product> {
        self.cpu.and_then(CpuIdentity::product)
    }

    fn key_info(&self) -> u32 {
        let key = match self.signing_key {
            SigningKey::Vcek => 0,
            SigningKey::Vlek => 1,
            SigningKey::None => 7,
        };
        u32::from(self.author_key_en) | u32::from(self.mask_chip_key) << 1 | key << 2
    }
}

/// Writes a signature, r and s big endian, into a report.
pub fn put_signature(report: &mut [u8; REPORT_SIZE], r: &[u8; 48], s: &[u8; 48]) {
    let (mut r, mut s) = (*r, *s);
    r.reverse();
    s.reverse();
    put::<SIGNED_SIZE, 48, _>(report, r);
    put::<{ SIGNED_SIZE + SCALAR_SIZE }, 48, _>(report, s);
}

/// The first byte that is not zero where `version` has no field. Bits 5 to 31 of KEY_INFO begin in byte 0x48.
fn reserved(raw: &[u8; REPORT_SIZE], version: u32) -> Option<usize> {
    let cpu = if version >= 3 { 0x18B } else { 0x188 };
    let mitigations = if version >= 5 { 0x208 } else { 0x1F8 };
    let ranges = [0x049..0x050, cpu..0x1A0, 0x1EB..0x1EC, 0x1EF..0x1F0, mitigations..SIGNED_SIZE];
    let set = |at: &usize| raw.get(*at).is_some_and(|byte| *byte != 0);
    let key_info = raw.get(0x048).is_some_and(|byte| byte >> 5 != 0);
    if key_info { Some(0x048) } else { ranges.into_iter().flatten().find(set) }
}

fn signing_key(key_info: u32) -> Result<SigningKey, ReportError> {
    match key_info >> 2 & 0b111 {
        0 => Ok(SigningKey::Vcek),
        1 => Ok(SigningKey::Vlek),
        7 => Ok(SigningKey::None),
        value => Err(ReportError::SigningKey { value: value.to_le_bytes()[0] }),
    }
}

fn cpu_identity([family, model, stepping]: [u8; 3]) -> CpuIdentity {
    CpuIdentity { family, model, stepping }
}

fn firmware_version([build, minor, major]: [u8; 3]) -> FirmwareVersion {
    FirmwareVersion { major, minor, build }
}

fn firmware_bytes(version: FirmwareVersion) -> [u8; 3] {
    [version.build, version.minor, version.major]
}
