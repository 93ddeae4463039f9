//! What a TPM relay reads of the commands that the guest sends: which command, on which handles, and of a few commands
//! the parameters.

use super::{CommandError, TAG_SESSIONS, alg, code, handle_count};
use crate::bytes::{Cursor, size};
use crate::pcr::Digest;

/// A guest's command. Its debug text leaves the parameters out: they may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The command code.
    pub code: u32,
    /// Handles in front of the authorisation area.
    pub handles: Vec<u32>,
    /// Session handles of the authorisation area, in order.
    pub sessions: Vec<Session<'a>>,
    /// Everything behind the authorisation area. Encrypted in part when a session has the decrypt attribute.
    pub parameters: &'a [u8],
}

/// One session of a command's authorisation area.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// The session's handle; 0x40000009 for a password.
    pub handle: u32,
    /// TPMA_SESSION. Bit 5: the first parameter is encrypted.
    pub attributes: u8,
    /// HMAC or password.
    authorization: &'a [u8],
}

impl Session<'_> {
    /// Whether the password or HMAC is empty.
    pub fn is_empty(&self) -> bool {
        self.authorization.is_empty()
    }
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:#x}, {:#x})", self.handle, self.attributes)
    }
}

/// `PCR_Extend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrExtend {
    /// The PCR. Other handles than 0 to 23 are refused by every TPM.
    pub pcr: u32,
    /// The digest for the SHA-256 bank, if the command has one.
    pub sha256: Option<Digest>,
}

/// A hierarchy and its new password; `None` when the password is encrypted.
pub type HierarchyPassword<'a> = (u32, Option<&'a [u8]>);

/// `NV_Read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvRead {
    /// The handle that authorises: the index itself, the owner or the platform.
    pub auth: u32,
    /// The index.
    pub index: u32,
    /// Bytes asked for.
    pub size: u16,
    /// From which offset.
    pub offset: u16,
}

/// `NV_Write`, as far as it matters to who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvWrite {
    /// The handle that authorises.
    pub auth: u32,
    /// The index.
    pub index: u32,
}

impl std::fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({:#x}, handles {:x?}, {:?})", self.code, self.handles, self.sessions)
    }
}

impl<'a> Incoming<'a> {
    /// Takes a command apart.
    ///
    /// # Errors
    /// [`CommandError`]: wrong framing, or a command whose handles are not known. A relay may pass such a command on:
    /// the TPM refuses it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CommandError> {
        let (tag, code, body) = super::response::header(bytes)?;
        let mut cursor = Cursor::new(body);
        let count = handle_count(code).ok_or(CommandError::UnknownCommand(code))?;
        let mut handles = Vec::with_capacity(count);
        for _ in 0..count {
            handles.push(cursor.be32().ok_or(CommandError::Truncated("handles"))?);
        }
        let sessions = if tag == TAG_SESSIONS { sessions(&mut cursor)? } else { Vec::new() };
        Ok(Self { code, handles, sessions, parameters: cursor.rest() })
    }

    /// The extend, if this is one.
    ///
    /// # Errors
    /// [`CommandError`] for an extend that cannot be read: unknown hash algorithm, truncated, or two digests for SHA-256.
    pub fn pcr_extend(&self) -> Result<Option<PcrExtend>, CommandError> {
        if self.code != code::PCR_EXTEND {
            return Ok(None);
        }
        let pcr = self.first_handle()?;
        let mut cursor = Cursor::new(self.parameters);
        let count = cursor.be32().ok_or(CommandError::Truncated("digest count"))?;
        let mut sha256 = None;
        for _ in 0..count.min(16) {
            let hash = cursor.be16().ok_or(CommandError::Truncated("hash algorithm"))?;
            let length = alg::digest_size(hash).ok_or(CommandError::Unexpected("hash algorithm"))?;
            let digest = cursor.take(length).ok_or(CommandError::Truncated("digest"))?;
            if hash == alg::SHA256 && sha256.replace(crate::pcr::to_digest(digest)).is_some() {
                return Err(CommandError::Unexpected("second sha-256 digest"));
            }
        }
        if count > 16 || !cursor.is_empty() {
            return Err(CommandError::Trailing("digests"));
        }
        Ok(Some(PcrExtend { pcr, sha256 }))
    }

    /// The hierarchy and its new password, if this is `HierarchyChangeAuth`. `None` in the place of the password when a
    /// session encrypts it.
    ///
    /// # Errors
    /// [`CommandError`] for a truncated command.
    pub fn hierarchy_change_auth(&self) -> Result<Option<HierarchyPassword<'a>>, CommandError> {
        if self.code != code::HIERARCHY_CHANGE_AUTH {
            return Ok(None);
        }
        let hierarchy = self.first_handle()?;
        if self.sessions.iter().any(|session| session.attributes & 0x20 != 0) {
            return Ok(Some((hierarchy, None)));
        }
        let mut cursor = Cursor::new(self.parameters);
        let new = cursor.tpm2b().ok_or(CommandError::Truncated("new password"))?;
        if !cursor.is_empty() {
            return Err(CommandError::Trailing("new password"));
        }
        Ok(Some((hierarchy, Some(new))))
    }

    /// The read, if this is `NV_Read`.
    ///
    /// # Errors
    /// [`CommandError`] for a truncated command.
    pub fn nv_read(&self) -> Result<Option<NvRead>, CommandError> {
        let (code::NV_READ, [auth, index]) = (self.code, self.handles.as_slice()) else { return Ok(None) };
        let mut cursor = Cursor::new(self.parameters);
        let mut word = || cursor.be16().ok_or(CommandError::Truncated("nv size and offset"));
        let (size, offset) = (word()?, word()?);
        Ok(Some(NvRead { auth: *auth, index: *index, size, offset }))
    }

    /// The write, if this is `NV_Write`.
    pub fn nv_write(&self) -> Option<NvWrite> {
        match (self.code, self.handles.as_slice()) {
            (code::NV_WRITE, [auth, index]) => Some(NvWrite { auth: *auth, index: *index }),
            _ => None,
        }
    }

    fn first_handle(&self) -> Result<u32, CommandError> {
        self.handles.first().copied().ok_or(CommandError::Truncated("handles"))
    }
}

