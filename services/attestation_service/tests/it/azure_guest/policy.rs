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
    let cases: [(fn(&mut Guest), &str); 3] = [
        (|guest| guest.report.vmpl = 1, "VmplRefused"),
        (|guest| guest.report.measurement[0] ^= 1, "LaunchMeasurementUnknown"),
        (|guest| guest.report.policy.0 |= 1 << 19, "GuestDebugAllowed"),
    ];
    for (change, code) in cases {
        assert_eq!(lab.guest_denied(&Guest::with(change).body()).await["code"], code);
    }
}
