//! Evidence of a VM of Azure: HCL report, quote and PCRs (`CASEMATE_VECTORS`). There is no event log and no ephemeral
//! key with it, so it is followed to where the log is missed: everything before that must have held.

use attestation_service::app::azure_guest::request::{
    ClientPayload, GuestOs, GuestRequest, Isolation, TpmInfo,
};
use attestation_service::app::azure_guest::verify::verify;
use attestation_service::app::request::{Attached, Evidence};
use public_api::attestation::{AttachedData, DataType};
use vtpm::PcrBank;
use vtpm::hcl::HclReport;

use super::forger::Area;
use crate::support::*;

struct Recorded {
    request: GuestRequest,
    lab: Lab,
}

#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
async fn recorded() -> Option<Recorded> {
    let Some(folder) = std::env::var_os("CASEMATE_VECTORS").map(std::path::PathBuf::from) else {
        eprintln!("skipped: CASEMATE_VECTORS is not set");
        return None;
    };
    let read =
        |name: &str| std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let hcl = read("azure-genoa-hcl-report.bin");
    let report = HclReport::parse(&hcl).expect("an HCL report");
    let key = report.runtime_claims().expect("claims").attestation_key().expect("a key");
    let chain: Vec<u8> =
        [read("azure-genoa-vcek.pem"), read("genoa-ask.pem"), read("genoa-ark.pem")].concat();
    let quote = read("azure-genoa-quote.msg");
    let pcrs = String::from_utf8(read("azure-genoa-pcrs.hex")).expect("text");
    let values = pcrs.lines().map(|line| hex::decode(line).expect("hex").try_into().expect("32 bytes"));
    // Behind magic, type and the signer's qualified name: a TPM2B of 48 bytes.
    let nonce = hex::encode(&quote[44..92]);
    let runtime = AttachedData { data: report.claims.to_vec(), data_type: DataType::JSON };
    let request = GuestRequest {
        os: GuestOs {
            os_type: "Linux".to_owned(),
            distro: "Ubuntu".to_owned(),
            build: "NotApplication".to_owned(),
            major: 24,
            minor: 4,
        },
        tcg_log: Vec::new(),
        payload: ClientPayload { nonce: Some(nonce), ..ClientPayload::default() },
        tpm: TpmInfo {
            aik_cert: Vec::new(),
            aik_pub: Area { modulus: key.modulus().to_vec(), ..Area::ak() }.encode(),
            quote_signature: read("azure-genoa-quote.sig"),
            quote,
            pcrs: PcrBank((0..).zip(values).collect()),
            enc_key_pub: Vec::new(),
            certify_info: Vec::new(),
            certify_signature: Vec::new(),
        },
        isolation: Isolation::SevSnp(Box::new(Evidence {
            report: report.snp_report.to_vec(),
            certificates: chain,
            runtime_data: Some(Attached::new(runtime, "RunTimeData").expect("JSON")),
            init_time_data: None,
        })),
    };
    Some(Recorded { request, lab: Lab::with(|config| config.allow_development_roots = false).await })
}

impl Recorded {
    fn code(&self, change: impl FnOnce(&mut GuestRequest)) -> (String, String) {
        let mut request = self.request.clone();
        change(&mut request);
        let now = "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().expect("a time").as_second();
        let denial = verify(&self.lab.service.appraiser, None, request, now).err().expect("a denial");
        (denial.code, denial.claim)
    }
}

#[tokio::test]
async fn recorded_evidence_of_azure_holds_up_to_its_missing_log() {
    let Some(recorded) = recorded().await else { return };
    assert_eq!(recorded.code(|_| ()), ("EventLogDoesNotReplay".to_owned(), "TcgLogs, PCR 0".to_owned()));
    type Change = fn(&mut GuestRequest);
    let twins: [(Change, &str); 6] = [
        (|request| request.tpm.quote[50] ^= 1, "QuoteSignatureInvalid"),
        (|request| request.tpm.quote_signature[9] ^= 1, "QuoteSignatureInvalid"),
        (|request| request.payload.nonce = Some("00".repeat(48)), "QuoteNonceMismatch"),
        (|request| request.tpm.pcrs.0.get_mut(&4).expect("PCR 4")[0] ^= 1, "QuotedPcrsDiffer"),
        (|request| request.tpm.aik_pub[100] ^= 1, "AttestationKeyNotBound"),
        (|request| request.isolation = Isolation::Tdx, "IsolationTypeNotSupported"),
    ];
    for (change, code) in twins {
        assert_eq!(recorded.code(change).0, code);
    }
    let (code, _) = recorded.code(|request| {
        if let Isolation::SevSnp(evidence) = &mut request.isolation {
            evidence.runtime_data.as_mut().expect("claims").bytes[10] ^= 1;
        }
    });
    assert_eq!(code, "RuntimeDataNotBound");
}
