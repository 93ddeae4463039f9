//! The table of minimum patch levels: signed, dated data that changes without a release of this service. It binds
//! every provider, whatever its policy says, and looks at the reported TCB and at the committed TCB: firmware that is
//! new and not committed can be taken back by the host.
//!
//! No table is built in. AMD's bulletins give levels by CPU stepping and firmware package; whoever signs a table
//! answers for having read them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use public_api::Denial;
use public_api::attestation::{CLAIM_CHIP_ID, CLAIM_PRODUCT, Claims};
use public_api::attestation_policy::AttestationType;
use public_api::collateral::{
    ChipAndTcb, MINIMUM_TCB_DOCUMENT, MinimumTcbDryRun, MinimumTcbInForce, MinimumTcbTable, TcbRefusal,
    TcbRequirement,
};
use public_api::decision_log::Decision;
use serde_json::{Value, json};
use snp::{Product, TcbBytes, TcbVersion};

use super::appraise::Appraiser;
use super::attest::Service;
use super::signed_document::PinnedKeys;
use crate::RunError;
use crate::config::ConfigError;
use crate::store::{Change, Learnt, Record, Store, StoreError, StoredEvidence};

/// Rows of one query of a dry run.
const PAGE: u32 = 200;
/// Most refused VMs that a dry run tells.
const MAX_REFUSED: usize = 1000;
/// How far the clocks of a signer and of this service may be apart, in seconds.
const CLOCK_SKEW: i64 = 300;

/// What a table demands of each product.
pub type Requirements = BTreeMap<Product, Vec<TcbRequirement>>;

/// Why a table was not set.
#[derive(Debug, thiserror::Error)]
pub enum MinimumTcbError {
    /// It was refused.
    #[error("{0}")]
    Refused(Box<Denial>),
    /// The database failed.
    #[error("the table could not be stored")]
    Store(#[from] StoreError),
}

impl From<Box<Denial>> for MinimumTcbError {
    fn from(denial: Box<Denial>) -> Self {
        Self::Refused(denial)
    }
}

/// The table in force and whose tables are believed.
pub struct TcbFloor {
    signers: PinnedKeys,
    in_force: RwLock<Option<Arc<Floor>>>,
}

/// A table whose form was checked.
struct Floor {
    table: MinimumTcbTable,
    products: Requirements,
    jws: String,
    signer: String,
}

impl TcbFloor {
    /// No table yet.
    pub fn new(signers: PinnedKeys) -> Self {
        Self { signers, in_force: RwLock::default() }
    }

    /// What is in force.
    pub fn show(&self) -> MinimumTcbInForce {
        match self.floor() {
            None => MinimumTcbInForce { table: None, jws: None, signer: None },
            Some(floor) => MinimumTcbInForce {
                table: Some(floor.table.clone()),
                jws: Some(floor.jws.clone()),
                signer: Some(floor.signer.clone()),
            },
        }
    }

    /// Refuses a TCB below the table, with the bulletin that demands more.
    pub fn check(
        &self,
        product: Product,
        reported: TcbVersion,
        committed: TcbVersion,
    ) -> Result<(), Box<Denial>> {
        match self.floor() {
            None => Ok(()),
            Some(floor) => floor.check(product, reported, committed),
        }
    }

    fn floor(&self) -> Option<Arc<Floor>> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A table that may replace the one in force; nothing if it is that one.
    fn newer(&self, jws: &str, now: i64) -> Result<Option<Floor>, Box<Denial>> {
        let floor = self.open(jws, now)?;
        match self.floor() {
            Some(current) if current.table == floor.table => Ok(None),
            Some(current) if floor.table.sequence <= current.table.sequence => {
                Err(older(&floor.table, &current.table))
            }
            _ => Ok(Some(floor)),
        }
    }

    fn open(&self, jws: &str, now: i64) -> Result<Floor, Box<Denial>> {
        let (table, signer) = self.signers.open::<MinimumTcbTable>(jws.trim())?;
        let (products, issued) = check_form(&table)?;
        if issued > now + CLOCK_SKEW {
            return Err(malformed("issuedOn", "a time that has come", &table.issued_on));
        }
        Ok(Floor { table, products, jws: jws.trim().to_owned(), signer })
    }

    /// Puts a signed table in force that is kept nowhere.
    pub fn install(&self, jws: &str, now: i64) -> Result<(), Box<Denial>> {
        self.open(jws, now).map(|floor| self.replace(floor))
    }

    fn replace(&self, floor: Floor) {
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(floor));
    }
}

impl Floor {
    fn check(
        &self,
        product: Product,
        reported: TcbVersion,
        committed: TcbVersion,
    ) -> Result<(), Box<Denial>> {
        for requirement in self.products.get(&product).into_iter().flatten() {
            for (which, tcb) in [("reported", reported), ("committed", committed)] {
                if let Some((component, minimum, actual)) = below(requirement, tcb) {
                    return Err(self.refusal(requirement, which, component, minimum, actual));
                }
            }
        }
        Ok(())
    }

