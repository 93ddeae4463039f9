//! Builders: each returns the bytes of one command.

use zeroize::Zeroizing;

use super::{TAG_NO_SESSIONS, TAG_SESSIONS, alg, code, handle};
use crate::pcr::Digest;

/// NV attributes (TPMA_NV).
pub mod nv {
    #![allow(missing_docs, reason = "the constants bear the specification's names")]
    pub const PPWRITE: u32 = 1 << 0;
    pub const OWNERWRITE: u32 = 1 << 1;
    pub const AUTHWRITE: u32 = 1 << 2;
    pub const PPREAD: u32 = 1 << 16;
    pub const OWNERREAD: u32 = 1 << 17;
    pub const AUTHREAD: u32 = 1 << 18;
    pub const NO_DA: u32 = 1 << 25;
    pub const WRITTEN: u32 = 1 << 29;
    pub const PLATFORMCREATE: u32 = 1 << 30;

    /// An index that the platform alone writes and everybody in the guest reads.
    pub const PLATFORM_DATA: u32 = PPWRITE | PPREAD | OWNERREAD | AUTHREAD | NO_DA | PLATFORMCREATE;
    /// An index that the guest writes and reads.
    pub const GUEST_DATA: u32 = OWNERREAD | OWNERWRITE | AUTHREAD | AUTHWRITE | NO_DA;
}

pub(super) struct Command {
    code: u32,
    handles: Vec<u32>,
    auths: Zeroizing<Vec<u8>>,
    parameters: Zeroizing<Vec<u8>>,
}

impl Command {
    pub(super) fn new(code: u32) -> Self {
        Self { code, handles: Vec::new(), auths: Vec::new().into(), parameters: Vec::new().into() }
    }

    pub(super) fn handle(mut self, handle: u32) -> Self {
        self.handles.push(handle);
        self
    }

    /// A password session for the handle added last.
    pub(super) fn password(mut self, password: &[u8]) -> Self {
        self.auths.extend_from_slice(&handle::PASSWORD_SESSION.to_be_bytes());
        self.auths.extend_from_slice(&[0, 0, 1]);
        tpm2b(&mut self.auths, password);
        self
    }

    /// A policy session that ends with the command, for the handle added last.
    pub(super) fn policy(mut self, session: u32) -> Self {
        self.auths.extend_from_slice(&session.to_be_bytes());
        self.auths.extend_from_slice(&[0, 0, 0, 0, 0]);
        self
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.parameters.extend_from_slice(bytes);
        self
    }

    pub(super) fn tpm2b(mut self, bytes: &[u8]) -> Self {
        tpm2b(&mut self.parameters, bytes);
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut body = Zeroizing::new(Vec::new());
        body.extend(self.handles.iter().flat_map(|handle| handle.to_be_bytes()));
        if !self.auths.is_empty() {
            body.extend_from_slice(&length32(self.auths.len()).to_be_bytes());
            body.extend_from_slice(&self.auths);
        }
        body.extend_from_slice(&self.parameters);
        let tag = if self.auths.is_empty() { TAG_NO_SESSIONS } else { TAG_SESSIONS };
        let mut out = Vec::with_capacity(10 + body.len());
        out.extend_from_slice(&tag.to_be_bytes());
        out.extend_from_slice(&length32(10 + body.len()).to_be_bytes());
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(&body);
        out
    }
}

fn length32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Appends a TPM2B. What exceeds its 16-bit size is cut off; the TPM refuses what was cut.
pub(super) fn tpm2b(out: &mut Vec<u8>, bytes: &[u8]) {
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(bytes.get(..usize::from(size)).unwrap_or(bytes));
}

/// `TPML_PCR_SELECTION` of one SHA-256 bank with three selection bytes. PCRs above 23 are left out.
pub fn pcr_selection(pcrs: &[u8]) -> [u8; 10] {
    let mut bits = [0u8; 3];
    for pcr in pcrs {
        if let Some(byte) = bits.get_mut(usize::from(pcr / 8)) {
            *byte |= 1 << (pcr % 8);
        }
    }
    let [a, b] = alg::SHA256.to_be_bytes();
    let [m0, m1, m2] = bits;
    [0, 0, 0, 1, a, b, 3, m0, m1, m2]
}

/// `TPM2_Startup(TPM_SU_CLEAR)`.
pub fn startup_clear() -> Vec<u8> {
    Command::new(code::STARTUP).u16(0).finish()
}

/// `TPM2_Shutdown(TPM_SU_CLEAR)`.
pub fn shutdown_clear() -> Vec<u8> {
    Command::new(code::SHUTDOWN).u16(0).finish()
}

/// `TPM2_SelfTest`, of everything.
pub fn self_test() -> Vec<u8> {
    Command::new(code::SELF_TEST).u8(1).finish()
}

/// `TPM2_CreatePrimary` of a template (see [`super::template`]) without sensitive data, object auth or creation PCRs.
pub fn create_primary(hierarchy: u32, password: &[u8], template: &[u8]) -> Vec<u8> {
    Command::new(code::CREATE_PRIMARY)
        .handle(hierarchy)
        .password(password)
        .tpm2b(&[0, 0, 0, 0])
        .tpm2b(template)
        .tpm2b(&[])
        .u32(0)
        .finish()
}

