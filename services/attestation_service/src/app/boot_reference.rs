//! Reference values of boot chains: the PCRs that an image boots with, predicted when it was taken into a catalogue.
//!
//! The paravisor tells in its runtime claims, which its report binds, to which PCRs it sealed the disk's key. Where they
//! are those of a known image the token says which one (`x-casemate-boot-reference`). A guest that has updated its kernel
//! boots another chain: whether that may be is the policy's to say, and a denial names what differs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use public_api::Denial;
use public_api::attestation::{BootChainClaim, CLAIM_BOOT_REFERENCE, Claims};
use public_api::collateral::BootReference;
use public_api::decision_log::Decision;
use serde_json::{Value, json};
use vtpm::PcrBank;

use super::attest::Service;
use super::fields::FieldError;
use super::reference::one_of;
use crate::store::{Change, Learnt, Record, Store, StoreError};

/// Most of them: a catalogue, and not a way to fill the memory.
const MAX_REFERENCES: usize = 10_000;
/// The PCRs that a chain must name: loader and kernel, Secure Boot, and what the loader gives the kernel.
const NEEDED: [u8; 2] = [4, 7];
/// Extended after the unsealing too; a quote shows a later value.
const PCR_AFTER_UNSEALING: u8 = 15;

/// Why a boot chain was not written down.
#[derive(Debug, thiserror::Error)]
pub enum BootReferenceError {
    /// It cannot be read.
    #[error(transparent)]
    Form(#[from] FieldError),
    /// The database failed.
    #[error("the boot chain could not be stored")]
    Store(#[from] StoreError),
}

/// The boot chains of known images, by name.
#[derive(Default)]
pub struct BootReferences(RwLock<Arc<BTreeMap<String, KnownBootChain>>>);

/// One of them.
#[derive(Clone, Debug)]
pub struct KnownBootChain {
    reference: BootReference,
    pcrs: BTreeMap<u8, [u8; 32]>,
    until: Option<i64>,
}

impl KnownBootChain {
    /// Reads it.
    pub fn read(reference: BootReference) -> Result<Self, FieldError> {
        check_name(&reference.name)?;
        let until = match &reference.until {
            None => None,
            Some(text) => {
                let time = text.parse::<jiff::Timestamp>();
                Some(time.map_err(|_| FieldError::new("until", "expected a time (RFC 3339)"))?.as_second())
            }
        };
        let pcrs = pcrs_of(&reference.boot_chain).ok_or_else(|| {
            FieldError::new("bootChain.pcrs", "expected 64 hex digits for each of the PCRs 0 to 23")
        })?;
        if NEEDED.iter().any(|pcr| !pcrs.contains_key(pcr)) {
            return Err(FieldError::new("bootChain.pcrs", "expected PCRs 4 and 7 among them"));
        }
        Ok(Self { reference, pcrs, until })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.reference.name
    }

    /// Whether a chain has the same PCRs.
    pub fn is(&self, chain: &BootChainClaim) -> bool {
        pcrs_of(chain).is_some_and(|pcrs| self.pcrs == pcrs)
    }

    /// Whether it is accepted at a time.
    pub fn holds(&self, now: i64) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The PCRs in which a chain is another one.
    fn differing(&self, other: &BTreeMap<u8, [u8; 32]>) -> Vec<u8> {
        let all = self.pcrs.keys().chain(other.keys()).copied().collect::<std::collections::BTreeSet<u8>>();
        all.into_iter().filter(|pcr| self.pcrs.get(pcr) != other.get(pcr)).collect()
    }
}

fn pcrs_of(chain: &BootChainClaim) -> Option<BTreeMap<u8, [u8; 32]>> {
    let value = |(pcr, hex): (&u8, &String)| {
        let bytes = hex::decode(hex).ok()?;
        (*pcr < 24).then_some((*pcr, bytes.try_into().ok()?))
    };
    chain.pcrs.iter().map(value).collect()
}

/// The chain that a paravisor states in the runtime claims that its report binds.
pub fn stated(runtime: Option<&Value>) -> Option<BootChainClaim> {
    let chain = runtime?.as_object()?.get("boot-chain")?;
    serde_json::from_value(chain.clone()).ok()
}

/// Whether a quote shows the PCRs of a chain, as far as it covers them.
pub fn agrees(chain: &BootChainClaim, quoted: &PcrBank) -> bool {
    let later = |pcr: u8| pcr == PCR_AFTER_UNSEALING;
    let same = |pcr: u8, value: &[u8; 32]| later(pcr) || quoted.value(pcr).is_none_or(|found| found == value);
    pcrs_of(chain).is_some_and(|pcrs| pcrs.iter().all(|(pcr, value)| same(*pcr, value)))
}

impl BootReferences {
    fn known(&self) -> Arc<BTreeMap<String, KnownBootChain>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, KnownBootChain>)) {
        change(Arc::make_mut(&mut self.0.write().unwrap_or_else(PoisonError::into_inner)));
    }

    /// The name of a chain that is known and holds at a time.
    pub fn name(&self, chain: &BootChainClaim, now: i64) -> Option<String> {
        let known = self.known();
        known.values().find(|known| known.holds(now) && known.is(chain)).map(|known| known.name().to_owned())
    }

    /// All of them, in order of their names.
    pub fn all(&self) -> Vec<BootReference> {
        self.known().values().map(|known| known.reference.clone()).collect()
    }

