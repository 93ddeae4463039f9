//! A case of the corpus: evidence with one fault, what our verifier says of it, and what the crate `sev` says.

use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;
use snp::{CertChain, CrlScope, Crls, Explanation, Revocation, TrustAnchors, UnixTime};

use crate::forge::{Forge, Made};
use crate::support::{Evidence, NOW};

/// How the certificates are sent.
#[derive(Clone)]
pub(super) enum Certificates {
    /// Leaf, intermediate, root.
    Der([Vec<u8>; 3]),
    /// Text.
    Pem(Vec<u8>),
}

/// All that a verifier is given.
#[derive(Clone)]
pub(super) struct Bundle {
    pub(super) report: Vec<u8>,
    pub(super) certificates: Certificates,
    /// A root that is trusted beside AMD's.
    pub(super) root: Option<Vec<u8>>,
    pub(super) lists: Vec<Vec<u8>>,
    /// What the lists were fetched for.
    pub(super) scope: CrlScope,
    pub(super) rule: Revocation,
    pub(super) now: UnixTime,
}

impl Bundle {
    /// Evidence of our own root, which is trusted.
    pub(super) fn made(made: &Made) -> Self {
        let (leaf, ask, ark) = (made.leaf.clone(), made.ask.clone(), made.ark.clone());
        Self { root: Some(ark.clone()), ..Self::of(made.report.clone(), [leaf, ask, ark]) }
    }

    /// Recorded evidence, with AMD's roots alone.
    pub(super) fn recorded(evidence: &Evidence) -> Self {
        let Evidence { report, leaf, ask, ark, .. } = evidence.clone();
        Self::of(report, [leaf, ask, ark])
    }

    fn of(report: Vec<u8>, der: [Vec<u8>; 3]) -> Self {
        let certificates = Certificates::Der(der);
        Self {
            report,
            certificates,
            root: None,
            lists: Vec::new(),
            scope: CrlScope::Vcek,
            rule: Revocation::IfPresent,
            now: NOW,
        }
    }

    pub(super) fn der(&mut self) -> &mut [Vec<u8>; 3] {
        match &mut self.certificates {
            Certificates::Der(der) => der,
            Certificates::Pem(_) => panic!("this evidence is PEM"),
        }
    }

    /// Code and claim of our refusal; nothing when we accept.
    pub(super) fn refusal(&self) -> Option<String> {
        let said = |Explanation { code, claim, .. }: Explanation| format!("{code} ({claim})");
        let mut anchors = TrustAnchors::amd();
        if let Some(root) = &self.root {
            anchors = match anchors.with_development_root(root) {
                Ok(anchors) => anchors,
                Err(error) => return Some(said(error.explain())),
            };
        }
        let mut crls = Crls::new(self.rule);
        for list in &self.lists {
            if let Err(error) = crls.add_for(self.scope, list, &anchors) {
                return Some(said(error.explain()));
            }
        }
        let chain = match &self.certificates {
            Certificates::Der([leaf, ask, ark]) => CertChain::from_der(leaf, ask, ark),
            Certificates::Pem(text) => CertChain::from_pem(text),
        };
        let chain = match chain {
            Ok(chain) => chain,
            Err(error) => return Some(said(error.explain())),
        };
        let verified = snp::verify(&self.report, &chain, &anchors, &crls, self.now);
        verified.err().map(|error| said(error.explain()))
    }

    /// Whether the crate `sev` accepts chain and report. It takes any root, and reads no lists, dates or extensions.
    pub(super) fn accepted_by_sev(&self) -> bool {
        let Some(chain) = self.sev_chain() else { return false };
        let Ok(report) = AttestationReport::from_bytes(&self.report) else { return false };
        (&chain, &report).verify().is_ok()
    }

    fn sev_chain(&self) -> Option<Chain> {
        let der = match &self.certificates {
            Certificates::Der(der) => der.to_vec(),
            Certificates::Pem(text) => snp::chain::pem_to_der(text).ok()?,
        };
        let [leaf, ask, ark, ..] = der.as_slice() else { return None };
        let read = |der: &[u8]| Certificate::from_der(der).ok();
        Some(Chain { ca: ca::Chain { ark: read(ark)?, ask: read(ask)? }, vek: read(leaf)? })
    }
}

/// One fault in evidence that is good otherwise.
pub(super) struct Case {
    /// The evidence that it was made of.
    pub(super) kind: String,
    /// `fault / which of its forms`.
    pub(super) name: String,
    /// What is wrong; cases with the same fault have the same reason.
    pub(super) fault: &'static str,
    pub(super) bundle: Bundle,
}

impl Case {
    /// Kind and name, which no other case has.
    pub(super) fn names(&self) -> (&str, &str) {
        (&self.kind, &self.name)
    }
}

/// Collects the cases of one kind of evidence.
pub(super) struct Cases {
    kind: String,
    pub(super) found: Vec<Case>,
}

impl Cases {
    pub(super) fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), found: Vec::new() }
    }

    pub(super) fn add(&mut self, fault: &'static str, form: impl std::fmt::Display, bundle: Bundle) {
        let name = format!("{fault} / {form}");
        self.found.push(Case { kind: self.kind.clone(), name, fault, bundle });
    }

    /// A fault that the forge makes.
    pub(super) fn forged(
        &mut self,
        forge: &Forge,
        fault: &'static str,
        form: impl std::fmt::Display,
        change: impl FnOnce(&mut Forge),
    ) {
        let mut forge = forge.clone();
        change(&mut forge);
        self.add(fault, form, Bundle::made(&forge.parts()));
    }
}
