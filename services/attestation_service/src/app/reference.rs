//! Reference values: the launch digests that are accepted, computed from the firmware files by the rules of the secure
//! processor, and what a digest is that is not among them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use aws_lc_rs::digest;
use public_api::Denial;
use public_api::collateral::ReferenceInputs;
use snp::launch::{CpuModel, LaunchError, LaunchPlan, Measurement, PageType, paravisor_page};
use vtpm::vars::{SecureBootState, VarStore};

use super::reference_document::Imported;
use super::signed_document::PinnedKeys;
use crate::config::{ConfigError, FirmwareConfig, MinimumTcb, ReferenceConfig, read};

/// Most virtual CPUs of a VM.
const MAX_VCPUS: u32 = 512;
/// The same for launches that mix the inputs of two builds, which are computed only to tell what differs.
const MIXED_VCPUS: u32 = 128;
/// Names that a denial lists.
const MAX_NAMES: usize = 8;
/// Builds whose inputs are mixed with each other.
const MIXED_BUILDS: usize = 8;
/// `SEV_FEATURES` bit 5, DebugSwap: the one that kernels have switched on and off by themselves.
const DEBUG_SWAP: u64 = 1 << 5;

/// A launch digest.
pub type Digest = [u8; 48];

/// What may run.
pub struct References {
    accepted: HashMap<Digest, Accepted>,
    /// Of other services.
    imported: Imported,
    minimum_tcb: BTreeMap<snp::Product, MinimumTcb>,
    builds: Vec<Build>,
    /// Launches of the same builds that are not accepted, to tell what differs. Computed when first needed.
    known: OnceLock<HashMap<Digest, String>>,
}

/// A launch that is accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// As tokens show it.
    pub name: String,
    /// Until when, Unix seconds.
    pub until: Option<i64>,
    /// What it was computed from.
    pub inputs: Option<ReferenceInputs>,
}

impl Accepted {
    /// Whether it is accepted at a time.
    pub fn holds(&self, now: i64) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn longer(&self, other: &Self) -> bool {
        self.until.unwrap_or(i64::MAX) > other.until.unwrap_or(i64::MAX)
    }
}

/// A firmware build in memory.
struct Build {
    name: String,
    firmware: Vec<u8>,
    paravisor: [u8; 48],
    vars_template: [u8; 48],
    guest_features: u64,
    /// What the template of variables enrols into Secure Boot's databases.
    secure_boot: Option<SecureBootState>,
}

/// A launch that may be another one than the accepted: of which inputs, and what is said of it.
struct Variant<'a> {
    firmware: &'a [u8],
    page: Option<[u8; 4096]>,
    guest_features: u64,
    vcpus: u32,
    /// Behind the number of vCPUs.
    suffix: String,
}

impl References {
    /// Reads the files and computes the digests.
    pub fn load(config: &ReferenceConfig, signers: PinnedKeys) -> Result<Self, ConfigError> {
        let mut references = Self {
            accepted: HashMap::new(),
            imported: Imported::new(signers),
            minimum_tcb: minimum_tcb(&config.minimum_tcb)?,
            builds: Vec::new(),
            known: OnceLock::new(),
        };
        for measurement in &config.measurement {
            let digest =
                hex::decode(&measurement.launch_measurement).ok().and_then(|hex| Digest::try_from(hex).ok());
            let digest = digest.ok_or_else(|| {
                ConfigError::value("measurement.launch_measurement", "expected 96 hex characters")
            })?;
            let (name, until, inputs) = (measurement.name.clone(), None, None);
            references.accept(digest, Accepted { name, until, inputs });
        }
        for firmware in &config.firmware {
            references.add_build(firmware)?;
        }
        Ok(references)
    }

    fn add_build(&mut self, config: &FirmwareConfig) -> Result<(), ConfigError> {
        let vars_template = read(&config.vars_template)?;
        let build = Build {
            name: config.name.clone(),
            firmware: read(&config.firmware)?,
            paravisor: sha384(&read(&config.paravisor)?),
            vars_template: sha384(&vars_template),
            guest_features: config.guest_features,
            secure_boot: VarStore::parse(&vars_template).ok().map(|vars| vars.secure_boot_state()),
        };
        let until = match &config.until {
            None => None,
            Some(text) => {
                let time = text.parse::<jiff::Timestamp>();
                let time =
                    time.map_err(|_| ConfigError::value("firmware.until", "expected a time (RFC 3339)"))?;
                Some(time.as_second())
            }
        };
        let most = config.vcpus.iter().copied().max().unwrap_or(1).clamp(1, MAX_VCPUS);
        for model in &config.cpu_models {
            let cpu: CpuModel = model.parse().map_err(|_| {
                ConfigError::value("firmware.cpu_models", format!("unknown CPU model {model:?}"))
            })?;
            let digests = build.itself(most).digests(cpu).map_err(|error| {
                ConfigError::value("firmware.firmware", format!("{}: {}", build.name, crate::chain(&error)))
            })?;
            for vcpus in &config.vcpus {
                let index = usize::try_from(*vcpus).unwrap_or(0).wrapping_sub(1);
                let digest = digests.get(index).ok_or_else(|| {
                    ConfigError::value("firmware.vcpus", format!("{vcpus} is not between 1 and {MAX_VCPUS}"))
                })?;
                let name = format!("{}/{model}/{vcpus}", config.name);
                let inputs = Some(build.inputs(model, *vcpus));
                self.accept(*digest, Accepted { name, until, inputs });
            }
        }
        self.builds.push(build);
        Ok(())
    }

