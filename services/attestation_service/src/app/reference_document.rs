//! Reference values as a signed and dated document: what this service computed, for others, and what others computed,
//! for this service. Whose documents are believed is pinned in the configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use public_api::Denial;
use public_api::attestation::BootChainClaim;
use public_api::collateral::{REFERENCE_DOCUMENT, ReferenceDocument, ReferenceValue, ReferencesImported};
use public_api::decision_log::Decision;
use serde_json::{Value, json};

use super::appraise::Appraiser;
use super::attest::Service;
use super::boot_reference::KnownBootChain;
use super::provider::Provider;
use super::reference::{Accepted, Digest};
use super::signed_document::PinnedKeys;
use super::signing::SignerError;
use crate::store::{Change, Learnt, Record, Store, StoreError};

/// How long a document holds, in seconds: 90 days.
const LIFETIME: i64 = 90 * 86_400;
/// How far the clocks of two services may be apart, in seconds.
const CLOCK_SKEW: i64 = 300;

/// Why values were not imported.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// They were refused.
    #[error("{0}")]
    Refused(Box<Denial>),
    /// The database failed.
    #[error("the reference values could not be stored")]
    Store(#[from] StoreError),
}

/// The values of other services, by issuer.
pub struct Imported {
    signers: PinnedKeys,
    documents: RwLock<Arc<BTreeMap<String, Document>>>,
}

#[derive(Clone)]
struct Document {
    issued_on: i64,
    until: i64,
    jws: String,
    values: Arc<HashMap<Digest, Accepted>>,
    boot_chains: Arc<Vec<KnownBootChain>>,
}

impl Imported {
    /// None yet.
    pub fn new(signers: PinnedKeys) -> Self {
        Self { signers, documents: RwLock::default() }
    }

    /// The name of a digest that is accepted at a time.
    pub fn name(&self, digest: &Digest, now: i64) -> Option<String> {
        let documents = self.documents();
        let mut found = documents.values().filter_map(|document| document.values.get(digest));
        found.find(|accepted| accepted.holds(now)).map(|accepted| accepted.name.clone())
    }

    /// A digest that is accepted, or was.
    pub fn find(&self, digest: &Digest) -> Option<Accepted> {
        self.documents().values().find_map(|document| document.values.get(digest).cloned())
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        let documents = self.documents();
        let values = documents.values().flat_map(|document| document.values.values());
        values.map(|accepted| accepted.name.clone()).collect()
    }

    /// The name of a boot chain that is accepted at a time.
    pub fn boot_name(&self, chain: &BootChainClaim, now: i64) -> Option<String> {
        let documents = self.documents();
        let held = documents.values().filter(|document| now < document.until);
        let mut chains = held.flat_map(|document| document.boot_chains.iter());
        chains.find(|known| known.holds(now) && known.is(chain)).map(|known| known.name().to_owned())
    }

    /// Puts a signed document in force that is kept nowhere.
    pub fn install(&self, jws: &str, now: i64) -> Result<(), Box<Denial>> {
        self.open(jws, now).map(|(issuer, document)| self.replace(issuer, document))
    }

    fn documents(&self) -> Arc<BTreeMap<String, Document>> {
        Arc::clone(&self.documents.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, issuer: String, document: Document) {
        let mut documents = self.documents.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut documents).insert(issuer, document);
    }

    /// A document that a pinned key signed, that holds, and that is not older than the one at hand.
    fn open(&self, jws: &str, now: i64) -> Result<(String, Document), Box<Denial>> {
        let (document, _) = self.signers.open::<ReferenceDocument>(jws.trim())?;
        if document.document != REFERENCE_DOCUMENT {
            return Err(malformed("document", REFERENCE_DOCUMENT, &document.document));
        }
        if document.iat > now + CLOCK_SKEW || document.nbf > now + CLOCK_SKEW {
            return Err(malformed("nbf", "a time that has come", &document.nbf.to_string()));
        }
        if document.exp <= now {
            return Err(malformed(
                "exp",
                "a document that still holds",
                &snp::UnixTime(document.exp).to_string(),
            ));
        }
        if let Some(current) = self.documents().get(&document.iss)
            && document.iat < current.issued_on
        {
            return Err(older(&document, current));
        }
        let mut values = HashMap::new();
        for value in &document.values {
            let (digest, accepted) = accepted(value, document.exp)?;
            values.insert(digest, accepted);
        }
        let chains = document.boot_chains.into_iter().map(KnownBootChain::read).collect::<Result<_, _>>();
        let boot_chains =
            Arc::new(chains.map_err(|error| malformed("bootChains", "boot chains", &error.to_string()))?);
        let (issued_on, until, values) = (document.iat, document.exp, Arc::new(values));
        Ok((document.iss, Document { issued_on, until, jws: jws.trim().to_owned(), values, boot_chains }))
    }
}

