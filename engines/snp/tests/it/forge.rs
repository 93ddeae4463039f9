//! A certificate authority and a chip of our own, so that every single thing about evidence can be made wrong.
//!
//! A [`Forge`] describes evidence that verifies under its own root; a test changes one field and looks what is refused.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_SHA384, RSA_PSS_SHA256, RSA_PSS_SHA384, RsaEncoding,
};
use der::asn1::{Any, BitString, GeneralizedTime, Ia5String, OctetString, UtcTime};
use der::{Decode, Encode, Sequence};
use snp::report::{REPORT_SIZE, put_signature};
use snp::{
    CertChain, Crls, Explanation, GuestPolicy, PlatformInfo, Product, Report, SigningKey, TcbVersion,
    TrustAnchors, UnixTime, VerifiedReport, VerifyError, extensions as oids,
};
use x509_cert::certificate::Version;
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use crate::support::NOW;

const YEAR: i64 = 31_536_000;
/// Serial number of the intermediate.
pub(crate) const ASK_SERIAL: u8 = 0x41;
/// Serial number of the root.
pub(crate) const ARK_SERIAL: u8 = 0x40;

static ARK: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa4096).unwrap());
static ASK: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa4096).unwrap());
static SMALL: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static STRANGER: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa4096).unwrap());

/// An RSA key of this process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// The root's.
    Ark,
    /// The intermediate's.
    Ask,
    /// Of 2,048 bits.
    Small,
    /// Nobody's.
    Stranger,
}

impl Key {
    fn pair(self) -> &'static RsaKeyPair {
        match self {
            Self::Ark => &ARK,
            Self::Ask => &ASK,
            Self::Small => &SMALL,
            Self::Stranger => &STRANGER,
        }
    }

    fn spki(self) -> Vec<u8> {
        spki(self.pair().public_key())
    }
}

/// What kind of key a leaf certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafKey {
    /// As AMD's.
    P384,
    /// On a smaller curve.
    P256,
    /// P-384 with its curve named P-256.
    P384NamedP256,
    /// An RSA key.
    Rsa,
}

/// How a certificate or list is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// As AMD does it, with the default trailer left out or written.
    Pss { trailer: bool },
    /// RSASSA-PSS with SHA-256, honestly named.
    PssSha256,
    /// PKCS#1 v1.5, honestly named.
    Pkcs1,
    /// PKCS#1 v1.5 under the name of RSASSA-PSS.
    Pkcs1AsPss,
}

impl Algorithm {
    fn identifier(self) -> AlgorithmIdentifierOwned {
        let (oid, parameters) = match self {
            Self::Pkcs1 => ("1.2.840.113549.1.1.12", "0500".to_owned()),
            Self::PssSha256 => {
                let sha256 = "300d06096086480165030402010500";
                let mgf1 = format!("301a06092a864886f70d010108{sha256}");
                ("1.2.840.113549.1.1.10", format!("3034a00f{sha256}a11c{mgf1}a203020120"))
            }
            Self::Pss { .. } | Self::Pkcs1AsPss => {
                let sha384 = "300d06096086480165030402020500";
                let body = format!("a00f{sha384}a11c301a06092a864886f70d010108{sha384}a203020130");
                let written = match self {
                    Self::Pss { trailer: true } => format!("3039{body}a303020101"),
                    _ => format!("3034{body}"),
                };
                ("1.2.840.113549.1.1.10", written)
            }
        };
        let parameters = Any::from_der(&hex::decode(parameters).unwrap()).unwrap();
        AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap(oid), parameters: Some(parameters) }
    }

    pub(crate) fn sign(self, key: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
        let encoding: &'static dyn RsaEncoding = match self {
            Self::Pss { .. } => &RSA_PSS_SHA384,
            Self::PssSha256 => &RSA_PSS_SHA256,
            Self::Pkcs1 | Self::Pkcs1AsPss => &RSA_PKCS1_SHA384,
        };
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }
}

