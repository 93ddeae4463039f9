//! What is missing in evidence, told from the evidence alone. Nothing here is verified.

use public_api::Denial;
use snp::kds::{VcekName, candidate_products, unverified_leaf};
use snp::{Product, Report, SigningKey};

use super::missing::{masked, no_key, vlek_not_published};
use crate::app::request::Evidence;

/// What evidence lacks.
pub enum Gap {
    /// It has the leaf, and lacks what is above it.
    Issuers {
        /// DER.
        leaf: Vec<u8>,
        /// As the leaf says.
        product: Product,
        /// As the leaf says.
        key: SigningKey,
    },
    /// It has no certificate: these may be meant.
    Everything(Vec<VcekName>),
    /// What it lacks cannot be told.
    Untold(Box<Denial>),
}

impl Gap {
    /// Nothing for evidence that has its chain, and for evidence that verification will refuse anyway, with the reason.
    pub fn of(evidence: &Evidence) -> Option<Self> {
        let text = std::str::from_utf8(&evidence.certificates).ok()?;
        if text.matches("-----BEGIN CERTIFICATE-----").nth(1).is_some() {
            return None;
        }
        let certificates = snp::chain::pem_to_der(&evidence.certificates).ok()?;
        let report = Report::parse(&evidence.report).ok()?;
        match certificates.into_iter().next() {
            None if text.trim().is_empty() => Some(Self::of_report(&report)),
            None => None,
            Some(leaf) => {
                let extensions = unverified_leaf(&leaf)?;
                let key = match VcekName::of_leaf(&extensions) {
                    Some(_) => SigningKey::Vcek,
                    None => SigningKey::Vlek,
                };
                Some(Self::Issuers { leaf, product: extensions.product, key })
            }
        }
    }

    fn of_report(report: &Report) -> Self {
        match report.signing_key {
            SigningKey::Vcek if report.chip_id_masked() => return Self::Untold(masked()),
            SigningKey::Vcek => {}
            SigningKey::Vlek => return Self::Untold(vlek_not_published()),
            SigningKey::None => return Self::Untold(no_key("a report that no key signed")),
        }
        let products = candidate_products(report);
        let names: Vec<VcekName> =
            products.into_iter().filter_map(|product| VcekName::of_report(report, product)).collect();
        if names.is_empty() {
            return Self::Untold(no_key("a report of silicon that is not known here"));
        }
        Self::Everything(names)
    }
}
