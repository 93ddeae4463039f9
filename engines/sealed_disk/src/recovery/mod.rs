//! Getting a VM's disk back without its platform: the recovery document, and the plain disk that is made with it.
//!
//! The host's disk file holds ciphertext only; what makes a disk of it (partition table, boot partition, LUKS2 header) lies in
//! the [`crate::boot_region`], whose key and table are in the guest state, whose key needs an attestation. The *recovery
//! document* is the second way to that key and table: sealed under a key of its own, which is wrapped to the tenant.
//!
//! ```text
//! tenant's private key -> document key -> region key, table -> boot region, chunk by chunk   (authenticated)
//!                                                                 + ciphertext of the disk   = a plain disk with LUKS2
//! ```
//!
//! So nothing new is published: the boot region's bytes stay where they are, and what the export reads of them is what the
//! guest would read, or an error.

mod document;
mod export;

pub use document::{Contents, Document, DocumentError, fingerprint};
pub use export::{Damage, Export, ExportError, Exported};