#[derive(Sequence)]
struct Tbs {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Signed {
    content: Any,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// Content with a signature; `named` is the algorithm that the outer structure names.
fn signed(content: &[u8], algorithm: Algorithm, named: Algorithm, key: &RsaKeyPair) -> Vec<u8> {
    let signature = BitString::from_bytes(&algorithm.sign(key, content)).unwrap();
    let content = Any::from_der(content).unwrap();
    Signed { content, algorithm: named.identifier(), signature }.to_der().unwrap()
}

/// Any content, signed as AMD signs; for the fuzz targets.
#[allow(dead_code, reason = "the fuzz targets include this file")]
pub(crate) fn sign_der(content: &[u8], key: Key) -> Option<Vec<u8>> {
    let algorithm = Algorithm::Pss { trailer: true };
    Any::from_der(content).ok()?;
    Some(signed(content, algorithm, algorithm, key.pair()))
}

/// One certificate's description.
#[derive(Clone)]
pub(crate) struct Paper {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) serial: u8,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) algorithm: Algorithm,
    /// The algorithm that the outer structure names, when it is another.
    pub(crate) named: Option<Algorithm>,
    pub(crate) version: Version,
    pub(crate) signed_by: Key,
    pub(crate) extensions: Vec<Extension>,
}

impl Paper {
    fn new(subject: &str, issuer: &str, serial: u8, signed_by: Key, extensions: Vec<Extension>) -> Self {
        Self {
            subject: format!("CN={subject},O=Casemate test"),
            issuer: format!("CN={issuer},O=Casemate test"),
            serial,
            not_before: NOW.0 - YEAR,
            not_after: NOW.0 + YEAR,
            algorithm: Algorithm::Pss { trailer: true },
            named: None,
            version: Version::V3,
            signed_by,
            extensions,
        }
    }

    fn sign(&self, spki: &[u8]) -> Vec<u8> {
        let tbs = Tbs {
            version: self.version,
            serial: SerialNumber::new(&[self.serial]).unwrap(),
            signature: self.algorithm.identifier(),
            issuer: self.issuer.parse().unwrap(),
            validity: Validity::new(time(self.not_before), time(self.not_after)),
            subject: self.subject.parse().unwrap(),
            key: SubjectPublicKeyInfoOwned::from_der(spki).unwrap(),
            extensions: self.extensions.clone(),
        };
        let named = self.named.unwrap_or(self.algorithm);
        signed(&tbs.to_der().unwrap(), self.algorithm, named, self.signed_by.pair())
    }

    /// Replaces the value of an extension.
    pub(crate) fn set(&mut self, oid: ObjectIdentifier, value: &[u8]) {
        let extension = self.extensions.iter_mut().find(|e| e.extn_id == oid).expect("it is there");
        extension.extn_value = OctetString::new(value).unwrap();
    }

    /// Takes an extension away.
    pub(crate) fn remove(&mut self, oid: ObjectIdentifier) {
        self.extensions.retain(|e| e.extn_id != oid);
    }
}

fn time(seconds: i64) -> Time {
    let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap());
    match UtcTime::from_unix_duration(since) {
        Ok(time) => Time::UtcTime(time),
        Err(_) => Time::GeneralTime(GeneralizedTime::from_unix_duration(since).unwrap()),
    }
}

/// An extension of any kind.
pub(crate) fn extension(oid: ObjectIdentifier, critical: bool, value: &[u8]) -> Extension {
    Extension { extn_id: oid, critical, extn_value: OctetString::new(value).unwrap() }
}

/// Evidence that verifies under its own root.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) leaf: Paper,
    pub(crate) ask: Paper,
    pub(crate) ark: Paper,
    pub(crate) leaf_key: LeafKey,
    pub(crate) ask_key: Key,
    product: Product,
    pub(crate) report: Report,
}

/// Evidence that was made: DER, the report, and the key that signed it.
pub(crate) struct Made {
    pub(crate) leaf: Vec<u8>,
    pub(crate) ask: Vec<u8>,
    pub(crate) ark: Vec<u8>,
    pub(crate) report: Vec<u8>,
    pub(crate) key: EcdsaKeyPair,
}

impl Forge {
    /// A chip of `product` with a VCEK.
    pub(crate) fn new(product: Product) -> Self {
        let fmc = (product == Product::Turin).then_some(3);
        let tcb = TcbVersion { fmc, boot_loader: 4, tee: 1, snp: 24, microcode: 219, reserved: [0; 4] };
        let mut chip = [0; 64];
        chip[..product.chip_id_len()].fill(0xC7);
        let report = report(product, tcb, chip);
        let hwid = extension(oids::HWID, false, &chip[..product.chip_id_len()]);
        let extensions = [leaf_extensions(product, tcb), vec![hwid]].concat();
        Self {
            leaf: Paper::new("SEV-VCEK", "SEV-test", 0, Key::Ask, extensions),
            ask: Paper::new("SEV-test", "ARK-test", ASK_SERIAL, Key::Ark, ca_extensions()),
            ark: Paper::new("ARK-test", "ARK-test", ARK_SERIAL, Key::Ark, ca_extensions()),
            leaf_key: LeafKey::P384,
            ask_key: Key::Ask,
            product,
            report,
        }
    }

