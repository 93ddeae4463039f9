//! Parsers of what the TPM answers to the builders' commands.

use super::{CommandError, ResponseCode, TAG_NO_SESSIONS, TAG_SESSIONS, alg};
use crate::bytes::{Cursor, size};
use crate::key::RsaPublic;
use crate::pcr::{Digest, PcrBank, sha256};

type Result<T> = std::result::Result<T, CommandError>;

/// A successful response, before its handles and parameters are taken apart.
pub(super) struct Response<'a> {
    sessions: bool,
    body: Cursor<'a>,
}

impl<'a> Response<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (tag, code, body) = header(bytes)?;
        if code != 0 {
            return Err(CommandError::Tpm(ResponseCode(code)));
        }
        Ok(Self { sessions: tag == TAG_SESSIONS, body: Cursor::new(body) })
    }

    pub(super) fn handle(&mut self) -> Result<u32> {
        self.body.be32().ok_or(CommandError::Truncated("response handle"))
    }

    /// The parameters, without the authorisation area behind them.
    pub(super) fn parameters(mut self) -> Result<Cursor<'a>> {
        if !self.sessions {
            return Ok(self.body);
        }
        let truncated = CommandError::Truncated("response parameters");
        let length = self.body.be32().ok_or(truncated.clone())?;
        self.body.take(size(length)).map(Cursor::new).ok_or(truncated)
    }
}

/// Splits a command or response into tag, code and the rest, and checks the stated size.
pub(super) fn header(bytes: &[u8]) -> Result<(u16, u32, &[u8])> {
    let mut cursor = Cursor::new(bytes);
    let truncated = CommandError::Truncated("header");
    let tag = cursor.be16().ok_or(truncated.clone())?;
    let stated = cursor.be32().ok_or(truncated.clone())?;
    let code = cursor.be32().ok_or(truncated)?;
    if !matches!(tag, TAG_NO_SESSIONS | TAG_SESSIONS) {
        return Err(CommandError::Tag(tag));
    }
    if size(stated) != bytes.len() {
        return Err(CommandError::Size { stated, actual: bytes.len() });
    }
    Ok((tag, code, cursor.rest()))
}

pub(super) fn field<T>(value: Option<T>, name: &'static str) -> Result<T> {
    value.ok_or(CommandError::Truncated(name))
}

pub(super) fn end(cursor: &Cursor<'_>, name: &'static str) -> Result<()> {
    if cursor.is_empty() { Ok(()) } else { Err(CommandError::Trailing(name)) }
}

/// Checks a response of which only the success matters.
///
/// # Errors
/// [`CommandError::Tpm`] with the TPM's code, or what is wrong with the framing.
pub fn success(bytes: &[u8]) -> Result<()> {
    Response::parse(bytes).map(drop)
}

/// A key that the TPM showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPublic {
    /// The TPM2B_PUBLIC: 16-bit size and TPMT_PUBLIC.
    pub tpm2b_public: Vec<u8>,
    /// The object's name: name algorithm and digest.
    pub name: Vec<u8>,
    /// The key itself.
    pub key: PublicKey,
}

/// The key of a public area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA.
    Rsa(RsaPublic),
    /// A point of an elliptic curve.
    Ecc {
        /// TPM_ECC_CURVE; 3 is NIST P-256.
        curve: u16,
        /// Big-endian.
        x: Vec<u8>,
        /// Big-endian.
        y: Vec<u8>,
    },
}

impl KeyPublic {
    /// Parses a TPM2B_PUBLIC of an RSA or ECC key whose name algorithm is SHA-256, and computes its name.
    ///
    /// # Errors
    /// [`CommandError`] for anything else.
    pub fn parse(tpm2b_public: &[u8]) -> Result<Self> {
        let mut outer = Cursor::new(tpm2b_public);
        let area = field(outer.tpm2b(), "public area")?;
        end(&outer, "public area")?;
        let key = parse_area(area)?;
        let name = [&alg::SHA256.to_be_bytes()[..], &sha256(area)].concat();
        Ok(Self { tpm2b_public: tpm2b_public.to_vec(), name, key })
    }

    /// The RSA key, if it is one.
    pub fn rsa(&self) -> Option<&RsaPublic> {
        match &self.key {
            PublicKey::Rsa(key) => Some(key),
            PublicKey::Ecc { .. } => None,
        }
    }
}

