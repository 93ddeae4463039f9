//! Evidence from real machines: HCL reports and quotes, and a bad twin for each check.

use std::path::PathBuf;

use base64::Engine;
use vtpm::hcl::{HclError, HclReport};
use vtpm::quote::{QuoteError, verify};
use vtpm::{PcrBank, RsaPublic};

const REPORT: &[u8] = include_bytes!("../data/hcl-report-snp.bin");
const QUOTE: &[u8] = include_bytes!("../data/quote.bin");
const AK: &str = include_str!("../data/akpub.pem");

struct Recorded {
    message: Vec<u8>,
    signature: Vec<u8>,
    pcrs: PcrBank,
    ak: RsaPublic,
    nonce: Vec<u8>,
}

impl Recorded {
    fn check(&self) -> Result<(), QuoteError> {
        verify(&self.message, &self.signature, &self.ak, &self.nonce, &self.pcrs).map(|quote| {
            assert_eq!(*quote.pcrs(), self.pcrs);
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(count);
    *rest = tail;
    head
}

fn length(rest: &mut &[u8]) -> usize {
    usize::try_from(u64::from_le_bytes(take(rest, 8).try_into().unwrap())).unwrap()
}

fn bank(values: impl Iterator<Item = Vec<u8>>) -> PcrBank {
    PcrBank((0..).zip(values.map(|value| value.try_into().unwrap())).collect())
}

/// The published quote. It holds its signature big-endian, as Azure's clients send it.
fn published() -> Recorded {
    let mut rest = QUOTE;
    let count = length(&mut rest);
    let signature = take(&mut rest, count).to_vec();
    let count = length(&mut rest);
    let message = take(&mut rest, count).to_vec();
    let count = length(&mut rest);
    let pcrs = bank((0..count).map(|_| take(&mut rest, 32).to_vec()));
    Recorded { message, signature, pcrs, ak: key_of_pem(), nonce: b"challenge".to_vec() }
}

/// Modulus and exponent of the 2048-bit key in a SubjectPublicKeyInfo.
fn key_of_pem() -> RsaPublic {
    let base64: String = AK.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
    let modulus = der.windows(5).position(|window| window == [0x02, 0x82, 0x01, 0x01, 0x00]).unwrap() + 5;
    RsaPublic::new(&der[modulus..modulus + 256], &der[modulus + 258..])
}

fn vector(name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("CASEMATE_VECTORS").map(PathBuf::from);
    let Some(folder) = folder else {
        eprintln!("skipped: CASEMATE_VECTORS is not set");
        return None;
    };
    Some(std::fs::read(folder.join(name)).unwrap())
}

#[test]
fn published_hcl_report_is_bound_to_its_claims() {
    let report = HclReport::parse(REPORT).unwrap();
    report.verify_binding().unwrap();
    assert_eq!((report.header_version, report.request_type), (1, 2));
    let claims = report.runtime_claims().unwrap();
    assert_eq!(claims.attestation_key().unwrap().modulus().len(), 256);
    assert!(claims.vm_configuration.contains_key("vmUniqueId"));
}

#[test]
fn published_hcl_report_with_another_attestation_key_is_refused() {
    let mut report = REPORT.to_vec();
    let at = report.windows(8).position(|window| window == b"HCLAkPub").unwrap() + 80;
    report[at] ^= 1;
    assert_eq!(HclReport::parse(&report).unwrap().verify_binding(), Err(HclError::NotBound));
}

#[test]
fn recorded_hcl_reports_are_bound_to_their_claims() {
    for (name, version) in [("azure-milan-hcl-report.bin", 1), ("azure-genoa-hcl-report.bin", 2)] {
        let Some(bytes) = vector(name) else { return };
        let report = HclReport::parse(&bytes).unwrap();
        report.verify_binding().unwrap();
        assert_eq!(report.header_version, version);
    }
}

#[test]
fn published_quote_verifies() {
    published().check().unwrap();
}

#[test]
fn recorded_quote_verifies_under_the_key_of_its_hcl_report() {
    let Some(report) = vector("azure-genoa-hcl-report.bin") else { return };
    let message = vector("azure-genoa-quote.msg").unwrap();
    let pcrs = String::from_utf8(vector("azure-genoa-pcrs.hex").unwrap()).unwrap();
    let recorded = Recorded {
        // The nonce stands behind magic, type and the signer's qualified name: a TPM2B of 48 bytes.
        nonce: message[6 + 36 + 2..6 + 36 + 2 + 48].to_vec(),
        message,
        signature: vector("azure-genoa-quote.sig").unwrap(),
        pcrs: bank(pcrs.lines().map(|line| hex::decode(line).unwrap())),
        ak: HclReport::parse(&report).unwrap().runtime_claims().unwrap().attestation_key().unwrap(),
    };
    recorded.check().unwrap();
    let stranger = Recorded { ak: key_of_pem(), ..recorded };
    assert_eq!(stranger.check(), Err(QuoteError::Signature));
}

#[test]
fn quote_replayed_under_another_nonce_is_refused() {
    let recorded = Recorded { nonce: b"challengf".to_vec(), ..published() };
    assert_eq!(recorded.check(), Err(QuoteError::Nonce));
}

#[test]
fn quote_with_an_altered_message_is_refused() {
    let mut recorded = published();
    *recorded.message.last_mut().unwrap() ^= 1;
    assert_eq!(recorded.check(), Err(QuoteError::Signature));
}

#[test]
fn quote_with_an_altered_signature_is_refused() {
    let mut recorded = published();
    recorded.signature[100] ^= 1;
    assert_eq!(recorded.check(), Err(QuoteError::Signature));
    recorded.signature.pop();
    assert_eq!(recorded.check(), Err(QuoteError::Scheme));
}

#[test]
fn quote_presented_with_better_looking_pcrs_is_refused() {
    let mut recorded = published();
    recorded.pcrs.0.get_mut(&7).unwrap()[0] ^= 1;
    assert!(matches!(recorded.check(), Err(QuoteError::PcrDigest { .. })));
    recorded.pcrs.0.remove(&7);
    assert_eq!(recorded.check(), Err(QuoteError::Selection("pcr 7, which was not given".to_owned())));
}

#[test]
fn structure_that_no_tpm_made_is_refused() {
    let mut recorded = published();
    recorded.message[0] = 0;
    assert_eq!(recorded.check(), Err(QuoteError::Magic(0x0054_4347)));
}

#[test]
fn attestation_of_something_else_than_pcrs_is_refused() {
    let mut recorded = published();
    recorded.message[5] = 0x17;
    assert_eq!(recorded.check(), Err(QuoteError::Kind(0x8017)));
}

#[test]
fn quote_with_bytes_behind_it_is_refused() {
    let mut recorded = published();
    recorded.message.push(0);
    assert_eq!(recorded.check(), Err(QuoteError::Malformed("pcr digest")));
}

proptest::proptest! {
    #[test]
    fn damaged_quotes_never_panic(at in 0usize..122, byte in proptest::num::u8::ANY, cut in 0usize..122) {
        let mut recorded = published();
        recorded.message[at] = byte;
        recorded.message.truncate(122 - cut);
        let _ = recorded.check();
    }
}