    pub(crate) fn milan() -> Self {
        Self::new(Product::Milan)
    }

    /// The product of the report, as the certificate has it.
    pub(crate) fn product(&self) -> Product {
        self.product
    }

    /// With a report of that version.
    pub(crate) fn version(mut self, version: u32) -> Self {
        let report = &mut self.report;
        report.version = version;
        report.cpu = report.cpu.filter(|_| version >= 3);
        report.launch_mit_vector = report.launch_mit_vector.filter(|_| version >= 5);
        report.current_mit_vector = report.current_mit_vector.filter(|_| version >= 5);
        self
    }

    /// The same with a VLEK of a provider and a masked chip id.
    pub(crate) fn vlek(mut self) -> Self {
        self.leaf.remove(oids::HWID);
        self.leaf.subject = "CN=SEV-VLEK,O=Casemate test".to_owned();
        self.leaf.issuer = "CN=SEV-VLEK-test,O=Casemate test".to_owned();
        self.ask.subject = self.leaf.issuer.clone();
        let provider = Ia5String::new("CN=provider").unwrap().to_der().unwrap();
        self.leaf.extensions.push(extension(oids::CSP_ID, false, &provider));
        self.report.signing_key = SigningKey::Vlek;
        self.report.chip_id = [0; 64];
        self
    }

    /// The chain and the signed report.
    pub(crate) fn make(&self) -> (CertChain, Vec<u8>) {
        let made = self.parts();
        (CertChain::from_der(&made.leaf, &made.ask, &made.ark).unwrap(), made.report)
    }

    /// All that was made.
    pub(crate) fn parts(&self) -> Made {
        let algorithm = match self.leaf_key {
            LeafKey::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
        };
        let key = EcdsaKeyPair::generate(algorithm).unwrap();
        let leaf_spki = match self.leaf_key {
            LeafKey::Rsa => Key::Stranger.spki(),
            LeafKey::P384NamedP256 => named_p256(&spki(key.public_key())),
            _ => spki(key.public_key()),
        };
        let (leaf, ask) = (self.leaf.sign(&leaf_spki), self.ask.sign(&self.ask_key.spki()));
        let report = sign_report(&self.report.encode(), &key);
        Made { leaf, ask, ark: self.root(), report, key }
    }

    /// DER of the root.
    pub(crate) fn root(&self) -> Vec<u8> {
        self.ark.sign(&Key::Ark.spki())
    }

    /// AMD's roots and this one (RSASSA-PSS is randomised: a root is another certificate each time it is made).
    pub(crate) fn anchors(chain: &CertChain) -> TrustAnchors {
        TrustAnchors::amd().with_development_root(chain.ark_der()).unwrap()
    }

    pub(crate) fn verify(&self) -> Result<VerifiedReport, VerifyError> {
        let (chain, report) = self.make();
        snp::verify(&report, &chain, &Self::anchors(&chain), &Crls::default(), NOW)
    }

    /// The refusal in words.
    pub(crate) fn refusal(&self) -> Explanation {
        self.verify().expect_err("this evidence must be refused").explain()
    }

    /// A revocation list of the root.
    pub(crate) fn crl(&self, list: &List) -> Vec<u8> {
        let revoked = |serial: &u8| RevokedCert {
            serial_number: SerialNumber::new(&[*serial]).unwrap(),
            revocation_date: time(NOW.0 - 10),
            crl_entry_extensions: None,
        };
        let revoked: Vec<_> = list.revoked.iter().map(revoked).collect();
        let tbs: TbsCertList = TbsCertList {
            version: Version::V2,
            signature: list.algorithm.identifier(),
            issuer: list.issuer.parse().unwrap(),
            this_update: time(list.this_update.0),
            next_update: list.next_update.map(|at| time(at.0)),
            revoked_certificates: if revoked.is_empty() { None } else { Some(revoked) },
            crl_extensions: if list.extensions.is_empty() { None } else { Some(list.extensions.clone()) },
        };
        let named = list.named.unwrap_or(list.algorithm);
        signed(&tbs.to_der().unwrap(), list.algorithm, named, list.signed_by.pair())
    }
}

