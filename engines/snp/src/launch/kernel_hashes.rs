//! The page with the hashes of a directly booted kernel, as QEMU writes it and OVMF (AmdSev build) checks it.

use aws_lc_rs::digest::{SHA256, digest};

use crate::launch::PAGE_SIZE;
use crate::launch::ovmf::{Guid, Section, guid};

const TABLE: Guid = guid(0x9438d606, 0x4f22, 0x4cc9, [0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21]);
const CMDLINE: Guid = guid(0x97d02dd8, 0xbd20, 0x4c94, [0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a]);
const INITRD: Guid = guid(0x44baf731, 0x3a2f, 0x4bd7, [0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d]);
const KERNEL: Guid = guid(0x4de79437, 0xabd2, 0x427f, [0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b]);

const ENTRY_SIZE: u16 = 16 + 2 + 32;
const TABLE_SIZE: u16 = 16 + 2 + 3 * ENTRY_SIZE;

/// SHA-256 of what a kernel boots with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHashes {
    /// Of the kernel.
    pub kernel: [u8; 32],
    /// Of the initial RAM disk; of nothing when there is none.
    pub initrd: [u8; 32],
    /// Of the command line with a zero byte at its end.
    pub cmdline: [u8; 32],
}

impl KernelHashes {
    /// Hashes of the given contents.
    pub fn of(kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str) -> Self {
        let mut line = cmdline.as_bytes().to_vec();
        line.push(0);
        Self { kernel: sha256(kernel), initrd: sha256(initrd.unwrap_or_default()), cmdline: sha256(&line) }
    }

    /// The page; nothing when the section is not one page or the table does not fit behind its address.
    pub(super) fn page(&self, table_gpa: Option<u32>, section: &Section) -> Option<[u8; PAGE_SIZE]> {
        let offset = usize::try_from(table_gpa? % 4096).ok()?;
        let table = self.table();
        if section.pages() != 1 || offset + table.len() > PAGE_SIZE {
            return None;
        }
        let mut page = [0; PAGE_SIZE];
        page.iter_mut().skip(offset).zip(table).for_each(|(to, from)| *to = from);
        Some(page)
    }

    fn table(&self) -> Vec<u8> {
        let mut table = TABLE.to_vec();
        table.extend(TABLE_SIZE.to_le_bytes());
        for (guid, hash) in [(CMDLINE, self.cmdline), (INITRD, self.initrd), (KERNEL, self.kernel)] {
            table.extend(guid);
            table.extend(ENTRY_SIZE.to_le_bytes());
            table.extend(hash);
        }
        table
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    crate::bytes::array(digest(&SHA256, bytes).as_ref(), 0).unwrap_or_default()
}