    /// CPU models with one signature have one digest: its first name stays, unless a later one holds longer.
    fn accept(&mut self, digest: Digest, accepted: Accepted) {
        match self.accepted.entry(digest) {
            Entry::Vacant(entry) => {
                entry.insert(accepted);
            }
            Entry::Occupied(mut entry) if accepted.longer(entry.get()) => {
                entry.insert(accepted);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// The values of other services.
    pub fn imported(&self) -> &Imported {
        &self.imported
    }

    /// This service's own values that hold at a time, by name.
    pub fn own(&self, now: i64) -> Vec<(Digest, &Accepted)> {
        let held = self.accepted.iter().filter(|(_, accepted)| accepted.holds(now));
        let mut own: Vec<_> = held.map(|(digest, accepted)| (*digest, accepted)).collect();
        own.sort_unstable_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        own
    }

    /// The name of a launch digest that is accepted at a time.
    pub fn name(&self, digest: &Digest, now: i64) -> Option<String> {
        let own = self.accepted.get(digest).filter(|accepted| accepted.holds(now));
        own.map(|accepted| accepted.name.clone()).or_else(|| self.imported.name(digest, now))
    }

    /// The refusal of a launch that was accepted once and is not any more.
    pub fn expired(&self, digest: &Digest, now: i64) -> Option<Box<Denial>> {
        if self.name(digest, now).is_some() {
            return None;
        }
        let accepted = self.accepted.get(digest).cloned().or_else(|| self.imported.find(digest))?;
        let until = snp::UnixTime(accepted.until?);
        Some(Box::new(Denial::new(
            "LaunchMeasurementExpired",
            "x-ms-sevsnpvm-launchmeasurement",
            "a launch that is still accepted",
            format!("{} ({}), accepted until {until}", hex::encode(digest), accepted.name),
            "reference values: a build that was replaced is accepted until its date and not longer",
            "stop and start the VM, so that it is launched from the current build",
        )))
    }

    /// What the firmware of an accepted launch has in Secure Boot's databases at its first start.
    pub fn secure_boot(&self, digest: &Digest) -> Option<&SecureBootState> {
        let name = &self.accepted.get(digest)?.name;
        let of_build =
            |build: &&Build| name.strip_prefix(build.name.as_str()).is_some_and(|rest| rest.starts_with('/'));
        self.builds.iter().find(of_build)?.secure_boot.as_ref()
    }

    /// The names of all accepted launches, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .accepted
            .values()
            .map(|accepted| accepted.name.clone())
            .chain(self.imported.names())
            .collect();
        names.sort_unstable();
        names
    }

    /// Lowest accepted patch levels of a product.
    pub fn minimum_tcb(&self, product: snp::Product) -> MinimumTcb {
        self.minimum_tcb.get(&product).copied().unwrap_or_default()
    }

    /// Computes what [`References::describe`] needs, which takes a moment.
    pub fn prepare(&self) {
        self.known.get_or_init(|| self.known_launches());
    }

    /// What a digest that is not accepted belongs to, if it is another launch of a known build, or mixes two of them.
    pub fn describe(&self, digest: &Digest) -> Option<&str> {
        self.known.get_or_init(|| self.known_launches()).get(digest).map(String::as_str)
    }

    fn known_launches(&self) -> HashMap<Digest, String> {
        let mut known = HashMap::new();
        for build in &self.builds {
            let others = self.builds.iter().take(MIXED_BUILDS);
            let mixed = others.flat_map(|other| build.mixed_with(other));
            for variant in build.alone().into_iter().chain(mixed) {
                for cpu in one_model_per_signature() {
                    // A build was measured when it was read; what cannot be measured now is no launch.
                    let digests = variant.digests(cpu).unwrap_or_default();
                    for (digest, vcpus) in digests.into_iter().zip(1..) {
                        let (name, suffix) = (&build.name, &variant.suffix);
                        let text = format!("{name} with CPU model {cpu} and {vcpus} vCPUs{suffix}");
                        known.entry(digest).or_insert(text);
                    }
                }
            }
        }
        known
    }
}

impl Build {
    fn page(&self) -> [u8; 4096] {
        paravisor_page(&self.paravisor, &self.vars_template)
    }

    fn inputs(&self, cpu_model: &str, vcpus: u32) -> ReferenceInputs {
        ReferenceInputs {
            firmware: hex::encode(sha384(&self.firmware)),
            paravisor: hex::encode(self.paravisor),
            vars_template: hex::encode(self.vars_template),
            cpu_model: cpu_model.to_owned(),
            vcpus,
            guest_features: self.guest_features,
        }
    }

    /// As it is configured.
    fn itself(&self, vcpus: u32) -> Variant<'_> {
        let (firmware, page) = (self.firmware.as_slice(), Some(self.page()));
        Variant { firmware, page, guest_features: self.guest_features, vcpus, suffix: String::new() }
    }

    /// With an input changed that needs no other build.
    fn alone(&self) -> Vec<Variant<'_>> {
        let itself = || self.itself(MAX_VCPUS);
        let guest_features = self.guest_features ^ DEBUG_SWAP;
        let suffix =
            format!(" with guest features {guest_features:#x} instead of {:#x}", self.guest_features);
        vec![
            itself(),
            Variant { page: None, suffix: " without its paravisor page".to_owned(), ..itself() },
            Variant { guest_features, suffix, ..itself() },
        ]
    }

