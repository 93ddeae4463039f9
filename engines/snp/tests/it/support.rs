//! Test data: what lies beside the tests, and what `CASEMATE_VECTORS` points to.

use std::path::PathBuf;

use snp::{CertChain, Crls, Product, TrustAnchors, UnixTime, VerifiedReport, VerifyError};

/// A time within the validity of every certificate used here but the VLEK's.
pub(crate) const NOW: UnixTime = UnixTime(1_770_000_000); // 2026-02-02

/// A file beside the tests.
pub(crate) fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Says on standard error that a test had nothing to test.
#[allow(clippy::print_stderr, reason = "the reader of a test run must see what was not tested")]
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// A file of the recorded evidence; nothing, and a line that says so, where there is none.
pub(crate) fn vector(name: &str) -> Option<Vec<u8>> {
    let Some(folder) = std::env::var_os("CASEMATE_VECTORS") else {
        skipped(&format!("CASEMATE_VECTORS is not set ({name})"));
        return None;
    };
    let path = PathBuf::from(folder).join(name);
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// A report with what belongs to it.
#[derive(Clone)]
pub(crate) struct Evidence {
    pub(crate) report: Vec<u8>,
    pub(crate) leaf: Vec<u8>,
    pub(crate) ask: Vec<u8>,
    pub(crate) ark: Vec<u8>,
    pub(crate) now: UnixTime,
}

impl Evidence {
    pub(crate) fn amd(product: Product, report: Vec<u8>, leaf: Vec<u8>) -> Self {
        let (ask, ark) = (snp::amd_ask_der(product).to_vec(), snp::amd_ark_der(product).to_vec());
        Self { report, leaf, ask, ark, now: NOW }
    }

    /// The Milan machine of the crate `sev`.
    pub(crate) fn milan() -> Self {
        Self::amd(Product::Milan, data("sev-milan-report.bin"), data("sev-milan-vcek.der"))
    }

    pub(crate) fn chain(&self) -> CertChain {
        CertChain::from_der(&self.leaf, &self.ask, &self.ark).expect("three certificates")
    }

    pub(crate) fn verify(&self) -> Result<VerifiedReport, VerifyError> {
        let crls = Crls::default();
        snp::verify(&self.report, &self.chain(), &TrustAnchors::amd(), &crls, self.now)
    }

    /// The code of the refusal.
    pub(crate) fn refusal(&self) -> String {
        self.verify().expect_err("this evidence must be refused").explain().code
    }
}