fn parse_area(area: &[u8]) -> Result<PublicKey> {
    let mut cursor = Cursor::new(area);
    let kind = field(cursor.be16(), "key type")?;
    if field(cursor.be16(), "name algorithm")? != alg::SHA256 {
        return Err(CommandError::Unexpected("name algorithm"));
    }
    field(cursor.be32(), "attributes")?;
    field(cursor.tpm2b(), "policy")?;
    if field(cursor.be16(), "symmetric algorithm")? != alg::NULL {
        field(cursor.be32(), "symmetric parameters")?;
    }
    if field(cursor.be16(), "scheme")? != alg::NULL {
        field(cursor.be16(), "scheme hash")?;
    }
    let key = match kind {
        alg::RSA => rsa_area(&mut cursor)?,
        alg::ECC => ecc_area(&mut cursor)?,
        _ => return Err(CommandError::Unexpected("key type")),
    };
    end(&cursor, "public area")?;
    Ok(key)
}

fn rsa_area(cursor: &mut Cursor<'_>) -> Result<PublicKey> {
    field(cursor.be16(), "key bits")?;
    let exponent = match field(cursor.be32(), "exponent")? {
        0 => 65537,
        other => other,
    };
    let modulus = field(cursor.tpm2b(), "modulus")?;
    Ok(PublicKey::Rsa(RsaPublic::new(modulus, &exponent.to_be_bytes())))
}

fn ecc_area(cursor: &mut Cursor<'_>) -> Result<PublicKey> {
    let curve = field(cursor.be16(), "curve")?;
    if field(cursor.be16(), "key derivation")? != alg::NULL {
        field(cursor.be16(), "key derivation hash")?;
    }
    let x = field(cursor.tpm2b(), "x")?.to_vec();
    let y = field(cursor.tpm2b(), "y")?.to_vec();
    Ok(PublicKey::Ecc { curve, x, y })
}

/// Answer to `CreatePrimary`: the transient handle and the key.
///
/// # Errors
/// [`CommandError`].
pub fn created_primary(bytes: &[u8]) -> Result<(u32, KeyPublic)> {
    let mut response = Response::parse(bytes)?;
    let handle = response.handle()?;
    let mut parameters = response.parameters()?;
    Ok((handle, KeyPublic::parse(&whole_tpm2b(&mut parameters, "public area")?)?))
}

/// Answer to `ReadPublic`. The name that the TPM states must be the one of the public area.
///
/// # Errors
/// [`CommandError`].
pub fn read_public_key(bytes: &[u8]) -> Result<KeyPublic> {
    let mut parameters = Response::parse(bytes)?.parameters()?;
    let key = KeyPublic::parse(&whole_tpm2b(&mut parameters, "public area")?)?;
    if field(parameters.tpm2b(), "name")? != key.name {
        return Err(CommandError::Unexpected("name"));
    }
    Ok(key)
}

/// A TPM2B with its size.
fn whole_tpm2b(cursor: &mut Cursor<'_>, name: &'static str) -> Result<Vec<u8>> {
    let content = field(cursor.tpm2b(), name)?;
    let mut out = Vec::with_capacity(2 + content.len());
    super::build::tpm2b(&mut out, content);
    Ok(out)
}

/// The public area of an NV index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvPublic {
    /// The index.
    pub index: u32,
    /// TPMA_NV.
    pub attributes: u32,
    /// Size of the data.
    pub size: u16,
}

/// Answer to `NV_ReadPublic`.
///
/// # Errors
/// [`CommandError`].
pub fn nv_public(bytes: &[u8]) -> Result<NvPublic> {
    let mut parameters = Response::parse(bytes)?.parameters()?;
    let mut area = Cursor::new(field(parameters.tpm2b(), "nv public area")?);
    let index = field(area.be32(), "nv index")?;
    field(area.be16(), "nv name algorithm")?;
    let attributes = field(area.be32(), "nv attributes")?;
    field(area.tpm2b(), "nv policy")?;
    let size = field(area.be16(), "nv size")?;
    end(&area, "nv public area")?;
    Ok(NvPublic { index, attributes, size })
}

/// Answer to `NV_Read`: the data.
///
/// # Errors
/// [`CommandError`].
pub fn nv_data(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut parameters = Response::parse(bytes)?.parameters()?;
    let data = field(parameters.tpm2b(), "nv data")?.to_vec();
    end(&parameters, "nv data")?;
    Ok(data)
}

/// Answer to `PCR_Read` of the SHA-256 bank: those PCRs that the TPM chose to return.
///
/// # Errors
/// [`CommandError`].
pub fn pcr_values(bytes: &[u8]) -> Result<PcrBank> {
    let mut parameters = Response::parse(bytes)?.parameters()?;
    field(parameters.be32(), "pcr update counter")?;
    let selected = selection(&mut parameters)?;
    let count = field(parameters.be32(), "pcr digest count")?;
    if size(count) != selected.len() {
        return Err(CommandError::Unexpected("pcr digest count"));
    }
    let mut bank = PcrBank::default();
    for pcr in selected {
        let value = field(parameters.tpm2b(), "pcr digest")?;
        let value = Digest::try_from(value).map_err(|_| CommandError::Unexpected("pcr digest size"))?;
        bank.0.insert(pcr, value);
    }
    end(&parameters, "pcr digests")?;
    Ok(bank)
}

