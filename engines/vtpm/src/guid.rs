//! EFI GUIDs: sixteen bytes, the first three fields little-endian (UEFI specification, appendix A).

use std::fmt;

/// A GUID in the byte order that UEFI stores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From the five groups of the written form, `Guid::new(0x8be4df61, 0x93ca, 0x11d2, 0xaa0d, 0x00e098032b8c)`.
    pub const fn new(a: u32, b: u16, c: u16, d: u16, e: u64) -> Self {
        let (a, b, c, d, e) =
            (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes(), e.to_be_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], e[2], e[3], e[4], e[5], e[6], e[7]])
    }

    /// The bytes as stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = self.0;
        let (a, b, c) = (
            u32::from_le_bytes([a0, a1, a2, a3]),
            u16::from_le_bytes([b0, b1]),
            u16::from_le_bytes([c0, c1]),
        );
        let [d0, d1, e @ ..] = rest;
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{}", u16::from_be_bytes([d0, d1]), hex::encode(e))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// EFI_GLOBAL_VARIABLE.
pub const GLOBAL: Guid = Guid::new(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d, 0x00e0_9803_2b8c);
/// EFI_IMAGE_SECURITY_DATABASE_GUID: `db`, `dbx`, `dbt`.
pub const IMAGE_SECURITY: Guid = Guid::new(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc, 0xdad0_0e67_656f);
/// shim's variables.
pub const SHIM: Guid = Guid::new(0x605d_ab50, 0xe046, 0x4300, 0xabb6, 0x3dd8_10dd_8b23);
/// The boot loader interface of systemd-boot.
pub const LOADER: Guid = Guid::new(0x4a67_b082, 0x0a4c, 0x41cf, 0xb6c7, 0x440b_29bb_8c4f);
/// EDK2's `SecureBootEnable`.
pub const SECURE_BOOT_ENABLE: Guid = Guid::new(0xf0a3_0bc7, 0xaf08, 0x4556, 0x99c4, 0x0010_09c9_3a44);
/// EFI_CERT_X509_GUID, the type of a signature list of certificates.
pub const CERT_X509: Guid = Guid::new(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5, 0xab15_5c2b_f072);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_stored_forms_agree() {
        assert_eq!(GLOBAL.to_string(), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
        assert_eq!(hex::encode(GLOBAL.as_bytes()), "61dfe48bca93d211aa0d00e098032b8c");
        assert_eq!(SHIM.to_string(), "605dab50-e046-4300-abb6-3dd810dd8b23");
    }
}
