//! The paravisor's own record in the guest state: secrets of the volume, and what was approved at provisioning.

use sealed_disk::secret::{Secret, VolumeKey, as_base64};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vtpm::key::RsaPublic;
use zeroize::Zeroizing;

use super::launch::malformed;
use super::recovery_document::DocumentKey;
use crate::failure::Stop;

/// Content of [`sealed_disk::guest_state::FileId::Record`], as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Form of this document: 1.
    pub version: u32,
    /// The attestation key that was certified.
    pub ak: AkRecord,
    /// `None` if only the guest state is encrypted.
    pub volume: Option<VolumeRecord>,
}

/// The attestation key and its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AkRecord {
    /// Modulus, base64url.
    pub n: String,
    /// Exponent, base64url.
    pub e: String,
    /// DER of the certificate.
    #[serde(with = "public_api::encoding::base64url")]
    pub certificate: Vec<u8>,
}

/// The encrypted OS disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeRecord {
    /// LUKS2 UUID, the image's.
    pub uuid: Uuid,
    /// Name of the mapping, the image's.
    pub mapping: String,
    /// Key of the data segment.
    #[serde(with = "as_base64")]
    pub key: VolumeKey,
    /// What is sealed to the TPM; its base64 text opens a keyslot.
    #[serde(with = "as_base64")]
    pub secret: Secret<32>,
    /// Key of the boot region.
    #[serde(with = "as_base64")]
    pub region_key: Secret<32>,
    /// Kernel options of the image's entry.
    pub approved_options: String,
    /// No entry with a lower version is sealed to.
    pub lowest_version: String,
    /// The recovery passphrase, wrapped to the tenant's recovery key; text of the public recovery file.
    pub recovery: Option<String>,
    /// Key of the recovery document; VMs of before have none until their next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_key: Option<DocumentKey>,
}

impl Record {
    /// As it is stored.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Stop> {
        serde_json::to_vec(self).map(Zeroizing::new).map_err(|error| malformed("record", &error.to_string()))
    }

    /// From the guest state.
    pub fn parse(bytes: &[u8]) -> Result<Self, Stop> {
        let record: Self =
            serde_json::from_slice(bytes).map_err(|error| malformed("record", &error.to_string()))?;
        if record.version == 1 { Ok(record) } else { Err(malformed("record", "its version is not 1")) }
    }
}

impl AkRecord {
    /// A certified key.
    pub fn new(ak: &RsaPublic, certificate: Vec<u8>) -> Self {
        Self { n: ak.jwk_n(), e: ak.jwk_e(), certificate }
    }

    /// Whether this is the recorded key.
    pub fn is(&self, ak: &RsaPublic) -> bool {
        self.n == ak.jwk_n() && self.e == ak.jwk_e()
    }
}

impl VolumeRecord {
    /// The one right first measurement into PCR 15.
    pub fn measurement(&self) -> [u8; 32] {
        vtpm::predict::volume_key_pcr15(self.key.expose(), &self.mapping, &self.uuid.to_string()).0
    }
}