    fn refusal(
        &self,
        requirement: &TcbRequirement,
        which: &str,
        component: &str,
        minimum: u8,
        actual: u8,
    ) -> Box<Denial> {
        let TcbRequirement { bulletin, date, link, .. } = requirement;
        let link = link.as_ref().map_or(String::new(), |link| format!(" ({link})"));
        let MinimumTcbTable { sequence, issued_on, .. } = &self.table;
        Box::new(Denial::new(
            "TcbBelowMinimum",
            format!("x-casemate-{which}-tcb"),
            format!("{component} {minimum} or higher in the {which} TCB, as {bulletin} of {date} demands"),
            format!("{component} {actual}"),
            format!(
                "{bulletin} of {date}{link}, in table {sequence} of minimum patch levels, issued on {issued_on}"
            ),
            "update the host's firmware and microcode, commit them, and fetch the VCEK of the new TCB",
        ))
    }
}

/// The first component that is below a requirement, with the level that is demanded and the one that is there.
fn below(requirement: &TcbRequirement, tcb: TcbVersion) -> Option<(&'static str, u8, u8)> {
    let minimum = requirement.minimum;
    let components = [
        ("fmc", minimum.fmc, tcb.fmc.unwrap_or(0)),
        ("bootloader", minimum.bootloader, tcb.boot_loader),
        ("tee", minimum.tee, tcb.tee),
        ("snp", minimum.snp, tcb.snp),
        ("microcode", minimum.microcode, tcb.microcode),
    ];
    let levels = components.into_iter().filter_map(|(name, minimum, actual)| Some((name, minimum?, actual)));
    levels.into_iter().find(|(_, minimum, actual)| actual < minimum)
}

/// The requirements by product, and when the table was issued (Unix seconds).
pub fn check_form(table: &MinimumTcbTable) -> Result<(Requirements, i64), Box<Denial>> {
    if table.document != MINIMUM_TCB_DOCUMENT {
        return Err(malformed("document", MINIMUM_TCB_DOCUMENT, &table.document));
    }
    if i64::try_from(table.sequence).is_err() {
        return Err(malformed("sequence", "a number below 2^63", &table.sequence.to_string()));
    }
    let issued = table.issued_on.parse::<jiff::Timestamp>();
    let issued = issued.map_err(|_| malformed("issuedOn", "a time (RFC 3339)", &table.issued_on))?;
    let mut products = BTreeMap::new();
    for (name, requirements) in &table.products {
        let product: Product =
            name.parse().map_err(|_| malformed("products", "Milan, Genoa or Turin", name))?;
        for requirement in requirements {
            requirement
                .date
                .parse::<jiff::civil::Date>()
                .map_err(|_| malformed("date", "a day (YYYY-MM-DD)", &requirement.date))?;
            if requirement.minimum.fmc.is_some() && product != Product::Turin {
                return Err(malformed("fmc", "a level of Turin only", name));
            }
        }
        products.insert(product, requirements.clone());
    }
    Ok((products, issued.as_second()))
}

fn malformed(member: &str, expected: &str, actual: &str) -> Box<Denial> {
    Box::new(Denial::new(
        "MinimumTcbMalformed",
        member,
        expected,
        actual,
        "the form of a table of minimum patch levels",
        "correct the table and sign it anew",
    ))
}

fn older(table: &MinimumTcbTable, current: &MinimumTcbTable) -> Box<Denial> {
    Box::new(Denial::new(
        "MinimumTcbOlder",
        "sequence",
        format!("a table with a number above {}", current.sequence),
        format!("table {}, issued on {}", table.sequence, table.issued_on),
        "an older table of minimum patch levels never replaces a newer one",
        "sign the table again with a higher number, if its levels are really meant",
    ))
}

/// At the start: the stored table, and the file if it is newer.
pub async fn load(
    appraiser: &Appraiser,
    store: &Store,
    file: Option<&Path>,
    now: i64,
) -> Result<(), RunError> {
    let floor = appraiser.minimum_tcb();
    if let Some(stored) = store.minimum_tcb_table().await? {
        match floor.open(&stored, now) {
            Ok(stored) => floor.replace(stored),
            Err(denial) => {
                tracing::error!(%denial, "the stored table of minimum patch levels is not in force any more");
            }
        }
    }
    let Some(path) = file else { return Ok(()) };
    let jws = String::from_utf8_lossy(&crate::config::read(path)?).into_owned();
    match floor.newer(&jws, now) {
        Ok(None) => {}
        Ok(Some(newer)) => {
            store.learn(&learnt(&newer, "the configuration", now)).await?;
            floor.replace(newer);
        }
        Err(denial) if denial.code == "MinimumTcbOlder" => {
            tracing::warn!(%denial, "the configured table of minimum patch levels is older than the one in force");
        }
        Err(denial) => return Err(ConfigError::value("minimum_tcb_table", denial.to_string()).into()),
    }
    Ok(())
}

fn learnt(floor: &Floor, set_by: &str, now: i64) -> Learnt {
    Learnt::MinimumTcb {
        sequence: floor.table.sequence,
        jws: floor.jws.clone(),
        set_by: set_by.to_owned(),
        set_on: now,
    }
}