fn accepted(value: &ReferenceValue, exp: i64) -> Result<(Digest, Accepted), Box<Denial>> {
    let digest = hex::decode(&value.launch_measurement).ok().and_then(|hex| Digest::try_from(hex).ok());
    let digest =
        digest.ok_or_else(|| malformed("launchMeasurement", "96 hex digits", &value.launch_measurement))?;
    let until = match &value.until {
        None => exp,
        Some(text) => {
            let time = text.parse::<jiff::Timestamp>();
            time.map_err(|_| malformed("until", "a time (RFC 3339)", text))?.as_second().min(exp)
        }
    };
    let (name, inputs) = (value.name.clone(), value.inputs.clone());
    Ok((digest, Accepted { name, until: Some(until), inputs }))
}

fn malformed(member: &str, expected: &str, actual: &str) -> Box<Denial> {
    Box::new(Denial::new(
        "ReferenceValuesRefused",
        member,
        expected,
        actual,
        "the form of a document of reference values",
        "fetch a new document (GET /referenceValues) from the service that signs it",
    ))
}

fn older(document: &ReferenceDocument, current: &Document) -> Box<Denial> {
    Box::new(Denial::new(
        "ReferenceValuesOlder",
        "iat",
        format!("a document that was issued on {} or later", snp::UnixTime(current.issued_on)),
        format!("one that was issued on {}", snp::UnixTime(document.iat)),
        "older reference values of a service never replace newer ones of it",
        "fetch a new document (GET /referenceValues) from the service that signs it",
    ))
}

/// At the start: the stored documents that still hold and whose signers are still pinned.
pub async fn load(appraiser: &Appraiser, store: &Store, now: i64) -> Result<(), StoreError> {
    let imported = appraiser.references().imported();
    for jws in store.reference_documents().await? {
        match imported.open(&jws, now) {
            Ok((issuer, document)) => imported.replace(issuer, document),
            Err(denial) => tracing::warn!(%denial, "stored reference values are not in force any more"),
        }
    }
    Ok(())
}

impl Service {
    /// `GET /referenceValues`: the own values that hold now, signed by the provider.
    pub fn export_references(&self, provider: &Provider, now: i64) -> Result<String, SignerError> {
        let values =
            self.appraiser.references().own(now).into_iter().map(|(digest, accepted)| ReferenceValue {
                name: accepted.name.clone(),
                launch_measurement: hex::encode(digest),
                until: accepted.until.map(|until| snp::UnixTime(until).to_string()),
                inputs: accepted.inputs.clone(),
            });
        let document = ReferenceDocument {
            document: REFERENCE_DOCUMENT.to_owned(),
            iss: provider.signer.issuer().to_owned(),
            iat: now,
            nbf: now,
            exp: now + LIFETIME,
            values: values.collect(),
            boot_chains: self.appraiser.boot_references().all(),
        };
        let exp = document.exp;
        match serde_json::to_value(document)? {
            Value::Object(claims) => provider.signer.sign(&claims, now, exp),
            _ => unreachable!("a struct is a JSON object"),
        }
    }

    /// `PUT /referenceValues`.
    pub async fn import_references(
        &self,
        jws: &str,
        caller: &str,
        now: i64,
    ) -> Result<ReferencesImported, ReferenceError> {
        let _changing = self.changing.lock().await;
        let imported = self.appraiser.references().imported();
        let mut detail = json!({"operation": "ReferenceValuesImported", "caller": caller});
        let subject = "referenceValues".to_owned();
        let (issuer, document) = match imported.open(jws, now) {
            Ok(opened) => opened,
            Err(denial) => {
                let refused = Some((*denial).clone());
                let record = Record { decision: Decision::Refused, subject, denial: refused, detail };
                self.store.record(record).await?;
                return Err(ReferenceError::Refused(denial));
            }
        };
        detail["issuer"] = json!(issuer);
        detail["values"] = json!(document.values.len());
        let learnt = Learnt::References {
            issuer: issuer.clone(),
            jws: document.jws.clone(),
            issued_on: document.issued_on,
        };
        let record = Record { decision: Decision::PolicyChanged, subject, denial: None, detail };
        self.store.record_with(record, vec![Change::Learn(learnt)]).await?;
        let answer = ReferencesImported {
            issuer: issuer.clone(),
            values: document.values.len(),
            until: snp::UnixTime(document.until).to_string(),
        };
        imported.replace(issuer, document);
        Ok(answer)
    }
}
