//! Evidence of AMD's silicon: a Milan report that the crate `sev` carries, and the recorded ones of `CASEMATE_VECTORS`.

use attestation_service::config::MeasurementConfig;
use public_api::encoding::to_base64url;
use serde_json::{Value, json};
use snp::Product;

use crate::support::*;

const MILAN_REPORT: &[u8] = include_bytes!("../../../../engines/snp/tests/data/sev-milan-report.bin");
const MILAN_VCEK: &[u8] = include_bytes!("../../../../engines/snp/tests/data/sev-milan-vcek.der");

fn body(report: &[u8], product: Product, vcek: &[u8]) -> Value {
    let chain =
        [vcek, snp::amd_ask_der(product), snp::amd_ark_der(product)].map(snp::chain::der_to_pem).concat();
    let evidence =
        json!({"SnpReport": to_base64url(report), "VcekCertChain": to_base64url(chain.as_bytes())});
    json!({"report": to_base64url(evidence.to_string().as_bytes())})
}

/// A service that trusts AMD alone and accepts the launch measurement of the given report.
async fn lab(report: &[u8]) -> Lab {
    let measurement = hex::encode(&report[0x90..0xc0]);
    Lab::with(|config| {
        config.allow_development_roots = false;
        config.firmware.clear();
        let measurement = MeasurementConfig { name: "recorded".to_owned(), launch_measurement: measurement };
        config.measurement.push(measurement);
    })
    .await
}

#[tokio::test]
async fn a_report_from_before_the_alias_check_is_genuine_but_denied() {
    let lab = lab(MILAN_REPORT).await;
    let body = body(MILAN_REPORT, Product::Milan, MILAN_VCEK);
    let denial = lab.denied(&body).await;
    expect_test::expect![[r#"
        code: AliasCheckIncomplete
        claim: x-casemate-alias-check-complete
        expected: true
        actual: false
        rule: line 22 of the attestation policy: [type=="x-casemate-trust-root", value=="amd"] && ![type=="x-casemate-alias-check-complete", value==true, issuer=="AttestationService"] => deny()
        remedy: update the host's BIOS and secure processor firmware (AMD-SB-3015) and reset it"#]].assert_eq(&shown(&denial));
}

#[tokio::test]
async fn an_altered_report_of_silicon() {
    let lab = lab(MILAN_REPORT).await;
    let mut altered = MILAN_REPORT.to_vec();
    altered[0x50] ^= 1;
    lab.denied_with(&body(&altered, Product::Milan, MILAN_VCEK), "ReportSignatureInvalid").await;
    lab.denied(&body(MILAN_REPORT, Product::Genoa, MILAN_VCEK)).await;
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
async fn recorded_reports_of_three_generations_get_tokens() {
    let Some(folder) = std::env::var_os("CASEMATE_VECTORS").map(std::path::PathBuf::from) else {
        eprintln!("skipped: CASEMATE_VECTORS is not set");
        return;
    };
    let read =
        |name: String| std::fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for product in Product::ALL {
        let name = product.name().to_lowercase();
        let report = read(format!("{name}-report.bin"));
        let lab = lab(&report).await;
        let claims = lab.accepted(&body(&report, product, &read(format!("{name}-vcek.der")))).await;
        assert_eq!(claims["x-casemate-trust-root"], "amd");
        assert_eq!(claims["x-casemate-product"], product.name());
        assert_eq!(claims["x-ms-compliance-status"], "azure-compliant-cvm");
        assert_eq!(claims.get("x-casemate-fmc-svn").is_some(), product == Product::Turin);
    }
}
