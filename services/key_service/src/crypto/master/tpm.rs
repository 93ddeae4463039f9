//! A master key that only this machine's TPM opens, and on demand only in one state of the machine.
//!
//! The TPM makes an RSA key from its owner seed and from a template with a policy (`TPM2_CreatePrimary`: the same
//! template gives the same key, until the TPM is cleared). The master key is encrypted to its public part here, and
//! decrypted by the TPM in a session that satisfies the policy. Source: TPM 2.0 library, part 1, 23 and 27; part 3,
//! 14.3 `TPM2_RSA_Decrypt`, 23.7 `TPM2_PolicyPCR`.
//!
//! *Limit:* the answer with the key passes the bus between TPM and processor in clear; who can listen there, at a TPM in
//! a chip of its own, learns it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use vtpm::PcrBank;
use vtpm::command::{self, CommandError, MAX_MESSAGE, RsaPadding, handle};
use zeroize::Zeroizing;

use super::{MasterKeyError, RawKey, raw, secret};
use crate::crypto::rsa::{self, PublicParts};

const VERSION: u32 = 1;
/// RSA keys are slow to make for a TPM: up to a minute on old ones.
const PATIENCE: Duration = Duration::from_secs(120);

/// What lies in the file, as JSON; bytes as hex.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sealed {
    version: u32,
    pcrs: Vec<u8>,
    policy: String,
    sealed: String,
}

/// The key in the file; nothing if there is no file.
pub fn read(file: &Path, device: &Path) -> Result<Option<RawKey>, MasterKeyError> {
    let Some(text) = secret::contents(file)? else { return Ok(None) };
    let malformed = || MasterKeyError::Malformed { place: file.display().to_string() };
    let Sealed { version, pcrs, policy, sealed } = serde_json::from_slice(&text).map_err(|_| malformed())?;
    let (policy, sealed) = match (hex::decode(policy), hex::decode(sealed)) {
        (Ok(policy), Ok(sealed)) if version == VERSION => (policy, sealed),
        _ => return Err(malformed()),
    };
    let policy = policy.as_slice().try_into().map_err(|_| malformed())?;
    let mut tpm = Tpm::open(device)?;
    if tpm.policy(&pcrs)? != policy {
        let pcrs = pcrs.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        return Err(MasterKeyError::OtherState { device: device.to_owned(), file: file.to_owned(), pcrs });
    }
    let (key, _) = tpm.primary(&policy)?;
    let opened = tpm.decrypt(key, &pcrs, &sealed);
    tpm.ask("letting a key go", &command::flush_context(key), command::success)?;
    match opened? {
        Some(opened) => raw(&opened, file).map(Some),
        None => Err(MasterKeyError::OtherTpm { device: device.to_owned(), file: file.to_owned() }),
    }
}

/// Seals a key and writes the file.
pub fn store(file: &Path, device: &Path, pcrs: &[u8], master: &RawKey) -> Result<(), MasterKeyError> {
    let mut tpm = Tpm::open(device)?;
    let policy = tpm.policy(pcrs)?;
    let (key, public) = tpm.primary(&policy)?;
    tpm.ask("letting a key go", &command::flush_context(key), command::success)?;
    let sealed = rsa::encrypt(&public, rsa::RsaPadding::Oaep256, master.as_slice());
    let sealed = Sealed {
        version: VERSION,
        pcrs: pcrs.to_vec(),
        policy: hex::encode(policy),
        sealed: hex::encode(sealed.expect("a key of 2048 bits takes 32 bytes")),
    };
    let text = serde_json::to_string_pretty(&sealed).expect("a struct of texts and numbers");
    secret::write(file, format!("{text}\n").as_bytes())
}

/// What takes commands: the kernel's resource manager, or a socket.
trait Channel: Read + Write {}
impl<T: Read + Write> Channel for T {}

struct Tpm {
    channel: Box<dyn Channel>,
    device: PathBuf,
}

impl Tpm {
    fn open(device: &Path) -> Result<Self, MasterKeyError> {
        let failed = |source| MasterKeyError::TpmIo { device: device.to_owned(), source };
        let channel = channel(device).map_err(failed)?;
        Ok(Self { channel, device: device.to_owned() })
    }

    fn send(&mut self, command: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        self.channel.write_all(command)?;
        let mut answer = Zeroizing::new(vec![0; MAX_MESSAGE]);
        let length = self.channel.read(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }

    fn ask<T>(
        &mut self,
        doing: &'static str,
        command: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, CommandError>,
    ) -> Result<T, MasterKeyError> {
        let device = self.device.clone();
        match self.send(command) {
            Ok(answer) => read(&answer).map_err(|source| MasterKeyError::Tpm { device, doing, source }),
            Err(source) => Err(MasterKeyError::TpmIo { device, source }),
        }
    }

    /// The policy of the PCRs' present values.
    fn policy(&mut self, pcrs: &[u8]) -> Result<[u8; 32], MasterKeyError> {
        let mut values = PcrBank::default();
        // A TPM answers with eight values at most.
        for some in pcrs.chunks(8) {
            let read = self.ask("reading PCRs", &command::pcr_read(some), command::pcr_values)?;
            values.0.extend(read.0);
        }
        let missing = || MasterKeyError::Tpm {
            device: self.device.clone(),
            doing: "reading PCRs",
            source: CommandError::Unexpected("PCRs"),
        };
        command::pcr_policy(pcrs, &values).ok_or_else(missing)
    }

    /// The key that this policy gives, loaded.
    fn primary(&mut self, policy: &[u8; 32]) -> Result<(u32, PublicParts), MasterKeyError> {
        let template = command::ephemeral_template(policy);
        let create = command::create_primary(handle::OWNER, b"", &template);
        let (key, public) = self.ask("making a key", &create, command::created_primary)?;
        let unexpected = CommandError::Unexpected("key");
        let parts = public
            .rsa()
            .map(|rsa| PublicParts { modulus: rsa.modulus().to_vec(), exponent: rsa.exponent().to_vec() });
        let refused =
            |source| MasterKeyError::Tpm { device: self.device.clone(), doing: "making a key", source };
        Ok((key, parts.ok_or(unexpected).map_err(refused)?))
    }

    /// What was encrypted to the key; nothing if it was not encrypted to it.
    fn decrypt(
        &mut self,
        key: u32,
        pcrs: &[u8],
        sealed: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, MasterKeyError> {
        let mut nonce = [0; 32];
        rand::fill(&mut nonce).expect("the system has random numbers");
        let start = command::start_policy_session(&nonce);
        let session = self.ask("starting a session", &start, command::started_session)?;
        self.ask("binding to PCRs", &command::policy_pcr(session, pcrs), command::success)?;
        let decrypt = command::rsa_decrypt(key, session, sealed, RsaPadding::OaepSha256);
        let answer = self.send(&decrypt);
        let answer =
            answer.map_err(|source| MasterKeyError::TpmIo { device: self.device.clone(), source })?;
        if let Ok(opened) = command::decrypted(&answer) {
            return Ok(Some(opened));
        }
        // A session ends with the command that it authorised, but not with one that was refused.
        self.ask("ending a session", &command::flush_context(session), command::success)?;
        Ok(None)
    }
}

fn channel(device: &Path) -> io::Result<Box<dyn Channel>> {
    if std::fs::metadata(device)?.file_type().is_socket() {
        let socket = UnixStream::connect(device)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        return Ok(Box::new(socket));
    }
    let file: File = OpenOptions::new().read(true).write(true).open(device)?;
    Ok(Box::new(file))
}
