//! Messages about what verification needs beside evidence: certificates, revocation lists, the table of minimum patch
//! levels, reference values. They are ours; Azure has no counterpart. Unknown fields are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Denial;
use crate::attestation::BootChainClaim;
use crate::encoding::base64url;

/// The version of [`CollateralBundle`] that is written and read.
pub const BUNDLE_VERSION: u32 = 1;

/// Everything that a service knows of AMD's key distribution service, for one that cannot reach it. It carries nothing
/// that is believed: whoever reads it verifies every item against its own pinned roots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CollateralBundle {
    /// [`BUNDLE_VERSION`].
    pub version: u32,
    /// RFC 3339.
    pub created_on: String,
    /// Certificates above the leaves.
    pub issuers: Vec<BundledIssuer>,
    /// Certificates of chips.
    pub vceks: Vec<BundledVcek>,
    /// One for each root and kind of leaf at most.
    pub revocation_lists: Vec<BundledList>,
}

/// ASK or ASVK with its ARK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundledIssuer {
    /// `Milan`, `Genoa` or `Turin`.
    pub product: String,
    /// What it issues: `VCEK` or `VLEK`.
    pub issues: String,
    /// DER of the ASK or ASVK.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub ask: Vec<u8>,
    /// DER of the ARK.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub ark: Vec<u8>,
}

/// The certificate of a chip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundledVcek {
    /// See [`ChipAndTcb::product`].
    pub product: String,
    /// See [`ChipAndTcb::chip_id`].
    pub chip_id: String,
    /// See [`ChipAndTcb::tcb`].
    pub tcb: String,
    /// DER.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub certificate: Vec<u8>,
}

/// A revocation list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundledList {
    /// SHA-256 (hex) of the root that signed it.
    pub root: String,
    /// Which leaves it is for: `VCEK`, where nothing is said, or `VLEK`.
    #[serde(default = "vcek")]
    pub key: String,
    /// DER.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub list: Vec<u8>,
}

fn vcek() -> String {
    "VCEK".to_owned()
}

/// What names a VCEK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ChipAndTcb {
    /// `Milan`, `Genoa` or `Turin`.
    pub product: String,
    /// Hex, 128 digits; of Turin 16.
    pub chip_id: String,
    /// Hex, 16 digits, the most significant byte first, as in `x-casemate-reported-tcb`.
    pub tcb: String,
}

/// Answer of `POST /collateral/bundle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleImported {
    /// How many issuers the bundle had.
    pub issuers: usize,
    /// How many certificates of chips.
    pub vceks: usize,
    /// How many revocation lists.
    pub revocation_lists: usize,
}

/// Body of `POST /collateral:prefetch`: a chip with its TCB, or a report of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefetchRequest {
    /// See [`ChipAndTcb::product`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// See [`ChipAndTcb::chip_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chip_id: Option<String>,
    /// See [`ChipAndTcb::tcb`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcb: Option<String>,
    /// Base64url of a report, instead of the three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

/// Answer of `POST /collateral:prefetch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Prefetched {
    /// The chip that can be verified now.
    #[serde(flatten)]
    pub name: ChipAndTcb,
    /// Until when the revocation list of its root holds (RFC 3339); null where there is none.
    pub revocation_list_until: Option<String>,
}

/// Lowest accepted patch levels by component; a level that is not given is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PatchLevels {
    /// Firmware of the management controller (Turin).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootloader: Option<u8>,
    /// Trusted execution environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tee: Option<u8>,
    /// SNP firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<u8>,
    /// Microcode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<u8>,
}

/// What a security bulletin demands of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcbRequirement {
    /// For example `AMD-SB-3015`.
    pub bulletin: String,
    /// The day of the bulletin, `YYYY-MM-DD`.
    pub date: String,
    /// Where it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// What it demands of the reported TCB and of the committed TCB.
    pub minimum: PatchLevels,
}

