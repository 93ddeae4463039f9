//! The launch digest: what a guest's memory and registers were when it started.
//!
//! A [`LaunchPlan`] says what QEMU and OVMF put into a guest; [`LaunchPlan::pages`] lists it page by page in the order
//! in which it is given to the secure processor, [`LaunchPlan::digest`] is the digest that the processor then reports.
//! The host agent walks the pages, a verifier needs only the digest: both come from the same list.
//!
//! Order: firmware, the firmware's metadata sections, the paravisor page, one VMSA for each virtual CPU.

mod cpu;
mod kernel_hashes;
mod measurement;
mod ovmf;
mod vmsa;

use std::borrow::Cow;
use std::fmt;

use crate::bytes::put;

pub use cpu::{CpuModel, UnknownCpuModel};
pub use kernel_hashes::KernelHashes;
pub(crate) use measurement::sha384;
pub use measurement::{Measurement, PageInfoError};
pub use ovmf::{Ovmf, OvmfError, Section, SectionKind};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
/// The address that stands for a VMSA in the digest (ABI section 8.17.2 "SNP_LAUNCH_UPDATE").
pub const VMSA_GPA: u64 = 0xFFFF_FFFF_F000;
/// SEV_FEATURES with only SNPActive set.
pub const SNP_ACTIVE: u64 = 1;
/// Where the page lies that names the paravisor: below everything that OVMF's metadata claims, which starts at 8 MiB.
pub const PARAVISOR_PAGE_GPA: u64 = 0x0000_0000_007F_F000;
/// Most virtual CPUs of a plan.
pub const MAX_VCPUS: u32 = 1024;
/// Largest firmware image.
pub const MAX_FIRMWARE: usize = 15 << 20;

const FOUR_GIB: u64 = 1 << 32;

/// PAGE_TYPE of SNP_LAUNCH_UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageType {
    /// Contents measured.
    Normal = 1,
    /// A virtual CPU's registers, contents measured.
    Vmsa = 2,
    /// Zeros.
    Zero = 3,
    /// Contents not measured.
    Unmeasured = 4,
    /// The secrets page, filled by the processor.
    Secrets = 5,
    /// The CPUID page, checked by the processor.
    Cpuid = 6,
}

impl PageType {
    /// The type with this number.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Normal),
            2 => Some(Self::Vmsa),
            3 => Some(Self::Zero),
            4 => Some(Self::Unmeasured),
            5 => Some(Self::Secrets),
            6 => Some(Self::Cpuid),
            _ => None,
        }
    }
}

/// MEASUREMENT of a report.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaunchDigest(pub [u8; 48]);

impl fmt::Display for LaunchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LaunchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaunchDigest({self})")
    }
}

/// Pages that follow each other and are given to the processor in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchPage<'a> {
    /// Type of all of them.
    pub page_type: PageType,
    /// Guest-physical address of the first; [`VMSA_GPA`] for a VMSA.
    pub gpa: u64,
    /// A multiple of [`PAGE_SIZE`] bytes.
    pub data: Cow<'a, [u8]>,
}

/// Why a plan cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// No virtual CPU, or more than a guest can have.
    #[error("a guest has 1 to {MAX_VCPUS} virtual CPUs, not {vcpus}")]
    Vcpus {
        /// What was asked for.
        vcpus: u32,
    },
    /// The firmware image is no firmware image.
    #[error("reading the firmware image")]
    Firmware(#[from] OvmfError),
    /// Kernel hashes were given to a firmware that has no place for them.
    #[error("the firmware has no SNP_KERNEL_HASHES section, so it would not check the kernel's hashes")]
    NoKernelHashes,
    /// Two things want the same page.
    #[error("the page at {gpa:#x} would be loaded twice")]
    Overlap {
        /// Its address.
        gpa: u64,
    },
    /// The pages cannot be measured.
    #[error("measuring the launch pages")]
    Measurement(#[from] PageInfoError),
}

/// What a guest starts with.
#[derive(Clone, Debug)]
pub struct LaunchPlan<'a> {
    /// The firmware image; it ends at 4 GiB.
    pub firmware: &'a [u8],
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Their model, whose signature stands in RDX at reset.
    pub cpu: CpuModel,
    /// SEV_FEATURES of the VMSAs; [`SNP_ACTIVE`] at least.
    pub guest_features: u64,
    /// Hashes of a directly booted kernel.
    pub kernel_hashes: Option<KernelHashes>,
    /// The page that names the paravisor ([`paravisor_page`]), loaded at [`PARAVISOR_PAGE_GPA`].
    pub paravisor_page: Option<[u8; PAGE_SIZE]>,
}

