//! Evidence that holds together and is still not enough.

use serde_json::json;

use super::forger::*;
use crate::support::*;

#[tokio::test]
async fn a_vtpm_without_a_report_is_outside_and_refused() {
    let lab = Lab::new().await;
    let mut info = Guest::honest().info();
    info["IsolationInfo"] = json!({"Type": "TrustedLaunch"});
    let denial = lab.guest_denied(&body(&info)).await;
    expect_test::expect![[r#"
        code: VtpmOutsideBoundary
        claim: x-casemate-vtpm-boundary
        expected: "inside"
        actual: "outside"
        rule: line 8 of the attestation policy: ![type=="x-casemate-vtpm-boundary", value=="inside", issuer=="AttestationService"] => deny()
        remedy: attest with the hardware report (IsolationInfo.Type SevSnp) of a VM whose vTPM the paravisor runs"#]]
    .assert_eq(&shown(&denial));
}

#[tokio::test]
async fn intel_tdx_is_refused_by_name() {
    let lab = Lab::new().await;
    let mut info = Guest::honest().info();
    info["IsolationInfo"] = json!({"Type": "Tdx", "Evidence": {"Proof": "AA", "RunTimeData": "AA"}});
    let denial = lab.guest_denied(&body(&info)).await;
    assert_eq!(denial["code"], "IsolationTypeNotSupported");
}

#[tokio::test]
async fn what_the_policy_of_the_report_refuses_gets_no_guest_token() {
    let lab = Lab::new().await;
    type Change = fn(&mut Guest);
    let cases: [(Change, &str); 3] = [
        (|guest| guest.report.vmpl = 1, "VmplRefused"),
        (|guest| guest.report.measurement[0] ^= 1, "LaunchMeasurementUnknown"),
        (|guest| guest.report.policy.0 |= 1 << 19, "GuestDebugAllowed"),
    ];
    for (change, code) in cases {
        assert_eq!(lab.guest_denied(&Guest::with(change).body()).await["code"], code);
    }
}

#[tokio::test]
async fn each_types_policy_is_shown_and_its_hash_is_in_the_token() {
    let lab = Lab::new().await;
    let claims = lab.guest_claims(&Guest::honest().body()).await;
    let mut texts = Vec::new();
    for path in ["/policies/AzureGuest", "/policies/tpm", "/policies/SevSnpVm"] {
        let (_, answer) = lab.get(path).await;
        let shown = lab.verified(answer["token"].as_str().expect("a token")).await;
        let inner = payload(shown["x-ms-policy"].as_str().expect("a JWS"));
        let encoded = inner["AttestationPolicy"].as_str().expect("a text");
        texts.push(
            String::from_utf8(public_api::encoding::from_base64_any(encoded).expect("base64")).expect("text"),
        );
    }
    assert_eq!(
        policy::language::policy_hash(&texts[0]),
        claims["x-ms-policy-hash"].as_str().expect("a hash")
    );
    assert!(texts[0].contains("x-casemate-vtpm-boundary") && texts[1].contains("aikValidated"));
    assert_ne!(texts[2], texts[0]);
}