impl Service {
    /// `PUT /minimumTcb`.
    pub async fn set_minimum_tcb(
        &self,
        jws: &str,
        caller: &str,
        now: i64,
    ) -> Result<MinimumTcbInForce, MinimumTcbError> {
        let _changing = self.changing.lock().await;
        let floor = self.appraiser.minimum_tcb();
        let detail = json!({"operation": "MinimumTcbSet", "caller": caller});
        let subject = "minimumTcb".to_owned();
        match floor.newer(jws, now) {
            Ok(None) => {}
            Ok(Some(newer)) => {
                let mut detail = detail;
                detail["sequence"] = json!(newer.table.sequence);
                detail["signer"] = json!(newer.signer);
                let record = Record { decision: Decision::PolicyChanged, subject, denial: None, detail };
                self.store.record_with(record, vec![Change::Learn(learnt(&newer, caller, now))]).await?;
                floor.replace(newer);
            }
            Err(denial) => {
                let refused = Some((*denial).clone());
                let record = Record { decision: Decision::Refused, subject, denial: refused, detail };
                self.store.record(record).await?;
                return Err(denial.into());
            }
        }
        Ok(floor.show())
    }

    /// `POST /minimumTcb:dryRun`: a signed table, or the table itself. Nothing is changed.
    pub async fn dry_run_minimum_tcb(
        &self,
        body: &str,
        now: i64,
    ) -> Result<MinimumTcbDryRun, MinimumTcbError> {
        let floor = if body.trim_start().starts_with('{') {
            let table: MinimumTcbTable = serde_json::from_str(body)
                .map_err(|error| malformed("table", "a table of minimum patch levels", &error.to_string()))?;
            let (products, _) = check_form(&table)?;
            Floor { table, products, jws: String::new(), signer: String::new() }
        } else {
            self.appraiser.minimum_tcb().open(body, now)?
        };
        let mut result = MinimumTcbDryRun {
            evaluated: 0,
            permitted: 0,
            refused_chips: BTreeMap::new(),
            refused: Vec::new(),
            refused_idle_chips: Vec::new(),
        };
        let mut seen = std::collections::HashSet::new();
        for provider in self.providers.all() {
            for kind in AttestationType::ALL {
                self.try_evidence(&floor, provider.name(), kind, &mut seen, &mut result).await?;
            }
        }
        for vcek in self.store.vceks().await? {
            let chip = ChipAndTcb { product: vcek.product, chip_id: vcek.chip_id, tcb: vcek.tcb };
            if !seen.contains(&chip.chip_id) && floor.refuses_idle(&chip) {
                result.refused_idle_chips.push(chip);
            }
        }
        Ok(result)
    }

    async fn try_evidence(
        &self,
        floor: &Floor,
        provider: &str,
        kind: AttestationType,
        seen: &mut std::collections::HashSet<String>,
        result: &mut MinimumTcbDryRun,
    ) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let page = self.store.evidence_after(provider, kind, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.subject);
            for evidence in page {
                floor.try_on(evidence, seen, result)?;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Floor {
    fn try_on(
        &self,
        evidence: StoredEvidence,
        seen: &mut std::collections::HashSet<String>,
        result: &mut MinimumTcbDryRun,
    ) -> Result<(), StoreError> {
        let claims: Claims = serde_json::from_str(&evidence.claims)?;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let product = text(CLAIM_PRODUCT).and_then(|name| name.parse::<Product>().ok());
        let reported = text("x-casemate-reported-tcb").and_then(tcb);
        let committed = text("x-casemate-committed-tcb").and_then(tcb);
        let (Some(product), Some(reported), Some(committed)) = (product, reported, committed) else {
            return Ok(());
        };
        let chip_id = text(CLAIM_CHIP_ID).unwrap_or("masked").to_owned();
        seen.insert(chip_id.clone());
        result.evaluated += 1;
        let Err(denial) = self.check(product, reported.decode(product), committed.decode(product)) else {
            result.permitted += 1;
            return Ok(());
        };
        let StoredEvidence { provider, subject, .. } = evidence;
        result.refused_chips.entry(chip_id.clone()).or_default().push(subject.clone());
        if result.refused.len() < MAX_REFUSED {
            result.refused.push(TcbRefusal { provider, subject, chip_id, denial: *denial });
        }
        Ok(())
    }

    /// Of a chip without evidence only the TCB of its certificate is known, which is a reported one.
    fn refuses_idle(&self, chip: &ChipAndTcb) -> bool {
        let (Ok(product), Some(tcb)) = (chip.product.parse::<Product>(), tcb(&chip.tcb)) else {
            return false;
        };
        let tcb = tcb.decode(product);
        self.check(product, tcb, tcb).is_err()
    }
}

/// Sixteen hex digits, the most significant byte first.
fn tcb(text: &str) -> Option<TcbBytes> {
    let bytes: [u8; 8] = hex::decode(text).ok()?.try_into().ok()?;
    Some(TcbBytes(u64::from_be_bytes(bytes).to_le_bytes()))
}
