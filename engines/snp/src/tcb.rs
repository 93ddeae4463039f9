//! TCB_VERSION: the security versions of the firmware that a key was derived for (ABI section 2.2 "TCB Version").

use std::fmt;

use crate::product::Product;

/// The eight bytes as a report carries them. What each byte means depends on the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcbBytes(pub [u8; 8]);

impl TcbBytes {
    /// The layout of `product` applied.
    pub fn decode(self, product: Product) -> TcbVersion {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = self.0;
        match product {
            Product::Milan | Product::Genoa => TcbVersion {
                fmc: None,
                boot_loader: b0,
                tee: b1,
                snp: b6,
                microcode: b7,
                reserved: [b2, b3, b4, b5],
            },
            Product::Turin => TcbVersion {
                fmc: Some(b0),
                boot_loader: b1,
                tee: b2,
                snp: b3,
                microcode: b7,
                reserved: [0, b4, b5, b6],
            },
        }
    }
}

impl fmt::Display for TcbBytes {
    /// Hex, most significant byte first, as Azure's `x-ms-sevsnpvm-*` and THIM's `tcbm` write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_le_bytes(self.0))
    }
}

/// Security patch levels by component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcbVersion {
    /// Firmware of the management controller; Turin and later.
    pub fmc: Option<u8>,
    /// Boot loader of the secure processor.
    pub boot_loader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
    /// Bytes without a meaning so far, KDS' spl4 to spl7 in that order (Turin: spl5 to spl7 behind a zero).
    pub reserved: [u8; 4],
}

impl TcbVersion {
    /// The eight bytes of a report of `product`.
    pub const fn encode(self, product: Product) -> TcbBytes {
        let [r0, r1, r2, r3] = self.reserved;
        TcbBytes(match product {
            Product::Milan | Product::Genoa => {
                [self.boot_loader, self.tee, r0, r1, r2, r3, self.snp, self.microcode]
            }
            Product::Turin => {
                let fmc = match self.fmc {
                    Some(fmc) => fmc,
                    None => 0,
                };
                [fmc, self.boot_loader, self.tee, self.snp, r1, r2, r3, self.microcode]
            }
        })
    }

    /// Each component by its name in the KDS interface, for comparisons that name what differs.
    pub fn components(self) -> [(&'static str, u8); 9] {
        let [r0, r1, r2, r3] = self.reserved;
        [
            ("fmcSPL", self.fmc.unwrap_or(0)),
            ("blSPL", self.boot_loader),
            ("teeSPL", self.tee),
            ("snpSPL", self.snp),
            ("spl4", r0),
            ("spl5", r1),
            ("spl6", r2),
            ("spl7", r3),
            ("ucodeSPL", self.microcode),
        ]
    }

    /// Whether every component is at least that of `floor`. TCBs are ordered by component, not as numbers.
    pub fn at_least(self, floor: Self) -> bool {
        self.components().iter().zip(floor.components()).all(|((_, have), (_, need))| *have >= need)
    }
}

impl fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc} ")?;
        }
        write!(
            f,
            "boot loader {} tee {} snp {} microcode {}",
            self.boot_loader, self.tee, self.snp, self.microcode
        )
    }
}
