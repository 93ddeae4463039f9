//! AMD products that speak SEV-SNP, and how a report or a certificate names them.

use std::fmt;
use std::str::FromStr;

/// A product line, which is what AMD has one root key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004, also Bergamo and Siena.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The name in KDS addresses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// How many bytes of CHIP_ID name a chip; the rest is zero (57230, hwID).
    pub const fn chip_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }

    /// The product of the extension `productName`, for example `Milan-B0` (57230, VCEK custom extensions).
    pub fn from_product_name(name: &str) -> Option<Self> {
        let line = name.split('-').next().unwrap_or(name);
        Self::ALL.into_iter().find(|product| product.name() == line)
    }

    /// A CPU of this line, for a software processor's reports.
    pub const fn cpu(self) -> CpuIdentity {
        match self {
            Self::Milan => CpuIdentity { family: 0x19, model: 0x01, stepping: 1 },
            Self::Genoa => CpuIdentity { family: 0x19, model: 0x11, stepping: 1 },
            Self::Turin => CpuIdentity { family: 0x1a, model: 0x02, stepping: 1 },
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A processor by its name in the field. Several share a product line, and so its root and its TCB layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Silicon {
    /// EPYC 7003: family 19h, models 00h to 0Fh.
    Milan,
    /// EPYC 9004: family 19h, models 10h to 1Fh.
    Genoa,
    /// EPYC 97x4 or 8004: family 19h, models A0h to AFh. CPUID does not tell the two apart; their sockets differ.
    BergamoOrSiena,
    /// EPYC 9005: family 1Ah, models 00h to 0Fh.
    Turin,
    /// EPYC 9005 with dense cores: family 1Ah, models 10h and 11h.
    TurinDense,
}

impl Silicon {
    /// The name for people and claims.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::BergamoOrSiena => "Bergamo or Siena",
            Self::Turin => "Turin",
            Self::TurinDense => "Turin Dense",
        }
    }

    /// The product line whose root vouches for it.
    pub const fn product(self) -> Product {
        match self {
            Self::Milan => Product::Milan,
            Self::Genoa | Self::BergamoOrSiena => Product::Genoa,
            Self::Turin | Self::TurinDense => Product::Turin,
        }
    }
}

impl fmt::Display for Silicon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no product's.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is none of the products Milan, Genoa, Turin")]
pub struct UnknownProduct(String);

impl FromStr for Product {
    type Err = UnknownProduct;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|product| product.name() == name);
        found.ok_or_else(|| UnknownProduct(name.to_owned()))
    }
}

/// CPUID_FAM_ID, CPUID_MOD_ID and CPUID_STEP of a report of version 3 or later (ABI table "ATTESTATION_REPORT").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuIdentity {
    /// Combined family.
    pub family: u8,
    /// Combined model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

impl CpuIdentity {
    /// The product line; nothing for silicon that this crate does not know.
    pub const fn product(self) -> Option<Product> {
        match self.silicon() {
            Some(silicon) => Some(silicon.product()),
            None => None,
        }
    }

    /// The processor; nothing for one that this crate does not know. The ranges are those of AMD's processor programming
    /// references and of 57230 (KDS, product names), which the crate `sev` has too; a stepping does not change the line.
    pub const fn silicon(self) -> Option<Silicon> {
        match (self.family, self.model) {
            (0x19, 0x00..=0x0f) => Some(Silicon::Milan),
            (0x19, 0x10..=0x1f) => Some(Silicon::Genoa),
            (0x19, 0xa0..=0xaf) => Some(Silicon::BergamoOrSiena),
            (0x1a, 0x00..=0x0f) => Some(Silicon::Turin),
            (0x1a, 0x10..=0x11) => Some(Silicon::TurinDense),
            _ => None,
        }
    }
}

impl fmt::Display for CpuIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "family {:#x} model {:#x} stepping {:#x}", self.family, self.model, self.stepping)
    }
}