    /// With one input of another build.
    fn mixed_with<'a>(&'a self, other: &'a Self) -> Vec<Variant<'a>> {
        let itself = || self.itself(MIXED_VCPUS);
        let suffix = |input: &str| format!(" and the {input} of {}", other.name);
        let mut mixed = Vec::new();
        if other.firmware != self.firmware {
            let firmware = other.firmware.as_slice();
            mixed.push(Variant { firmware, suffix: suffix("firmware"), ..itself() });
        }
        if other.paravisor != self.paravisor {
            let page = Some(paravisor_page(&other.paravisor, &self.vars_template));
            mixed.push(Variant { page, suffix: suffix("paravisor"), ..itself() });
        }
        if other.vars_template != self.vars_template {
            let page = Some(paravisor_page(&self.paravisor, &other.vars_template));
            mixed.push(Variant { page, suffix: suffix("variables template"), ..itself() });
        }
        mixed
    }
}

impl Variant<'_> {
    /// The digests with 1 to `vcpus` virtual CPUs: they differ in the number of VMSA pages at the end, so one pass does.
    fn digests(&self, cpu: CpuModel) -> Result<Vec<Digest>, LaunchError> {
        let plan = LaunchPlan {
            firmware: self.firmware,
            vcpus: self.vcpus,
            cpu,
            guest_features: self.guest_features,
            kernel_hashes: None,
            paravisor_page: self.page,
        };
        let mut measurement = Measurement::new();
        let mut digests = Vec::new();
        for page in plan.pages()? {
            measurement.update(page.page_type, page.gpa, &page.data)?;
            if page.page_type == PageType::Vmsa {
                digests.push(measurement.clone().finish().0);
            }
        }
        Ok(digests)
    }
}

/// Names that would have been accepted, for a denial: the first ones, and how many more there are.
pub fn one_of(names: &[String]) -> String {
    match names.split_at_checked(MAX_NAMES) {
        Some((first, rest)) if !rest.is_empty() => {
            format!("one of {} and {} more", first.join(", "), rest.len())
        }
        _ => format!("one of {}", names.join(", ")),
    }
}

fn one_model_per_signature() -> Vec<CpuModel> {
    let mut models: Vec<CpuModel> = Vec::new();
    for model in CpuModel::names().filter_map(|name| name.parse::<CpuModel>().ok()) {
        if models.iter().all(|known| known.signature() != model.signature()) {
            models.push(model);
        }
    }
    models
}

fn minimum_tcb(
    config: &BTreeMap<String, MinimumTcb>,
) -> Result<BTreeMap<snp::Product, MinimumTcb>, ConfigError> {
    let products = config.iter().map(|(name, minimum)| {
        let product = name.parse().map_err(|error| ConfigError::value("minimum_tcb", format!("{error}")))?;
        Ok((product, *minimum))
    });
    products.collect()
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    let digest = digest::digest(&digest::SHA384, bytes);
    digest.as_ref().try_into().expect("SHA-384 has 48 bytes")
}
