//! The running digest of a launch (ABI section 8.17.2, table "PAGE_INFO Structure").

use aws_lc_rs::digest::{SHA384, digest};

use crate::bytes::{array, put};
use crate::launch::{LaunchDigest, PAGE_SIZE, PageType, VMSA_GPA};

const PAGE_INFO_SIZE: usize = 0x70;

/// Why pages cannot be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageInfoError {
    /// Not whole pages, or none.
    #[error("{len} bytes are not a whole number of pages of {PAGE_SIZE} bytes")]
    Length {
        /// Bytes given.
        len: usize,
    },
    /// The address is not a page's, or the pages run over the end of the address space.
    #[error("{gpa:#x} is not the address of a page")]
    Address {
        /// The address.
        gpa: u64,
    },
    /// A VMSA at another address than the one that stands for VMSAs.
    #[error("a VMSA is measured at {VMSA_GPA:#x}, one page at a time, not at {gpa:#x}")]
    Vmsa {
        /// The address.
        gpa: u64,
    },
}

/// LD of a guest context.
#[derive(Clone, Debug)]
pub struct Measurement([u8; 48]);

impl Default for Measurement {
    fn default() -> Self {
        Self::new()
    }
}

impl Measurement {
    /// The digest before the first page: zeros.
    pub const fn new() -> Self {
        Self([0; 48])
    }

    /// Takes in consecutive pages of one type.
    ///
    /// # Errors
    /// See [`PageInfoError`]; the digest is then unchanged.
    pub fn update(&mut self, page_type: PageType, gpa: u64, data: &[u8]) -> Result<(), PageInfoError> {
        check(page_type, gpa, data)?;
        let mut address = gpa;
        for page in data.chunks_exact(PAGE_SIZE) {
            let contents = match page_type {
                PageType::Normal | PageType::Vmsa => sha384(page),
                PageType::Zero | PageType::Unmeasured | PageType::Secrets | PageType::Cpuid => [0; 48],
            };
            self.0 = sha384(&page_info(&self.0, &contents, page_type, address));
            address = address.wrapping_add(4096);
        }
        Ok(())
    }

    /// The digest of everything taken in.
    pub const fn finish(self) -> LaunchDigest {
        LaunchDigest(self.0)
    }
}

fn check(page_type: PageType, gpa: u64, data: &[u8]) -> Result<(), PageInfoError> {
    let len = data.len();
    if len == 0 || !len.is_multiple_of(PAGE_SIZE) {
        return Err(PageInfoError::Length { len });
    }
    let bytes = u64::try_from(len).map_err(|_| PageInfoError::Length { len })?;
    if !gpa.is_multiple_of(4096) || gpa.checked_add(bytes).is_none() {
        return Err(PageInfoError::Address { gpa });
    }
    if page_type == PageType::Vmsa && (gpa != VMSA_GPA || len != PAGE_SIZE) {
        return Err(PageInfoError::Vmsa { gpa });
    }
    Ok(())
}

/// PAGE_INFO; IMI_PAGE and the permissions of VMPL 1 to 3 are zero.
fn page_info(current: &[u8; 48], contents: &[u8; 48], page_type: PageType, gpa: u64) -> [u8; PAGE_INFO_SIZE] {
    let mut info = [0; PAGE_INFO_SIZE];
    put::<0x00, 48, _>(&mut info, *current);
    put::<0x30, 48, _>(&mut info, *contents);
    put::<0x60, 2, _>(&mut info, 0x70u16.to_le_bytes());
    put::<0x62, 1, _>(&mut info, [page_type as u8]);
    put::<0x68, 8, _>(&mut info, gpa.to_le_bytes());
    info
}

/// SHA-384 as an array.
pub(crate) fn sha384(bytes: &[u8]) -> [u8; 48] {
    array(digest(&SHA384, bytes).as_ref(), 0).unwrap_or([0; 48])
}
