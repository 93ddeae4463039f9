//! What the platform keeps in the VM's TPM, put (back) in place before each boot: storage root key, attestation key and
//! its certificate, the index of the HCL report.
//!
//! The guest's owner may evict persistent objects and define indices of its own, so nothing found is taken on trust: a
//! key must be the primary key that this TPM derives from its seeds for the platform's template, an index must have the
//! platform's attributes and content.

use vtpm::command::{self, CommandError, KeyPublic, NvPublic, ResponseCode, handle, nv, template};
use vtpm::hcl::{HANDLE_AK, HANDLE_SRK, MAX_REPORT, NV_INDEX_AK_CERTIFICATE, NV_INDEX_REPORT};
use vtpm::key::RsaPublic;

use super::engine::{EngineError, TpmEngine};
use crate::failure::Stop;

/// `TPM2_PCR_Allocate` of SHA-256 alone, by the platform with an empty password: one bank keeps event logs and policies
/// simple (TPM 2.0 library, part 3, section 22.5).
const ALLOCATE_SHA256: [u8; 55] = [
    0x80, 0x02, 0, 0, 0, 55, 0, 0, 0x01, 0x2b, 0x40, 0, 0, 0x0c, // header, TPM_RH_PLATFORM
    0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 1, 0, 0, // password session
    0, 0, 0, 4, 0, 0x04, 3, 0, 0, 0, 0, 0x0b, 3, 0xff, 0xff, 0xff, // SHA-1 off, SHA-256 on
    0, 0x0c, 3, 0, 0, 0, 0, 0x0d, 3, 0, 0, 0, // SHA-384 and SHA-512 off
];

/// What went wrong between the paravisor and its TPM.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The implementation failed.
    #[error("the vTPM cannot be used")]
    Engine(#[from] EngineError),
    /// A command failed.
    #[error("the vTPM refused to {doing}")]
    Command {
        /// What was being done.
        doing: &'static str,
        /// The answer.
        #[source]
        source: CommandError,
    },
    /// A key is not of the kind that its template asks for.
    #[error("the vTPM made a key of another kind than asked for ({0})")]
    KeyKind(&'static str),
    /// The certificate of the attestation key could not be made.
    #[error("the attestation key's certificate cannot be made")]
    Certificate(#[source] rcgen::Error),
    /// The secure processor gave no report.
    #[error("no attestation report for the guest: {}", .0.failure().actual)]
    NoReport(Stop),
    /// No HCL report could be made of it.
    #[error("no attestation report for the guest: {0}")]
    Report(String),
}

/// The keys that the platform answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmIdentity {
    /// Storage root key (ECC P-256).
    pub srk: KeyPublic,
    /// Attestation key (RSA-2048).
    pub ak: KeyPublic,
}

impl TpmIdentity {
    /// The attestation key as RSA.
    pub fn ak_rsa(&self) -> Result<&RsaPublic, TpmError> {
        self.ak.rsa().ok_or(TpmError::KeyKind("attestation key"))
    }
}

/// Runs commands and names what failed.
pub(super) struct Runner<'a>(pub &'a mut dyn TpmEngine);