/// A TPML_PCR_SELECTION that selects from the SHA-256 bank only: the selected PCRs, ascending.
pub(crate) fn selection(cursor: &mut Cursor<'_>) -> Result<Vec<u8>> {
    let banks = field(cursor.be32(), "pcr selection")?;
    let mut selected = Vec::new();
    let mut seen_sha256 = false;
    for _ in 0..banks.min(16) {
        let hash = field(cursor.be16(), "pcr selection hash")?;
        let length = field(cursor.u8(), "pcr selection size")?;
        let bits = field(cursor.take(usize::from(length)), "pcr selection bits")?;
        let chosen = bits_set(bits);
        let repeated = hash == alg::SHA256 && std::mem::replace(&mut seen_sha256, true);
        if repeated || (hash != alg::SHA256 && !chosen.is_empty()) {
            return Err(CommandError::Unexpected("pcr bank"));
        }
        selected.extend(chosen);
    }
    if banks > 16 {
        return Err(CommandError::Unexpected("pcr bank count"));
    }
    Ok(selected)
}

fn bits_set(bits: &[u8]) -> Vec<u8> {
    (0u8..=255)
        .filter(|pcr| bits.get(usize::from(pcr / 8)).is_some_and(|byte| byte >> (pcr % 8) & 1 == 1))
        .collect()
}

/// Answer to `Quote`: the TPMS_ATTEST and the TPMT_SIGNATURE, as [`crate::quote::verify`] takes them.
///
/// # Errors
/// [`CommandError`].
pub fn quoted(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut parameters = Response::parse(bytes)?.parameters()?;
    let attest = field(parameters.tpm2b(), "attestation")?.to_vec();
    Ok((attest, parameters.rest().to_vec()))
}

/// Answer to `GetCapability(TPM_CAP_HANDLES)`.
///
/// # Errors
/// [`CommandError`].
pub fn handles(bytes: &[u8]) -> Result<Vec<u32>> {
    let mut parameters = Response::parse(bytes)?.parameters()?;
    field(parameters.u8(), "more data")?;
    if field(parameters.be32(), "capability")? != 1 {
        return Err(CommandError::Unexpected("capability"));
    }
    let count = field(parameters.be32(), "handle count")?;
    let handles: Vec<u32> = std::iter::from_fn(|| parameters.be32()).collect();
    if handles.len() != size(count) || !parameters.is_empty() {
        return Err(CommandError::Unexpected("handle count"));
    }
    Ok(handles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::error_response;

    #[test]
    fn tpm_error_is_reported_with_its_code() {
        let bytes = error_response(ResponseCode::NV_RANGE);
        assert_eq!(success(&bytes), Err(CommandError::Tpm(ResponseCode(0x146))));
    }

    #[test]
    fn framing_is_checked() {
        let good = [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0];
        assert_eq!(success(&good), Ok(()));
        assert_eq!(success(&good[..9]), Err(CommandError::Truncated("header")));
        assert_eq!(success(&[&good[..], &[0]].concat()), Err(CommandError::Size { stated: 10, actual: 11 }));
        assert_eq!(success(&[0x80, 0x03, 0, 0, 0, 10, 0, 0, 0, 0]), Err(CommandError::Tag(0x8003)));
    }

    #[test]
    fn nv_public_of_a_recorded_answer() {
        let bytes = hex::decode(concat!(
            "80010000003e00000000000e01400001000b6206000400000a28",
            "0022000b952bb43b0000000000000000000000000000000000000000000000000000ed8a56"
        ));
        let mut bytes = bytes.unwrap();
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[2..6].copy_from_slice(&length.to_be_bytes());
        let public = nv_public(&bytes).unwrap();
        assert_eq!(public, NvPublic { index: 0x0140_0001, attributes: 0x6206_0004, size: 2600 });
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..120), tag in 0x8001u16..=0x8002) {
            let mut bytes = tag.to_be_bytes().to_vec();
            bytes.extend_from_slice(&u32::try_from(10 + body.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&body);
            let _ = (created_primary(&bytes), read_public_key(&bytes), nv_public(&bytes), nv_data(&bytes));
            let _ = (pcr_values(&bytes), quoted(&bytes), handles(&bytes), success(&body));
        }
    }
}
