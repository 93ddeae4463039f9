//! CPU models by QEMU's names, and the signature that each shows in CPUID leaf 1.

use std::fmt;
use std::str::FromStr;

const EPYC: u32 = signature(23, 1, 2);
const ROME: u32 = signature(23, 49, 0);
const MILAN: u32 = signature(25, 1, 1);
const GENOA: u32 = signature(25, 17, 0);
const TURIN: u32 = signature(26, 0, 0);

/// QEMU's names; a version suffix changes features, never the signature.
const MODELS: [(&str, u32); 21] = [
    ("EPYC", EPYC),
    ("EPYC-v1", EPYC),
    ("EPYC-v2", EPYC),
    ("EPYC-IBPB", EPYC),
    ("EPYC-v3", EPYC),
    ("EPYC-v4", EPYC),
    ("EPYC-v5", EPYC),
    ("EPYC-Rome", ROME),
    ("EPYC-Rome-v1", ROME),
    ("EPYC-Rome-v2", ROME),
    ("EPYC-Rome-v3", ROME),
    ("EPYC-Rome-v4", ROME),
    ("EPYC-Milan", MILAN),
    ("EPYC-Milan-v1", MILAN),
    ("EPYC-Milan-v2", MILAN),
    ("EPYC-Milan-v3", MILAN),
    ("EPYC-Genoa", GENOA),
    ("EPYC-Genoa-v1", GENOA),
    ("EPYC-Genoa-v2", GENOA),
    ("EPYC-Turin", TURIN),
    ("EPYC-Turin-v1", TURIN),
];

/// A CPU model that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuModel {
    name: Option<&'static str>,
    signature: u32,
}

/// A name that is no model's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a CPU model with SEV-SNP, such as EPYC-v4, EPYC-Milan, EPYC-Genoa or EPYC-Turin")]
pub struct UnknownCpuModel(String);

impl CpuModel {
    /// A model of which only the signature (CPUID leaf 1, EAX) is known.
    pub const fn from_signature(signature: u32) -> Self {
        Self { name: None, signature }
    }

    /// CPUID leaf 1, EAX.
    pub const fn signature(self) -> u32 {
        self.signature
    }

    /// All names that [`FromStr`] accepts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.into_iter().map(|(name, _)| name)
    }
}

impl FromStr for CpuModel {
    type Err = UnknownCpuModel;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = MODELS.into_iter().find(|(known, _)| *known == name);
        let (name, signature) = found.ok_or_else(|| UnknownCpuModel(name.to_owned()))?;
        Ok(Self { name: Some(name), signature })
    }
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "signature {:#x}", self.signature),
        }
    }
}

/// Family, model and stepping packed as CPUID does it (AMD publication 25481, Fn0000_0001_EAX).
pub const fn signature(family: u32, model: u32, stepping: u32) -> u32 {
    let (base, extended) = if family > 0xf { (0xf, family - 0xf) } else { (family, 0) };
    extended << 20 | (model >> 4) << 16 | base << 8 | (model & 0xf) << 4 | stepping & 0xf
}