fn sessions<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<Session<'a>>, CommandError> {
    let truncated = CommandError::Truncated("authorisation area");
    let length = cursor.be32().ok_or(truncated.clone())?;
    let mut area = Cursor::new(cursor.take(size(length)).ok_or(truncated.clone())?);
    let mut sessions = Vec::new();
    while !area.is_empty() {
        let handle = area.be32().ok_or(truncated.clone())?;
        area.tpm2b().ok_or(truncated.clone())?;
        let attributes = area.u8().ok_or(truncated.clone())?;
        let authorization = area.tpm2b().ok_or(truncated.clone())?;
        sessions.push(Session { handle, attributes, authorization });
    }
    if sessions.len() > 3 {
        return Err(CommandError::Unexpected("number of sessions"));
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{self, handle};

    #[test]
    fn built_commands_are_read_back() {
        let digest = crate::pcr::sha256(b"x");
        let bytes = command::pcr_extend(15, &digest);
        let extend = Incoming::parse(&bytes).unwrap().pcr_extend().unwrap().unwrap();
        assert_eq!(extend, PcrExtend { pcr: 15, sha256: Some(digest) });

        let bytes = command::nv_read(handle::OWNER, b"", 0x0140_0001, 1024, 512);
        let read = Incoming::parse(&bytes).unwrap().nv_read().unwrap().unwrap();
        assert_eq!(read, NvRead { auth: handle::OWNER, index: 0x0140_0001, size: 1024, offset: 512 });

        let bytes = command::hierarchy_change_auth(handle::PLATFORM, b"old", b"new");
        let incoming = Incoming::parse(&bytes).unwrap();
        assert_eq!(incoming.hierarchy_change_auth().unwrap().unwrap(), (handle::PLATFORM, Some(&b"new"[..])));
        assert!(!format!("{incoming:?}").contains("110, 101, 119"), "a password in a debug text");
    }

    #[test]
    fn extend_with_several_banks_gives_the_sha256_digest() {
        let digest = [9; 32];
        let mut parameters = vec![0, 0, 0, 2, 0, 4];
        parameters.extend_from_slice(&[1; 20]);
        parameters.extend_from_slice(&[0, 0x0B]);
        parameters.extend_from_slice(&digest);
        let incoming =
            Incoming { code: code::PCR_EXTEND, handles: vec![7], sessions: vec![], parameters: &parameters };
        assert_eq!(incoming.pcr_extend().unwrap().unwrap().sha256, Some(digest));
    }

    #[test]
    fn extend_hidden_behind_an_unknown_algorithm_is_an_error() {
        let parameters = [0, 0, 0, 1, 0x77, 0x77, 1, 2, 3];
        let incoming =
            Incoming { code: code::PCR_EXTEND, handles: vec![15], sessions: vec![], parameters: &parameters };
        assert_eq!(incoming.pcr_extend(), Err(CommandError::Unexpected("hash algorithm")));
    }

    #[test]
    fn extend_with_two_digests_for_one_bank_is_an_error() {
        let mut parameters = vec![0, 0, 0, 2];
        for byte in [1, 2] {
            parameters.extend_from_slice(&[0, 0x0B]);
            parameters.extend_from_slice(&[byte; 32]);
        }
        let incoming =
            Incoming { code: code::PCR_EXTEND, handles: vec![15], sessions: vec![], parameters: &parameters };
        assert!(incoming.pcr_extend().is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(code in 0x11Fu32..0x198, body in proptest::collection::vec(proptest::num::u8::ANY, 0..100), tag in 0x8001u16..=0x8002) {
            let mut bytes = tag.to_be_bytes().to_vec();
            bytes.extend_from_slice(&u32::try_from(10 + body.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(&code.to_be_bytes());
            bytes.extend_from_slice(&body);
            if let Ok(incoming) = Incoming::parse(&bytes) {
                let _ = (incoming.pcr_extend(), incoming.nv_read(), incoming.nv_write(), incoming.hierarchy_change_auth());
            }
        }
    }
}