impl Runner<'_> {
    pub fn run<T>(
        &mut self,
        doing: &'static str,
        command: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<T, CommandError>,
    ) -> Result<T, TpmError> {
        parse(&self.0.process(command)?).map_err(|source| TpmError::Command { doing, source })
    }

    /// As [`Runner::run`]; `None` if the named object or index does not exist.
    pub fn find<T>(
        &mut self,
        doing: &'static str,
        command: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<T, CommandError>,
    ) -> Result<Option<T>, TpmError> {
        match self.run(doing, command, parse) {
            Ok(found) => Ok(Some(found)),
            Err(TpmError::Command { source: CommandError::Tpm(code), .. }) if code.is_missing_handle() => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Gives a new TPM its PCR bank. It must be switched off and on before the bank is in use.
pub fn allocate_banks(engine: &mut dyn TpmEngine) -> Result<(), TpmError> {
    engine.power_on()?;
    let mut tpm = Runner(engine);
    tpm.run("start", &command::startup_clear(), command::success)?;
    let done = tpm.run("allocate the SHA-256 bank", &ALLOCATE_SHA256, |response| {
        command::success(response).map(|()| response.get(14).copied())
    })?;
    tpm.run("shut down", &command::shutdown_clear(), command::success)?;
    engine.power_off();
    if done == Some(1) { Ok(()) } else { Err(TpmError::KeyKind("PCR bank")) }
}

/// Switches the TPM on and puts keys, certificate and the (empty) report index in place. The TPM stays on, started, with
/// an empty platform password; [`finish`] ends this.
pub fn prepare(
    engine: &mut dyn TpmEngine,
    certify: &dyn Fn(&RsaPublic) -> Result<Vec<u8>, TpmError>,
) -> Result<TpmIdentity, TpmError> {
    engine.power_on()?;
    let mut tpm = Runner(engine);
    tpm.run("start", &command::startup_clear(), command::success)?;
    let srk = primary(&mut tpm, handle::OWNER, &template::SRK, HANDLE_SRK)?;
    let ak = primary(&mut tpm, handle::ENDORSEMENT, &template::AK, HANDLE_AK)?;
    let identity = TpmIdentity { srk, ak };
    let certificate = certify(identity.ak_rsa()?)?;
    if ensure_index(&mut tpm, NV_INDEX_AK_CERTIFICATE, certificate.len())?
        || read_index(&mut tpm, NV_INDEX_AK_CERTIFICATE, certificate.len())? != certificate
    {
        write_index(&mut tpm, &[], NV_INDEX_AK_CERTIFICATE, &certificate)?;
    }
    ensure_index(&mut tpm, NV_INDEX_REPORT, MAX_REPORT)?;
    Ok(identity)
}

/// Orderly end of what [`prepare`] began: the firmware finds a TPM that was just reset.
pub fn finish(engine: &mut dyn TpmEngine) -> Result<(), TpmError> {
    Runner(engine).run("shut down", &command::shutdown_clear(), command::success)?;
    engine.power_off();
    Ok(())
}

/// The primary key of a template, made persistent; whatever else has its handle is removed.
fn primary(
    tpm: &mut Runner<'_>,
    hierarchy: u32,
    template: &[u8],
    persistent: u32,
) -> Result<KeyPublic, TpmError> {
    let create = command::create_primary(hierarchy, &[], template);
    let (transient, key) = tpm.run("create a primary key", &create, command::created_primary)?;
    let found = tpm.find("read a key", &command::read_public(persistent), command::read_public_key);
    // A key of a kind that cannot be read here is not ours either.
    let ours = matches!(&found, Ok(Some(found)) if *found == key);
    if !ours {
        if !matches!(found, Ok(None)) {
            tracing::warn!(handle = format!("{persistent:#x}"), "replacing a key that is not the platform's");
            let evict = command::evict_control(handle::OWNER, &[], persistent, persistent);
            tpm.run("evict a foreign key", &evict, command::success)?;
        }
        let keep = command::evict_control(handle::OWNER, &[], transient, persistent);
        tpm.run("make a key persistent", &keep, command::success)?;
    }
    tpm.run("flush a key", &command::flush_context(transient), command::success)?;
    Ok(key)
}

/// Makes sure that an index is the platform's; true if it was just defined and holds nothing.
fn ensure_index(tpm: &mut Runner<'_>, index: u32, size: usize) -> Result<bool, TpmError> {
    let size = u16::try_from(size).map_err(|_| TpmError::KeyKind("NV index size"))?;
    let wanted =
        |found: &NvPublic| found.attributes & !nv::WRITTEN == nv::PLATFORM_DATA && found.size == size;
    match tpm.find("read an index", &command::nv_read_public(index), command::nv_public)? {
        Some(found) if wanted(&found) => return Ok(found.attributes & nv::WRITTEN == 0),
        Some(_) => {
            tracing::warn!(index = format!("{index:#x}"), "replacing an index that is not the platform's");
            let remove = command::nv_undefine_space(handle::PLATFORM, &[], index);
            tpm.run("remove a foreign index", &remove, command::success)?;
        }
        None => {}
    }
    let define = command::nv_define_space(handle::PLATFORM, &[], index, nv::PLATFORM_DATA, size);
    tpm.run("define an index", &define, command::success)?;
    Ok(true)
}

fn read_index(tpm: &mut Runner<'_>, index: u32, size: usize) -> Result<Vec<u8>, TpmError> {
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        let left = u16::try_from(size - data.len()).unwrap_or(u16::MAX).min(command::NV_CHUNK);
        let offset = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let read = command::nv_read(handle::PLATFORM, &[], index, left, offset);
        let chunk = tpm.run("read an index", &read, command::nv_data)?;
        if chunk.is_empty() {
            break;
        }
        data.extend(chunk);
    }
    Ok(data)
}

/// Gives an index of the platform another content, of another size perhaps.
pub(super) fn replace_index(
    tpm: &mut Runner<'_>,
    password: &[u8],
    index: u32,
    data: &[u8],
) -> Result<(), TpmError> {
    let size = u16::try_from(data.len()).map_err(|_| TpmError::KeyKind("NV index size"))?;
    let found = tpm.find("read an index", &command::nv_read_public(index), command::nv_public)?;
    if found.as_ref().is_none_or(|found| found.size != size) {
        if found.is_some() {
            let remove = command::nv_undefine_space(handle::PLATFORM, password, index);
            tpm.run("remove an index", &remove, command::success)?;
        }
        let define = command::nv_define_space(handle::PLATFORM, password, index, nv::PLATFORM_DATA, size);
        tpm.run("define an index", &define, command::success)?;
    }
    write_index(tpm, password, index, data)
}

/// Writes an index from its start with the platform's password.
pub(super) fn write_index(
    tpm: &mut Runner<'_>,
    password: &[u8],
    index: u32,
    data: &[u8],
) -> Result<(), TpmError> {
    for write in command::nv_write_all(handle::PLATFORM, password, index, data) {
        tpm.run("write an index", &write, command::success)?;
    }
    Ok(())
}

/// The 64 bytes that the guest left for its reports; `None` if it left none.
///
/// Only ways that cannot count as a wrong password (which could lock the TPM) are tried: the owner's, and the index's own
/// where it is exempt from dictionary-attack protection.
pub(super) fn user_data(tpm: &mut Runner<'_>, index: u32) -> Result<Option<[u8; 64]>, TpmError> {
    let Some(public) = tpm.find("read an index", &command::nv_read_public(index), command::nv_public)? else {
        return Ok(None);
    };
    let by_index = public.attributes & (nv::AUTHREAD | nv::NO_DA) == nv::AUTHREAD | nv::NO_DA;
    let by_owner = public.attributes & nv::OWNERREAD != 0;
    let size = public.size.min(64);
    for auth in [by_owner.then_some(handle::OWNER), by_index.then_some(index)].into_iter().flatten() {
        let read = command::nv_read(auth, &[], index, size, 0);
        match tpm.run("read the user data", &read, command::nv_data) {
            Ok(data) => {
                let mut bytes = [0; 64];
                bytes.iter_mut().zip(data).for_each(|(to, from)| *to = from);
                return Ok(Some(bytes));
            }
            Err(TpmError::Command { source: CommandError::Tpm(ResponseCode::NV_UNINITIALIZED), .. }) => {
                return Ok(None);
            }
            Err(TpmError::Command { source: CommandError::Tpm(_), .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}
