//! The metadata (JSON area) as types. Unknown and repeated members are errors: what is not named here is not accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    #[serde(deserialize_with = "unique")]
    pub(super) keyslots: BTreeMap<String, Keyslot>,
    #[serde(deserialize_with = "unique")]
    pub(super) tokens: BTreeMap<String, Value>,
    #[serde(deserialize_with = "unique")]
    pub(super) segments: BTreeMap<String, Segment>,
    #[serde(deserialize_with = "unique")]
    pub(super) digests: BTreeMap<String, Digest>,
    pub(super) config: Config,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keyslot {
    pub(super) r#type: String,
    pub(super) key_size: u64,
    pub(super) af: AntiForensic,
    pub(super) area: Area,
    pub(super) kdf: Kdf,
    #[serde(default)]
    pub(super) priority: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AntiForensic {
    pub(super) r#type: String,
    pub(super) stripes: u64,
    pub(super) hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Area {
    pub(super) r#type: String,
    pub(super) offset: String,
    pub(super) size: String,
    pub(super) encryption: String,
    pub(super) key_size: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Kdf {
    Pbkdf2 { hash: String, iterations: u32, salt: String },
    Argon2i { time: u32, memory: u32, cpus: u32, salt: String },
    Argon2id { time: u32, memory: u32, cpus: u32, salt: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Segment {
    pub(super) r#type: String,
    pub(super) offset: String,
    pub(super) size: String,
    pub(super) iv_tweak: String,
    pub(super) encryption: String,
    pub(super) sector_size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Digest {
    pub(super) r#type: String,
    pub(super) keyslots: Vec<String>,
    pub(super) segments: Vec<String>,
    pub(super) hash: String,
    pub(super) iterations: u32,
    pub(super) salt: String,
    pub(super) digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) json_size: String,
    pub(super) keyslots_size: String,
    #[serde(default)]
    pub(super) flags: Vec<String>,
}

/// The token that systemd 255 and later read for an object imported under the storage root key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TpmToken {
    #[serde(rename = "type")]
    _type: String,
    pub(super) keyslots: Vec<String>,
    #[serde(rename = "tpm2-blob")]
    pub(super) blob: String,
    #[serde(rename = "tpm2-pcrs")]
    pub(super) pcrs: Vec<u8>,
    #[serde(rename = "tpm2-pcr-bank")]
    pub(super) pcr_bank: String,
    #[serde(rename = "tpm2-primary-alg")]
    pub(super) primary_alg: String,
    #[serde(rename = "tpm2-policy-hash")]
    pub(super) policy_hash: String,
    #[serde(rename = "tpm2_srk")]
    pub(super) srk: String,
    #[serde(rename = "tpm2-pin", default)]
    pub(super) pin: bool,
    #[serde(rename = "tpm2_pcrlock", default)]
    pub(super) pcrlock: bool,
}

/// The mark that systemd-cryptenroll leaves on a recovery keyslot.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecoveryToken {
    #[serde(rename = "type")]
    _type: String,
    pub(super) keyslots: Vec<String>,
}

/// A map in which a repeated name is an error instead of the last one winning.
fn unique<'de, V: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, V>, D::Error> {
    struct Unique<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((name, value)) = members.next_entry::<String, V>()? {
                if map.insert(name.clone(), value).is_some() {
                    return Err(A::Error::custom(format!("`{name}` appears twice")));
                }
            }
            Ok(map)
        }
    }
    input.deserialize_map(Unique(PhantomData))
}
