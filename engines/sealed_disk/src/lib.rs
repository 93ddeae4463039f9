//! Everything about a confidential VM's disk and state at rest: how the OS disk is encrypted before its first boot, how
//! its key is sealed to the VM's TPM, and how the VM's own state is kept so that its host can neither read nor forge it.
//!
//! Not here: network, decisions about trust, the prediction of PCRs, the block device served to QEMU.
//!
//! | module | provides |
//! |---|---|
//! | [`secret`] | `Secret<N>`, `VolumeKey`, `Passphrase`: wiped, without `Debug`; serde helpers to be named explicitly |
//! | [`storage`] | the file operations of the two containers, as a trait for crash tests |
//! | [`xts`] | `Xts::new(&[u8; 64])`, `encrypt_in_place`, `decrypt_in_place` |
//! | [`luks2`] | `Format { .. }.write()`, `check()`, `CheckedHeader::unlock()`, `replace_token()`, `repair()` |
//! | [`boot_region`] | `BootRegion::create/open`, `read_at`, `write_at`, `flush` -> table, `committed`, `reader` |
//! | [`guest_state`] | `GuestState::create`, `LockedState::open` -> `unlock(&Kek)`, `read`, `commit`, `advance` |
//! | [`image`] | `Layout::discover`, `Manifest::build/parse/digest_of/disk_layout` -> `DiskLayout` with `spans()` |
//! | [`provision`] | `encrypt_image(Job { .. }, progress)` |
//! | [`recovery`] | `Document::seal/parse/open`, `Export::open/check/write`: the disk without its platform |
//! | [`seal`] | `SrkPublic::parse()`, `policy_pcr()`, `seal()`, `systemd_tpm2_token()`, `passphrase_of()` |

pub mod boot_region;
mod crypto;
pub mod guest_state;
pub mod image;
pub mod luks2;
pub mod provision;
pub mod recovery;
pub mod seal;
pub mod secret;
pub mod storage;
pub mod xts;
