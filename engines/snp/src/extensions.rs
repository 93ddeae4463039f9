//! AMD's extensions of VCEK and VLEK certificates (57230, VCEK custom extensions; VLEK: cspID).

use der::asn1::{AnyRef, Ia5StringRef, Utf8StringRef};
use der::{Decode, Tag, Tagged};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::Extension;

use crate::product::Product;
use crate::tcb::TcbVersion;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

/// structVersion.
pub const STRUCT_VERSION: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.1");
/// productName.
pub const PRODUCT_NAME: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.2");
/// blSPL.
pub const BL_SPL: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.1");
/// teeSPL.
pub const TEE_SPL: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.2");
/// snpSPL.
pub const SNP_SPL: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.3");
/// spl4.
pub const SPL_4: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.4");
/// spl5.
pub const SPL_5: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.5");
/// spl6.
pub const SPL_6: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.6");
/// spl7.
pub const SPL_7: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.7");
/// ucodeSPL.
pub const UCODE_SPL: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.8");
/// fmcSPL.
pub const FMC_SPL: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.9");
/// hwID.
pub const HWID: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.4");
/// cspID.
pub const CSP_ID: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.5");

/// What is wrong with a leaf's extensions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Not there.
    #[error("the extension {name} is missing")]
    Missing {
        /// AMD's name of it.
        name: &'static str,
    },
    /// There more than once.
    #[error("the extension {name} is there twice")]
    Twice {
        /// AMD's name of it.
        name: &'static str,
    },
    /// Not what it should be.
    #[error("the extension {name} is malformed")]
    Malformed {
        /// AMD's name of it.
        name: &'static str,
    },
    /// A product that this crate does not know.
    #[error("the product `{name}` is unknown")]
    Product {
        /// The certificate's product name.
        name: String,
    },
    /// A VCEK has a hardware id, a VLEK a provider's id; this one has both.
    #[error("the certificate has both hwID and cspID")]
    BothOwners,
    /// This one has neither.
    #[error("the certificate has neither hwID nor cspID")]
    NoOwner,
}

/// Whom a leaf certificate's key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A chip: VCEK. The bytes that name it, 64 or (Turin) 8.
    Chip(Vec<u8>),
    /// A cloud provider: VLEK.
    Provider(String),
}

/// The extensions of a VCEK or VLEK certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafExtensions {
    /// As written, for example `Milan-B0`.
    pub product_name: String,
    /// The product line of it.
    pub product: Product,
    /// The TCB that the key was derived for.
    pub tcb: TcbVersion,
    /// Chip or provider.
    pub owner: Owner,
}

impl ExtensionError {
    /// The stable code of the refusal.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "CertificateExtensionMissing",
            Self::Twice { .. } => "CertificateExtensionDoubled",
            Self::Malformed { .. } => "CertificateExtensionMalformed",
            Self::Product { .. } => "CertificateProductUnknown",
            Self::BothOwners => "CertificateOwnerAmbiguous",
            Self::NoOwner => "CertificateOwnerMissing",
        }
    }

    /// AMD's name of the extension.
    pub(crate) const fn extension(&self) -> &'static str {
        match self {
            Self::Missing { name } | Self::Twice { name } | Self::Malformed { name } => name,
            Self::Product { .. } => "productName",
            Self::BothOwners | Self::NoOwner => "hwID or cspID",
        }
    }
}

impl LeafExtensions {
    /// Reads a certificate's extensions.
    pub(crate) fn parse(extensions: &[Extension]) -> Result<Self, ExtensionError> {
        let product_name = text(require(extensions, PRODUCT_NAME, "productName")?, "productName")?;
        let unknown = || ExtensionError::Product { name: product_name.clone() };
        let product = Product::from_product_name(&product_name).ok_or_else(unknown)?;
        let (tcb, owner) = (tcb(extensions, product)?, owner(extensions, product)?);
        Ok(Self { product_name, product, tcb, owner })
    }
}

fn tcb(extensions: &[Extension], product: Product) -> Result<TcbVersion, ExtensionError> {
    let level = |oid, name| spl(require(extensions, oid, name)?, name);
    let turin = product == Product::Turin;
    Ok(TcbVersion {
        fmc: if turin { Some(level(FMC_SPL, "fmcSPL")?) } else { None },
        boot_loader: level(BL_SPL, "blSPL")?,
        tee: level(TEE_SPL, "teeSPL")?,
        snp: level(SNP_SPL, "snpSPL")?,
        microcode: level(UCODE_SPL, "ucodeSPL")?,
        reserved: [
            if turin { 0 } else { level(SPL_4, "spl4")? },
            level(SPL_5, "spl5")?,
            level(SPL_6, "spl6")?,
            level(SPL_7, "spl7")?,
        ],
    })
}

fn owner(extensions: &[Extension], product: Product) -> Result<Owner, ExtensionError> {
    let chip = find(extensions, HWID, "hwID")?;
    let provider = find(extensions, CSP_ID, "cspID")?;
    match (chip, provider) {
        (Some(value), None) => {
            let id = hwid(value, product.chip_id_len());
            Ok(Owner::Chip(id.ok_or(ExtensionError::Malformed { name: "hwID" })?.to_vec()))
        }
        (None, Some(value)) => Ok(Owner::Provider(text(value, "cspID")?)),
        (Some(_), Some(_)) => Err(ExtensionError::BothOwners),
        (None, None) => Err(ExtensionError::NoOwner),
    }
}

/// AMD wrote the bare bytes at first and an OCTET STRING later; the lengths tell them apart.
fn hwid(value: &[u8], len: usize) -> Option<&[u8]> {
    if value.len() == len {
        return Some(value);
    }
    let octets = AnyRef::from_der(value).ok()?;
    (octets.tag() == Tag::OctetString && octets.value().len() == len).then(|| octets.value())
}

fn find<'a>(
    extensions: &'a [Extension],
    oid: ObjectIdentifier,
    name: &'static str,
) -> Result<Option<&'a [u8]>, ExtensionError> {
    let mut found = extensions.iter().filter(|extension| extension.extn_id == oid);
    let first = found.next().map(|extension| extension.extn_value.as_bytes());
    if found.next().is_some() { Err(ExtensionError::Twice { name }) } else { Ok(first) }
}

fn require<'a>(
    extensions: &'a [Extension],
    oid: ObjectIdentifier,
    name: &'static str,
) -> Result<&'a [u8], ExtensionError> {
    find(extensions, oid, name)?.ok_or(ExtensionError::Missing { name })
}

fn spl(value: &[u8], name: &'static str) -> Result<u8, ExtensionError> {
    u8::from_der(value).map_err(|_| ExtensionError::Malformed { name })
}

fn text(value: &[u8], name: &'static str) -> Result<String, ExtensionError> {
    let ia5 = Ia5StringRef::from_der(value).map(|text| text.as_str().to_owned());
    let text = ia5.or_else(|_| Utf8StringRef::from_der(value).map(|text| text.as_str().to_owned()));
    text.map_err(|_| ExtensionError::Malformed { name })
}
