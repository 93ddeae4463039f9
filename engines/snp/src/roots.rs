//! Which roots are trusted, and which of them a chain ended in.
//!
//! AMD's three are built in and pinned by digest. A development root must be given by whoever decides to trust it, and
//! whatever was verified under it says so in its type: there is no way from [`TrustRoot::Development`] to
//! [`TrustRoot::Amd`].

use std::fmt;
use std::sync::LazyLock;

use crate::certificate::Certificate;
use crate::error::{CertificateRole, VerifyError};
use crate::explain::Explanation;
use crate::pem;
use crate::product::Product;

/// SHA-256 of a root certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootId(pub [u8; 32]);

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootId({self})")
    }
}

/// Where a chain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrustRoot {
    /// AMD's root of a product line: real silicon.
    Amd(Product),
    /// A root that an operator chose to trust: no isolation from whoever holds its key.
    Development(RootId),
}

impl TrustRoot {
    /// `amd` or `development`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Amd(_) => "amd",
            Self::Development(_) => "development",
        }
    }

    /// SHA-256 of the root certificate's DER.
    pub fn id(&self) -> RootId {
        match self {
            Self::Amd(product) => amd(*product).id(),
            Self::Development(id) => *id,
        }
    }
}

impl fmt::Display for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amd(product) => write!(f, "AMD {product}"),
            Self::Development(id) => write!(f, "development root {id}"),
        }
    }
}

/// Why a certificate cannot be a development root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// Not a certificate.
    #[error("the development root is not an X.509 certificate: {0}")]
    Malformed(String),
    /// It does not vouch for itself.
    #[error("the development root is no self-signed RSA-4096 issuer")]
    NotARoot(#[source] VerifyError),
    /// It is one of AMD's, which are trusted already, as AMD's.
    #[error("the development root is AMD's root of {0}, which is built in")]
    Amd(Product),
}

impl AnchorError {
    /// The refusal in words. A root that is not one is refused for the reason that a certificate would be.
    pub fn explain(&self) -> Explanation {
        let malformed = |code: &str, expected: &str| Explanation {
            code: code.to_owned(),
            claim: "development root".to_owned(),
            expected: expected.to_owned(),
            actual: self.to_string(),
            rule: "a development root is chosen by the operator and kept apart from AMD's".to_owned(),
            remedy: "configure the root certificate of the development installation".to_owned(),
        };
        match self {
            Self::Malformed(_) => malformed("CertificateMalformed", "one X.509 certificate"),
            Self::NotARoot(error) => Explanation { claim: "development root".to_owned(), ..error.explain() },
            Self::Amd(_) => malformed("RootAlreadyTrusted", "a root that is not AMD's"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    pub(crate) root: TrustRoot,
    pub(crate) certificate: Certificate,
}

/// The roots that are trusted.
#[derive(Clone, Debug)]
pub struct TrustAnchors(Vec<Anchor>);

impl TrustAnchors {
    /// AMD's roots and no other.
    pub fn amd() -> Self {
        let anchor = |product| Anchor { root: TrustRoot::Amd(product), certificate: amd(product).clone() };
        Self(Product::ALL.map(anchor).to_vec())
    }

    /// A development root in addition.
    ///
    /// # Errors
    /// See [`AnchorError`].
    pub fn with_development_root(mut self, ark_der: &[u8]) -> Result<Self, AnchorError> {
        let certificate = Certificate::parse(ark_der).map_err(|e| AnchorError::Malformed(e.to_string()))?;
        if let Some(product) = Product::ALL.into_iter().find(|product| amd_ark_der(*product) == ark_der) {
            return Err(AnchorError::Amd(product));
        }
        check_root(&certificate).map_err(AnchorError::NotARoot)?;
        let root = TrustRoot::Development(certificate.id());
        self.0.push(Anchor { root, certificate });
        Ok(self)
    }

    /// Every trusted root.
    pub fn roots(&self) -> impl Iterator<Item = TrustRoot> {
        self.0.iter().map(|anchor| anchor.root)
    }

    /// Whether that root is trusted.
    pub fn contains(&self, root: &TrustRoot) -> bool {
        self.0.iter().any(|anchor| anchor.root == *root)
    }

    pub(crate) fn find(&self, ark: &Certificate) -> Option<&Anchor> {
        self.0.iter().find(|anchor| anchor.certificate.der() == ark.der())
    }

    pub(crate) fn issuer(&self, name: &x509_cert::name::Name) -> impl Iterator<Item = &Anchor> {
        self.0.iter().filter(move |anchor| anchor.certificate.subject() == name)
    }
}

/// A root names itself as issuer, may issue, and its signature is its own.
fn check_root(certificate: &Certificate) -> Result<(), VerifyError> {
    certificate.check_extensions(CertificateRole::Ark)?;
    certificate.check_issued_by(certificate, CertificateRole::Ark)
}

struct BuiltIn {
    product: Product,
    ark: Certificate,
    ask: Certificate,
}

/// SHA-256 of AMD's root certificates, so that a changed data file is no root.
const PINNED: [(Product, &str); 3] = [
    (Product::Milan, "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
    (Product::Genoa, "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
    (Product::Turin, "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
];

static BUILT_IN: LazyLock<[BuiltIn; 3]> = LazyLock::new(|| {
    PINNED.map(|(product, pinned)| {
        let (ark, ask) = match product {
            Product::Milan => (include_str!("data/milan-ark.pem"), include_str!("data/milan-ask.pem")),
            Product::Genoa => (include_str!("data/genoa-ark.pem"), include_str!("data/genoa-ask.pem")),
            Product::Turin => (include_str!("data/turin-ark.pem"), include_str!("data/turin-ask.pem")),
        };
        let (ark, ask) = (built_in(ark), built_in(ask));
        assert_eq!(ark.id().to_string(), pinned, "the built-in root of {product} is not AMD's");
        check_root(&ark).expect("the built-in roots are self-signed: a test loads them all");
        BuiltIn { product, ark, ask }
    })
});

fn built_in(pem: &str) -> Certificate {
    let der = pem::certificates(pem.as_bytes()).ok().and_then(|found| found.into_iter().next());
    let parsed = der.and_then(|der| Certificate::parse(&der).ok());
    parsed.expect("the built-in files hold certificates: a test loads them all")
}

fn pair(product: Product) -> &'static BuiltIn {
    let found = BUILT_IN.iter().find(|pair| pair.product == product);
    found.expect("there is a pair for every product")
}

fn amd(product: Product) -> &'static Certificate {
    &pair(product).ark
}

/// DER of AMD's root of `product`.
pub fn amd_ark_der(product: Product) -> &'static [u8] {
    amd(product).der()
}

/// DER of AMD's intermediate for VCEKs of `product`.
pub fn amd_ask_der(product: Product) -> &'static [u8] {
    pair(product).ask.der()
}
