//! What is asked from AMD's key distribution service: its addresses, and what names a certificate there (57230,
//! "KDS interface"). Pure: nothing is fetched here.

use crate::UnixTime;
use crate::certificate::Certificate;
use crate::chain::ChainError;
use crate::error::{CertificateRole, VerifyError};
use crate::extensions::{LeafExtensions, Owner};
use crate::product::Product;
use crate::report::{Report, SigningKey};
use crate::roots::{TrustAnchors, TrustRoot};
use crate::tcb::{TcbBytes, TcbVersion};

/// What a VCEK is the certificate of: a chip with a TCB.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VcekName {
    /// The product line.
    pub product: Product,
    /// 64 bytes, of Turin 8.
    pub chip_id: Vec<u8>,
    /// The TCB that the key was derived for.
    pub tcb: TcbBytes,
}

impl VcekName {
    /// The certificate that a report of this product was signed under; nothing if the platform masks the chip's id.
    pub fn of_report(report: &Report, product: Product) -> Option<Self> {
        let chip_id = report.chip_id.get(..product.chip_id_len())?.to_vec();
        (!report.chip_id_masked()).then_some(Self { product, chip_id, tcb: report.reported_tcb })
    }

    /// The name in a certificate; nothing in that of a VLEK.
    pub fn of_leaf(extensions: &LeafExtensions) -> Option<Self> {
        let Owner::Chip(chip_id) = &extensions.owner else { return None };
        let tcb = extensions.tcb.encode(extensions.product);
        Some(Self { product: extensions.product, chip_id: chip_id.clone(), tcb })
    }

    /// Path and query at the key distribution service.
    pub fn path(&self) -> String {
        let (product, chip) = (self.product, hex::encode(&self.chip_id));
        format!("/vcek/v1/{product}/{chip}?{}", levels(self.tcb.decode(product)))
    }
}

/// The query: decimal with two digits, as AMD's examples write it.
fn levels(tcb: TcbVersion) -> String {
    let fmc = tcb.fmc.map_or(String::new(), |fmc| format!("fmcSPL={fmc:02}&"));
    let TcbVersion { boot_loader, tee, snp, microcode, .. } = tcb;
    format!("{fmc}blSPL={boot_loader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}")
}

/// Path of the certificates above a VCEK or VLEK: PEM of ASK or ASVK, then ARK.
pub fn chain_path(product: Product, key: SigningKey) -> String {
    format!("/{}/v1/{product}/cert_chain", segment(key))
}

/// Path of the product's revocation list, DER.
pub fn crl_path(product: Product, key: SigningKey) -> String {
    format!("/{}/v1/{product}/crl", segment(key))
}

const fn segment(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vlek => "vlek",
        SigningKey::Vcek | SigningKey::None => "vcek",
    }
}

/// The products that a report can be of: the one that it names, or, in version 2, those whose chip ids are as long.
pub fn candidate_products(report: &Report) -> Vec<Product> {
    match (report.product(), report.cpu) {
        (Some(product), _) => vec![product],
        (None, Some(_)) => Vec::new(),
        (None, None) => {
            let short = report.chip_id.iter().skip(Product::Turin.chip_id_len()).all(|byte| *byte == 0);
            if short { vec![Product::Turin] } else { vec![Product::Milan, Product::Genoa] }
        }
    }
}

/// What a leaf certificate says of itself, before anything of it is verified; nothing for another certificate.
pub fn unverified_leaf(der: &[u8]) -> Option<LeafExtensions> {
    LeafExtensions::parse(Certificate::parse(der).ok()?.extensions()).ok()
}

/// Why certificates are not an issuer that a trusted root vouches for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// They are no certificates.
    #[error(transparent)]
    Malformed(#[from] ChainError),
    /// They are, and do not verify.
    #[error(transparent)]
    Refused(#[from] VerifyError),
}

/// Verifies an ASK or ASVK under a trusted root, without a leaf. Revocation is asked when a chain is verified.
///
/// # Errors
/// See [`IssuerError`].
pub fn verify_issuer(
    ask: &[u8],
    ark: &[u8],
    anchors: &TrustAnchors,
    now: UnixTime,
) -> Result<TrustRoot, IssuerError> {
    let parse = |der: &[u8], role| {
        Certificate::parse(der).map_err(|error| ChainError::Certificate { role, reason: error.to_string() })
    };
    let (ask, ark) = (parse(ask, CertificateRole::Ask)?, parse(ark, CertificateRole::Ark)?);
    let Some(anchor) = anchors.find(&ark) else {
        let (root, subject) = (ark.id(), ark.subject().to_string());
        return Err(VerifyError::UntrustedRoot { root, subject }.into());
    };
    ark.validity(CertificateRole::Ark).check(now)?;
    ask.validity(CertificateRole::Ask).check(now)?;
    ask.check_extensions(CertificateRole::Ask)?;
    ask.check_issued_by(&ark, CertificateRole::Ask)?;
    Ok(anchor.root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcb(fmc: Option<u8>) -> TcbVersion {
        TcbVersion { fmc, boot_loader: 4, tee: 0, snp: 8, microcode: 219, reserved: [0; 4] }
    }

    #[test]
    fn addresses_are_those_of_amds_interface() {
        let milan = VcekName {
            product: Product::Milan,
            chip_id: vec![0xab; 64],
            tcb: tcb(None).encode(Product::Milan),
        };
        let query = "blSPL=04&teeSPL=00&snpSPL=08&ucodeSPL=219";
        assert_eq!(milan.path(), format!("/vcek/v1/Milan/{}?{query}", "ab".repeat(64)));
        let turin = VcekName {
            product: Product::Turin,
            chip_id: vec![1; 8],
            tcb: tcb(Some(1)).encode(Product::Turin),
        };
        assert_eq!(turin.path(), format!("/vcek/v1/Turin/{}?fmcSPL=01&{query}", "01".repeat(8)));
        assert_eq!(chain_path(Product::Genoa, SigningKey::Vlek), "/vlek/v1/Genoa/cert_chain");
        assert_eq!(crl_path(Product::Genoa, SigningKey::Vcek), "/vcek/v1/Genoa/crl");
    }

    #[test]
    fn an_issuer_is_believed_under_its_own_root_only() {
        let now = UnixTime(1_760_000_000);
        let verify = |ask, ark| {
            verify_issuer(crate::amd_ask_der(ask), crate::amd_ark_der(ark), &TrustAnchors::amd(), now)
        };
        assert_eq!(verify(Product::Milan, Product::Milan), Ok(TrustRoot::Amd(Product::Milan)));
        assert!(matches!(verify(Product::Milan, Product::Genoa), Err(IssuerError::Refused(_))));
        let ask = crate::amd_ask_der(Product::Milan);
        assert!(matches!(
            verify_issuer(ask, ask, &TrustAnchors::amd(), now),
            Err(IssuerError::Refused(VerifyError::UntrustedRoot { .. }))
        ));
        let root = crate::amd_ark_der(Product::Milan);
        let early = verify_issuer(ask, root, &TrustAnchors::amd(), UnixTime(0));
        assert!(matches!(early, Err(IssuerError::Refused(VerifyError::NotYetValid { .. }))));
    }

    #[test]
    fn an_issuers_certificate_is_no_leaf() {
        assert_eq!(unverified_leaf(crate::amd_ask_der(Product::Milan)), None);
        assert_eq!(unverified_leaf(b"nonsense"), None);
    }
}
