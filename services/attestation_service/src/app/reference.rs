//! Reference values: the launch digests that are accepted, computed from the firmware files by the rules of the secure
//! processor, and what a digest is that is not among them.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use aws_lc_rs::digest;
use snp::launch::{CpuModel, LaunchError, LaunchPlan, Measurement, PageType, paravisor_page};
use vtpm::vars::{SecureBootState, VarStore};

use crate::config::{ConfigError, FirmwareConfig, MinimumTcb, ReferenceConfig, read};

/// Most virtual CPUs of a VM.
const MAX_VCPUS: u32 = 64;

/// A launch digest.
pub type Digest = [u8; 48];

/// What may run.
pub struct References {
    accepted: HashMap<Digest, String>,
    minimum_tcb: BTreeMap<snp::Product, MinimumTcb>,
    builds: Vec<Build>,
    /// Launches of the same builds that are not accepted, to tell what differs. Computed when first needed.
    known: OnceLock<HashMap<Digest, String>>,
}

/// A firmware build in memory.
struct Build {
    name: String,
    firmware: Vec<u8>,
    page: Box<[u8; 4096]>,
    guest_features: u64,
    /// What the template of variables enrols into Secure Boot's databases.
    secure_boot: Option<SecureBootState>,
}

impl References {
    /// Reads the files and computes the digests.
    pub fn load(config: &ReferenceConfig) -> Result<Self, ConfigError> {
        let mut references = Self {
            accepted: HashMap::new(),
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
            references.accept(digest, measurement.name.clone());
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
            page: Box::new(paravisor_page(&sha384(&read(&config.paravisor)?), &sha384(&vars_template))),
            guest_features: config.guest_features,
            secure_boot: VarStore::parse(&vars_template).ok().map(|vars| vars.secure_boot_state()),
        };
        for model in &config.cpu_models {
            let cpu: CpuModel = model.parse().map_err(|_| {
                ConfigError::value("firmware.cpu_models", format!("unknown CPU model {model:?}"))
            })?;
            let digests = build.digests(cpu, Some(&build.page))?;
            for vcpus in &config.vcpus {
                let index = usize::try_from(*vcpus).unwrap_or(0).wrapping_sub(1);
                let digest = digests.get(index).ok_or_else(|| {
                    ConfigError::value("firmware.vcpus", format!("{vcpus} is not between 1 and {MAX_VCPUS}"))
                })?;
                self.accept(*digest, format!("{}/{model}/{vcpus}", config.name));
            }
        }
        self.builds.push(build);
        Ok(())
    }

    /// The first name of a digest stays: CPU models with one signature have one digest.
    fn accept(&mut self, digest: Digest, name: String) {
        self.accepted.entry(digest).or_insert(name);
    }

    /// The name of an accepted launch digest.
    pub fn name(&self, digest: &Digest) -> Option<&str> {
        self.accepted.get(digest).map(String::as_str)
    }

    /// What the firmware of an accepted launch has in Secure Boot's databases at its first start.
    pub fn secure_boot(&self, digest: &Digest) -> Option<&SecureBootState> {
        let name = self.name(digest)?;
        let of_build =
            |build: &&Build| name.strip_prefix(build.name.as_str()).is_some_and(|rest| rest.starts_with('/'));
        self.builds.iter().find(of_build)?.secure_boot.as_ref()
    }

    /// The names of all accepted launches, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.accepted.values().map(String::as_str).collect();
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

    /// What a digest that is not accepted belongs to, if it is another launch of a known build.
    pub fn describe(&self, digest: &Digest) -> Option<&str> {
        self.known.get_or_init(|| self.known_launches()).get(digest).map(String::as_str)
    }

    fn known_launches(&self) -> HashMap<Digest, String> {
        let mut known = HashMap::new();
        for build in &self.builds {
            for cpu in one_model_per_signature() {
                for (page, suffix) in [(Some(&build.page), ""), (None, " without its paravisor page")] {
                    // A build was measured when it was read; the same inputs cannot fail now.
                    let digests = build.digests(cpu, page.map(|page| &**page)).unwrap_or_default();
                    for (digest, vcpus) in digests.into_iter().zip(1..) {
                        let name = format!("{} with CPU model {cpu} and {vcpus} vCPUs{suffix}", build.name);
                        known.entry(digest).or_insert(name);
                    }
                }
            }
        }
        known
    }
}

impl Build {
    /// The digests with 1 to 64 virtual CPUs: they differ in the number of VMSA pages at the end, so one pass does.
    fn digests(&self, cpu: CpuModel, page: Option<&[u8; 4096]>) -> Result<Vec<Digest>, ConfigError> {
        let plan = LaunchPlan {
            firmware: &self.firmware,
            vcpus: MAX_VCPUS,
            cpu,
            guest_features: self.guest_features,
            kernel_hashes: None,
            paravisor_page: page.copied(),
        };
        let refused = |error: LaunchError| {
            ConfigError::value("firmware.firmware", format!("{}: {}", self.name, crate::chain(&error)))
        };
        let mut measurement = Measurement::new();
        let mut digests = Vec::new();
        for page in plan.pages().map_err(refused)? {
            measurement
                .update(page.page_type, page.gpa, &page.data)
                .map_err(|error| refused(error.into()))?;
            if page.page_type == PageType::Vmsa {
                digests.push(measurement.clone().finish().0);
            }
        }
        Ok(digests)
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