    /// A denial for want of the claim, with the chains that would have been accepted and what differs from the nearest.
    pub fn explain(&self, denial: &mut Denial, stated: Option<&BootChainClaim>, now: i64) {
        if denial.claim != CLAIM_BOOT_REFERENCE {
            return;
        }
        let known = self.known();
        let names: Vec<String> = known.keys().cloned().collect();
        denial.expected = if names.is_empty() {
            "the boot chain of a known image; none is known".to_owned()
        } else {
            format!("the boot chain of {}", one_of(&names))
        };
        let Some((chain, pcrs)) = stated.and_then(|chain| Some((chain, pcrs_of(chain)?))) else {
            denial.actual = "the evidence states no boot chain".to_owned();
            return;
        };
        let nearest = known.iter().min_by_key(|(_, known)| known.differing(&pcrs).len());
        let difference = nearest.map_or(String::new(), |(name, known)| told(name, known, chain, &pcrs, now));
        denial.actual = format!("{} {} ({}){difference}", chain.loader, chain.entry, chain.version);
    }
}

fn told(
    name: &str,
    known: &KnownBootChain,
    chain: &BootChainClaim,
    pcrs: &BTreeMap<u8, [u8; 32]>,
    now: i64,
) -> String {
    let differing = known.differing(pcrs);
    if differing.is_empty() && !known.holds(now) {
        return format!(
            ", which is {name}, accepted until {}",
            known.reference.until.as_deref().unwrap_or_default()
        );
    }
    let what: Vec<String> = differing.iter().map(|pcr| format!("PCR {pcr} ({})", content(*pcr))).collect();
    let wanted = &known.reference.boot_chain;
    let version = if wanted.version == chain.version {
        String::new()
    } else {
        format!(" of version {}", wanted.version)
    };
    format!("; from {name}{version} it differs in {}", what.join(", "))
}

/// What a PCR holds on these machines (TCG PC Client Platform Firmware Profile section 3.3.4; UAPI PCR registry).
fn content(pcr: u8) -> &'static str {
    match pcr {
        0..=3 => "firmware and its configuration",
        4 => "boot loader and kernel",
        5 => "boot configuration and partition table",
        7 => "Secure Boot's state, keys and signers",
        8 | 12 => "command line and configuration of the boot loader",
        9 => "files that the boot loader read: kernel, initramfs, command line",
        11 => "unified kernel image",
        14 => "shim's certificates",
        15 => "the volume key",
        _ => "the operating system's",
    }
}

/// At the start: the stored ones.
pub async fn load(references: &BootReferences, store: &Store) -> Result<(), StoreError> {
    for text in store.boot_references().await? {
        let known = KnownBootChain::read(serde_json::from_str(&text)?);
        match known {
            Ok(known) => references.change(|all| drop(all.insert(known.reference.name.clone(), known))),
            Err(error) => tracing::warn!(%error, "a stored boot chain is not used"),
        }
    }
    Ok(())
}

impl Service {
    /// `PUT /bootReferences`.
    pub async fn put_boot_reference(
        &self,
        reference: BootReference,
        caller: &str,
    ) -> Result<BootReference, BootReferenceError> {
        let known = KnownBootChain::read(reference.clone())?;
        let _changing = self.changing.lock().await;
        let references = self.appraiser.boot_references();
        let all = references.known();
        if !all.contains_key(&reference.name) && all.len() >= MAX_REFERENCES {
            return Err(
                FieldError::new("name", format!("there are {MAX_REFERENCES} boot chains already")).into()
            );
        }
        let json = serde_json::to_string(&reference).map_err(StoreError::from)?;
        let learnt = Learnt::BootReference { name: reference.name.clone(), json };
        self.record_boot_reference("BootReferencePut", &reference.name, caller, learnt).await?;
        references.change(|all| drop(all.insert(reference.name.clone(), known)));
        Ok(reference)
    }

    /// `POST /bootReferences:remove`; whether there was one.
    pub async fn remove_boot_reference(&self, name: &str, caller: &str) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        let references = self.appraiser.boot_references();
        if !references.known().contains_key(name) {
            return Ok(false);
        }
        let learnt = Learnt::BootReferenceGone(name.to_owned());
        self.record_boot_reference("BootReferenceRemoved", name, caller, learnt).await?;
        references.change(|all| drop(all.remove(name)));
        Ok(true)
    }

    async fn record_boot_reference(
        &self,
        operation: &str,
        name: &str,
        caller: &str,
        learnt: Learnt,
    ) -> Result<(), StoreError> {
        let detail = json!({"operation": operation, "name": name, "caller": caller});
        let subject = "bootReferences".to_owned();
        let record = Record { decision: Decision::PolicyChanged, subject, denial: None, detail };
        self.store.record_with(record, vec![Change::Learn(learnt)]).await.map(drop)
    }
}

/// Names are shown in tokens.
fn check_name(name: &str) -> Result<(), FieldError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+~".contains(&byte);
    if (1..=100).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(FieldError::new("name", "expected 1 to 100 letters, digits, `-`, `.`, `_`, `+` or `~`"))
}

/// Adds the claim, where the chain is a known one.
pub fn add_claim(claims: &mut Claims, name: Option<String>) {
    if let Some(name) = name {
        claims.insert(CLAIM_BOOT_REFERENCE.to_owned(), json!(name));
    }
}