impl LaunchPlan<'_> {
    /// The pages in launch order.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub fn pages(&self) -> Result<Vec<LaunchPage<'_>>, LaunchError> {
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(LaunchError::Vcpus { vcpus: self.vcpus });
        }
        let ovmf = Ovmf::parse(self.firmware)?;
        let size = u64::try_from(self.firmware.len()).unwrap_or(FOUR_GIB);
        let mut pages = vec![page(PageType::Normal, FOUR_GIB - size, Cow::Borrowed(self.firmware))];
        for section in &ovmf.sections {
            pages.push(self.section(&ovmf, section)?);
        }
        if self.kernel_hashes.is_some() && !ovmf.has(SectionKind::KernelHashes) {
            return Err(LaunchError::NoKernelHashes);
        }
        if let Some(data) = &self.paravisor_page {
            pages.push(page(PageType::Normal, PARAVISOR_PAGE_GPA, Cow::Borrowed(data)));
        }
        check_overlap(&pages)?;
        for index in 0..self.vcpus {
            let eip = if index == 0 { vmsa::BSP_RESET } else { ovmf.ap_reset.unwrap_or(vmsa::BSP_RESET) };
            let data = vmsa::page(eip, self.cpu.signature(), self.guest_features);
            pages.push(page(PageType::Vmsa, VMSA_GPA, Cow::Owned(data.to_vec())));
        }
        Ok(pages)
    }

    /// The digest that a processor reports for this launch.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub fn digest(&self) -> Result<LaunchDigest, LaunchError> {
        let mut measurement = Measurement::new();
        for page in self.pages()? {
            measurement.update(page.page_type, page.gpa, &page.data)?;
        }
        Ok(measurement.finish())
    }

    fn section(&self, ovmf: &Ovmf, section: &Section) -> Result<LaunchPage<'static>, LaunchError> {
        let gpa = u64::from(section.gpa);
        let zeros = |pages: usize| Cow::Owned(vec![0; pages * PAGE_SIZE]);
        Ok(match (section.kind, &self.kernel_hashes) {
            (SectionKind::SecMemory | SectionKind::SvsmCaa, _) | (SectionKind::KernelHashes, None) => {
                page(PageType::Zero, gpa, zeros(section.pages()))
            }
            (SectionKind::Secrets, _) => page(PageType::Secrets, gpa, zeros(1)),
            (SectionKind::Cpuid, _) => page(PageType::Cpuid, gpa, zeros(1)),
            (SectionKind::KernelHashes, Some(hashes)) => {
                let data = hashes.page(ovmf.hashes_table_gpa, section).ok_or(LaunchError::NoKernelHashes)?;
                page(PageType::Normal, gpa, Cow::Owned(data.to_vec()))
            }
        })
    }
}

fn page(page_type: PageType, gpa: u64, data: Cow<'_, [u8]>) -> LaunchPage<'_> {
    LaunchPage { page_type, gpa, data }
}

/// A page that was loaded belongs to the guest; real firmware refuses to load it again (INVALID_PAGE_STATE).
fn check_overlap(pages: &[LaunchPage<'_>]) -> Result<(), LaunchError> {
    let mut ranges: Vec<(u64, u64)> = Vec::with_capacity(pages.len());
    for page in pages {
        let len = u64::try_from(page.data.len()).unwrap_or(FOUR_GIB);
        ranges.push((page.gpa, page.gpa.saturating_add(len)));
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let [(_, end), (start, _)] = pair
            && start < end
        {
            return Err(LaunchError::Overlap { gpa: *start });
        }
    }
    Ok(())
}

/// The launch page that names the paravisor: its binary and the firmware variables that it starts a new VM with.
///
/// Layout: `CASEMATE`, version 1 (u32), number of digests 2 (u32), SHA-384 of the paravisor, SHA-384 of the variables.
pub fn paravisor_page(paravisor_sha384: &[u8; 48], vars_sha384: &[u8; 48]) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    put::<0, 8, _>(&mut page, *b"CASEMATE");
    put::<8, 4, _>(&mut page, 1u32.to_le_bytes());
    put::<12, 4, _>(&mut page, 2u32.to_le_bytes());
    put::<16, 48, _>(&mut page, *paravisor_sha384);
    put::<64, 48, _>(&mut page, *vars_sha384);
    page
}
