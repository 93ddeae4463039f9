//! `POST /collateral:prefetch`: when a host enrols, what its VMs will need is fetched before they need it.

use public_api::collateral::{PrefetchRequest, Prefetched};
use public_api::encoding::from_base64_any;
use snp::kds::{VcekName, candidate_products};
use snp::{CrlScope, Product, Report, SigningKey, TcbBytes};

use super::missing::{Missing, Unavailable, masked, no_key, vlek_not_published};
use super::shown;
use crate::app::attest::Service;
use crate::app::fields::FieldError;

/// Why nothing was prefetched.
#[derive(Debug)]
pub enum PrefetchError {
    /// The request cannot be read.
    Form(FieldError),
    /// What it asks for cannot be had.
    Missing(Missing),
}

impl From<FieldError> for PrefetchError {
    fn from(error: FieldError) -> Self {
        Self::Form(error)
    }
}

impl Service {
    /// Fetches the chip's certificate, what is above it, and the revocation list of its product. Without the list the
    /// answer says so; the list is fetched again later.
    pub async fn prefetch(&self, request: &PrefetchRequest, now: i64) -> Result<Prefetched, PrefetchError> {
        let names = names(request)?;
        let mut why: Option<Unavailable> = None;
        for name in names {
            match self.collateral.vcek(&name, None, now).await {
                Ok(_) => return Ok(self.prefetched(&name, now).await),
                Err(error) if error.why.missing && why.is_some() => {}
                Err(error) => why = Some(error),
            }
        }
        Err(PrefetchError::Missing(match why {
            Some(why) => Missing::Now(why),
            None => Missing::Never(no_key("a report of silicon that is not known here")),
        }))
    }

    async fn prefetched(&self, name: &VcekName, now: i64) -> Prefetched {
        let until = || self.appraiser.crl_until(CrlScope::Vcek, &self.collateral.root_of(name, now)?);
        if until().is_none_or(|until| until.0 <= now)
            && let Err(error) = self.collateral.fetch_list_of(&self.appraiser, name.product, now).await
        {
            tracing::warn!(product = %name.product, problem = %error, "a revocation list was not prefetched");
        }
        Prefetched { name: shown(name), revocation_list_until: until().map(|until| until.to_string()) }
    }
}

impl super::Collateral {
    /// The root that vouches for a chip whose chain is in memory.
    fn root_of(&self, name: &VcekName, now: i64) -> Option<snp::RootId> {
        let pem = self.known.pem(name)?;
        let leaf = snp::chain::pem_to_der(pem.as_bytes()).ok()?.into_iter().next()?;
        let (_, verified) = self.known.chain(&leaf, name.product, SigningKey::Vcek, now).ok()?;
        Some(verified.root().id())
    }
}

/// The certificates that a request may mean.
fn names(request: &PrefetchRequest) -> Result<Vec<VcekName>, PrefetchError> {
    match (&request.report, &request.product, &request.chip_id, &request.tcb) {
        (Some(report), None, None, None) => of_report(report),
        (None, Some(product), Some(chip_id), Some(tcb)) => Ok(vec![name(product, chip_id, tcb)?]),
        _ => {
            let problem = "expected either `report`, or `product`, `chipId` and `tcb`";
            Err(FieldError::new("body", problem).into())
        }
    }
}

fn of_report(text: &str) -> Result<Vec<VcekName>, PrefetchError> {
    let wrong = |problem: String| FieldError::new("report", problem);
    let bytes = from_base64_any(text).map_err(|error| wrong(error.to_string()))?;
    let report = Report::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
    match report.signing_key {
        SigningKey::Vcek if report.chip_id_masked() => Err(PrefetchError::Missing(Missing::Never(masked()))),
        SigningKey::Vcek => {
            let products = candidate_products(&report).into_iter();
            Ok(products.filter_map(|product| VcekName::of_report(&report, product)).collect())
        }
        SigningKey::Vlek => Err(PrefetchError::Missing(Missing::Never(vlek_not_published()))),
        SigningKey::None => {
            Err(PrefetchError::Missing(Missing::Never(no_key("a report that no key signed"))))
        }
    }
}

/// A name from its three texts.
pub fn name(product: &str, chip_id: &str, tcb: &str) -> Result<VcekName, FieldError> {
    let product: Product = product.parse().map_err(|error| FieldError::new("product", format!("{error}")))?;
    let chip = hex::decode(chip_id).ok().filter(|id| id.len() == product.chip_id_len());
    let chip_id = chip.ok_or_else(|| {
        FieldError::new("chipId", format!("expected {} hex digits", product.chip_id_len() * 2))
    })?;
    let tcb = hex::decode(tcb).ok().and_then(|tcb| <[u8; 8]>::try_from(tcb).ok());
    let tcb = tcb.ok_or_else(|| FieldError::new("tcb", "expected 16 hex digits"))?;
    Ok(VcekName { product, chip_id, tcb: TcbBytes(u64::from_be_bytes(tcb).to_le_bytes()) })
}