/// The payload of a signed table of minimum patch levels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MinimumTcbTable {
    /// `minimum-tcb`: what the signature is for.
    pub document: String,
    /// Counted by whoever signs: a lower one never replaces a higher one.
    pub sequence: u64,
    /// RFC 3339.
    pub issued_on: String,
    /// By product name (`Milan`, `Genoa`, `Turin`).
    pub products: BTreeMap<String, Vec<TcbRequirement>>,
}

/// [`MinimumTcbTable::document`].
pub const MINIMUM_TCB_DOCUMENT: &str = "minimum-tcb";

/// Answer of `GET /minimumTcb` and `PUT /minimumTcb`: what is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MinimumTcbInForce {
    /// The table; none before the first one was set.
    pub table: Option<MinimumTcbTable>,
    /// As it was signed.
    pub jws: Option<String>,
    /// SHA-256 (hex) of the public key that signed it.
    pub signer: Option<String>,
}

/// Answer of `POST /minimumTcb:dryRun`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MinimumTcbDryRun {
    /// Stored evidence that was looked at.
    pub evaluated: u64,
    /// How much of it the table permits.
    pub permitted: u64,
    /// Hosts, by chip, that the table refuses; each with its VMs.
    pub refused_chips: BTreeMap<String, Vec<String>>,
    /// VMs that the table refuses, each with the reason; at most 1,000.
    pub refused: Vec<TcbRefusal>,
    /// Chips whose certificate is known, but of which no evidence is stored, and whose TCB the table refuses.
    pub refused_idle_chips: Vec<ChipAndTcb>,
}

/// A VM that a table would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcbRefusal {
    /// The provider that it attested to.
    pub provider: String,
    /// The VM.
    pub subject: String,
    /// The chip that it ran on, hex, or `masked`.
    pub chip_id: String,
    /// Why.
    pub denial: Denial,
}

/// Payload of the signed document of `GET /referenceValues` and `PUT /referenceValues`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceDocument {
    /// `reference-values`: what the signature is for.
    pub document: String,
    /// The service that computed them.
    pub iss: String,
    /// Unix seconds; of two documents of one issuer the later one counts.
    pub iat: i64,
    /// Valid from, Unix seconds.
    pub nbf: i64,
    /// Valid until, Unix seconds.
    pub exp: i64,
    /// The accepted launches.
    pub values: Vec<ReferenceValue>,
    /// The boot chains of known images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_chains: Vec<BootReference>,
}

/// [`ReferenceDocument::document`].
pub const REFERENCE_DOCUMENT: &str = "reference-values";

/// A launch that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceValue {
    /// As `x-casemate-reference` shows it.
    pub name: String,
    /// 96 hex digits.
    pub launch_measurement: String,
    /// RFC 3339; without it, for as long as the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// What it was computed from; nothing for a digest that was configured as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<ReferenceInputs>,
}

/// The boot chain of an image: body of `PUT /bootReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootReference {
    /// As `x-casemate-boot-reference` shows it: 1 to 100 letters, digits, `-`, `.`, `_`, `+` or `~`.
    pub name: String,
    /// What the firmware, the loader and the kernel of the image measure at a first boot.
    pub boot_chain: BootChainClaim,
    /// RFC 3339; without it, until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Body of `POST /bootReferences:remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootReferenceName {
    /// See [`BootReference::name`].
    pub name: String,
}

/// What a launch digest is computed from: files by their SHA-384, hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceInputs {
    /// The firmware's code image.
    pub firmware: String,
    /// The paravisor's binary.
    pub paravisor: String,
    /// The firmware variables as shipped.
    pub vars_template: String,
    /// QEMU's name.
    pub cpu_model: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// `SEV_FEATURES` of the VMSAs.
    pub guest_features: u64,
}

/// Answer of `PUT /referenceValues`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferencesImported {
    /// Whose values.
    pub issuer: String,
    /// How many.
    pub values: usize,
    /// RFC 3339: until when the document holds.
    pub until: String,
}