/// `TPM2_EvictControl`: makes a transient object persistent, or removes a persistent one when both handles are equal.
pub fn evict_control(hierarchy: u32, password: &[u8], object: u32, persistent: u32) -> Vec<u8> {
    Command::new(code::EVICT_CONTROL)
        .handle(hierarchy)
        .handle(object)
        .password(password)
        .u32(persistent)
        .finish()
}

/// `TPM2_FlushContext`.
pub fn flush_context(object: u32) -> Vec<u8> {
    Command::new(code::FLUSH_CONTEXT).u32(object).finish()
}

/// `TPM2_ReadPublic`.
pub fn read_public(object: u32) -> Vec<u8> {
    Command::new(code::READ_PUBLIC).handle(object).finish()
}

/// `TPM2_NV_DefineSpace` with name algorithm SHA-256, no policy and an empty index password.
pub fn nv_define_space(hierarchy: u32, password: &[u8], index: u32, attributes: u32, size: u16) -> Vec<u8> {
    let mut public = Vec::with_capacity(14);
    public.extend_from_slice(&index.to_be_bytes());
    public.extend_from_slice(&alg::SHA256.to_be_bytes());
    public.extend_from_slice(&attributes.to_be_bytes());
    public.extend_from_slice(&[0, 0]);
    public.extend_from_slice(&size.to_be_bytes());
    Command::new(code::NV_DEFINE_SPACE)
        .handle(hierarchy)
        .password(password)
        .tpm2b(&[])
        .tpm2b(&public)
        .finish()
}

/// `TPM2_NV_UndefineSpace`.
pub fn nv_undefine_space(hierarchy: u32, password: &[u8], index: u32) -> Vec<u8> {
    Command::new(code::NV_UNDEFINE_SPACE).handle(hierarchy).handle(index).password(password).finish()
}

/// `TPM2_NV_Write` of at most [`super::NV_CHUNK`] bytes. `auth` is the platform, the owner, or the index itself.
pub fn nv_write(auth: u32, password: &[u8], index: u32, data: &[u8], offset: u16) -> Vec<u8> {
    Command::new(code::NV_WRITE)
        .handle(auth)
        .handle(index)
        .password(password)
        .tpm2b(data)
        .u16(offset)
        .finish()
}

/// `TPM2_NV_Read` of at most [`super::NV_CHUNK`] bytes.
pub fn nv_read(auth: u32, password: &[u8], index: u32, size: u16, offset: u16) -> Vec<u8> {
    Command::new(code::NV_READ).handle(auth).handle(index).password(password).u16(size).u16(offset).finish()
}

/// `TPM2_NV_ReadPublic`.
pub fn nv_read_public(index: u32) -> Vec<u8> {
    Command::new(code::NV_READ_PUBLIC).handle(index).finish()
}

/// `TPM2_HierarchyChangeAuth`. The command holds the new password, so it is wiped when dropped.
pub fn hierarchy_change_auth(hierarchy: u32, password: &[u8], new: &[u8]) -> Zeroizing<Vec<u8>> {
    Command::new(code::HIERARCHY_CHANGE_AUTH).handle(hierarchy).password(password).tpm2b(new).finish().into()
}

/// `TPM2_PCR_Read` of the SHA-256 bank. A TPM answers at most eight PCRs at a time.
pub fn pcr_read(pcrs: &[u8]) -> Vec<u8> {
    Command::new(code::PCR_READ).bytes(&pcr_selection(pcrs)).finish()
}

/// `TPM2_PCR_Extend` of the SHA-256 bank.
pub fn pcr_extend(pcr: u8, digest: &Digest) -> Vec<u8> {
    Command::new(code::PCR_EXTEND)
        .handle(u32::from(pcr))
        .password(&[])
        .u32(1)
        .u16(alg::SHA256)
        .bytes(digest)
        .finish()
}

/// `TPM2_Quote` over PCRs of the SHA-256 bank, with the key's own scheme.
pub fn quote(key: u32, password: &[u8], nonce: &[u8], pcrs: &[u8]) -> Vec<u8> {
    Command::new(code::QUOTE)
        .handle(key)
        .password(password)
        .tpm2b(nonce)
        .u16(alg::NULL)
        .bytes(&pcr_selection(pcrs))
        .finish()
}

/// `TPM2_GetCapability(TPM_CAP_HANDLES)` from a first handle on.
pub fn get_handles(first: u32, count: u32) -> Vec<u8> {
    Command::new(code::GET_CAPABILITY).u32(1).u32(first).u32(count).finish()
}

/// Splits data into the `NV_Write` commands that store it from offset 0 on.
pub fn nv_write_all(auth: u32, password: &[u8], index: u32, data: &[u8]) -> Vec<Vec<u8>> {
    let mut offset = 0u16;
    data.chunks(usize::from(super::NV_CHUNK))
        .map(|chunk| {
            let command = nv_write(auth, password, index, chunk, offset);
            offset = offset.saturating_add(super::NV_CHUNK);
            command
        })
        .collect()
}