/// A revocation list's description.
#[derive(Clone)]
pub(crate) struct List {
    pub(crate) issuer: String,
    pub(crate) this_update: UnixTime,
    pub(crate) next_update: Option<UnixTime>,
    pub(crate) revoked: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) algorithm: Algorithm,
    /// The algorithm that the outer structure names, when it is another.
    pub(crate) named: Option<Algorithm>,
    pub(crate) signed_by: Key,
}

impl List {
    /// Nothing revoked, fresh.
    pub(crate) fn new() -> Self {
        Self {
            issuer: "CN=ARK-test,O=Casemate test".to_owned(),
            this_update: UnixTime(NOW.0 - 100),
            next_update: Some(UnixTime(NOW.0 + 100)),
            revoked: Vec::new(),
            extensions: Vec::new(),
            algorithm: Algorithm::Pss { trailer: true },
            named: None,
            signed_by: Key::Ark,
        }
    }

    /// The intermediate revoked.
    pub(crate) fn of_the_ask() -> Self {
        Self { revoked: vec![9, ASK_SERIAL], ..Self::new() }
    }
}

fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
    key.as_der().unwrap().as_ref().to_vec()
}

fn ca_extensions() -> Vec<Extension> {
    vec![
        extension(ObjectIdentifier::new_unwrap("2.5.29.15"), true, &[3, 2, 1, 6]),
        extension(ObjectIdentifier::new_unwrap("2.5.29.19"), true, &[0x30, 3, 1, 1, 0xFF]),
    ]
}

fn leaf_extensions(product: Product, tcb: TcbVersion) -> Vec<Extension> {
    let name = Ia5String::new(product.name()).unwrap().to_der().unwrap();
    let mut levels = vec![
        (oids::BL_SPL, tcb.boot_loader),
        (oids::TEE_SPL, tcb.tee),
        (oids::SNP_SPL, tcb.snp),
        (oids::SPL_5, 0),
        (oids::SPL_6, 0),
        (oids::SPL_7, 0),
        (oids::UCODE_SPL, tcb.microcode),
    ];
    levels.push(tcb.fmc.map_or((oids::SPL_4, 0), |fmc| (oids::FMC_SPL, fmc)));
    let mut extensions =
        vec![extension(oids::STRUCT_VERSION, false, &[2, 1, 0]), extension(oids::PRODUCT_NAME, false, &name)];
    extensions.extend(levels.into_iter().map(|(oid, level)| extension(oid, false, &level.to_der().unwrap())));
    extensions
}

fn report(product: Product, tcb: TcbVersion, chip_id: [u8; 64]) -> Report {
    let version = snp::report::FirmwareVersion { major: 1, minor: 55, build: 1 };
    let tcb = tcb.encode(product);
    Report {
        version: 5,
        guest_svn: 0,
        policy: GuestPolicy::casemate(),
        family_id: [0; 16],
        image_id: [0; 16],
        vmpl: 0,
        signature_algo: 1,
        current_tcb: tcb,
        platform_info: PlatformInfo(0x25),
        author_key_en: false,
        mask_chip_key: false,
        signing_key: SigningKey::Vcek,
        report_data: [1; 64],
        measurement: [2; 48],
        host_data: [3; 32],
        id_key_digest: [0; 48],
        author_key_digest: [0; 48],
        report_id: [4; 32],
        report_id_ma: [0xFF; 32],
        reported_tcb: tcb,
        cpu: Some(product.cpu()),
        chip_id,
        committed_tcb: tcb,
        current_version: version,
        committed_version: version,
        launch_tcb: tcb,
        launch_mit_vector: Some(5),
        current_mit_vector: Some(7),
    }
}

/// The bytes with a signature of `key`.
pub(crate) fn sign_report(unsigned: &[u8; REPORT_SIZE], key: &EcdsaKeyPair) -> Vec<u8> {
    let mut raw = *unsigned;
    let signature = key.sign(&SystemRandom::new(), &raw[..0x2A0]).unwrap();
    let (mut r, mut s) = ([0; 48], [0; 48]);
    let half = signature.as_ref().len() / 2;
    r[48 - half..].copy_from_slice(&signature.as_ref()[..half]);
    s[48 - half..].copy_from_slice(&signature.as_ref()[half..]);
    put_signature(&mut raw, &r, &s);
    raw.to_vec()
}

/// A P-384 key whose algorithm names the curve P-256.
fn named_p256(spki: &[u8]) -> Vec<u8> {
    let mut key = SubjectPublicKeyInfoOwned::from_der(spki).unwrap();
    let curve = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
    key.algorithm.parameters = Some(Any::encode_from(&curve).unwrap());
    key.to_der().unwrap()
}
