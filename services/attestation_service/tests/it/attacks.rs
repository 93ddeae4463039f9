//! Evidence that an attacker presents, and the words in which it is refused.

use attestation_service::config::MinimumTcb;
use expect_test::{Expect, expect};
use serde_json::json;
use snp::{GuestPolicy, TcbVersion};

use crate::support::*;

async fn refused(attempt: &Attempt, expected: Expect) {
    let lab = Lab::new().await;
    expected.assert_eq(&shown(&lab.denied(&attempt.body()).await));
}

#[tokio::test]
async fn any_altered_byte_of_the_report() {
    let lab = Lab::new().await;
    let attempt = Attempt::honest();
    let report = attempt.machine.sign(&attempt.report);
    // Version, policy, VMPL, platform info, report data, measurement, host data, TCB, chip id, r, s, the bytes behind s.
    for offset in [0, 8, 0x30, 0x40, 0x50, 0x90, 0xc0, 0x180, 0x1a0, 0x29f, 0x2a0, 0x2e8, 0x330, 0x49f] {
        let mut altered = report.clone();
        altered[offset] ^= 1;
        let denial = lab.denied(&attempt.body_with_report(&altered)).await;
        let code = denial["code"].as_str().expect("a code");
        assert!(code.contains("Signature"), "{offset:#x}: {denial}");
    }
    lab.accepted(&attempt.body_with_report(&report)).await;
}

#[tokio::test]
async fn a_report_that_was_cut_off() {
    let lab = Lab::new().await;
    let attempt = Attempt::honest();
    let report = attempt.machine.sign(&attempt.report);
    for length in [0, 1, 1183] {
        lab.denied_with(&attempt.body_with_report(&report[..length]), "ReportSizeWrong").await;
    }
}

#[tokio::test]
async fn evidence_under_another_root() {
    refused(&Attempt::of(&STRANGERS), expect![[r#"
        code: RootNotTrusted
        claim: root of the certificate chain
        expected: one of AMD's roots, or a development root that was allowed explicitly
        actual: STRANGERS-ROOT (CN=ARK-Milan (Casemate development),O=Casemate development\, not AMD)
        rule: AMD 57230 (KDS), chain of trust; the roots are pinned by digest
        remedy: use a host with AMD SEV-SNP; for a development host, configure its root and allow development roots"#]]).await;
}

#[tokio::test]
async fn a_stranger_who_borrows_our_certificates() {
    let mut attempt = Attempt::of(&STRANGERS);
    attempt.chain = OURS.chain();
    refused(
        &attempt,
        expect![[r#"
            code: ReportSignatureInvalid
            claim: SnpReport.signature
            expected: a signature of the certificate's key over bytes 0 to 0x29F
            actual: the signature of the report is wrong
            rule: AMD 56860 (SNP firmware ABI), section 7.3 and the format of ECDSA P-384 signatures
            remedy: send the report unaltered, with the certificate for its chip id and reported TCB"#]],
    )
    .await;
}

#[tokio::test]
async fn certificates_in_another_order_or_number() {
    let lab = Lab::new().await;
    let mut attempt = Attempt::honest();
    let chain = attempt.chain.clone();
    let certificates: Vec<&str> = chain.split_inclusive("-----END CERTIFICATE-----\n").collect();
    attempt.chain = certificates[..2].concat();
    lab.denied_with(&attempt.body(), "CertificateChainMalformed").await;
    attempt.chain = [certificates[2], certificates[1], certificates[0]].concat();
    lab.denied_with(&attempt.body(), "RootNotTrusted").await;
    attempt.chain = [certificates[1], certificates[0], certificates[2]].concat();
    lab.denied(&attempt.body()).await;
    attempt.chain = "nonsense".to_owned();
    lab.denied_with(&attempt.body(), "CertificateChainMalformed").await;
}

#[tokio::test]
async fn development_evidence_where_only_amd_is_trusted() {
    let lab = Lab::with(|config| {
        config.allow_development_roots = false;
        config.development_root = None;
    })
    .await;
    let denial = lab.denied(&Attempt::honest().body()).await;
    expect![[r#"
        code: RootNotTrusted
        claim: root of the certificate chain
        expected: one of AMD's roots, or a development root that was allowed explicitly
        actual: OUR-ROOT (CN=ARK-Milan (Casemate development),O=Casemate development\, not AMD)
        rule: AMD 57230 (KDS), chain of trust; the roots are pinned by digest
        remedy: use a host with AMD SEV-SNP; for a development host, configure its root and allow development roots"#]].assert_eq(&shown(&denial));
    // The root file alone is not consent.
    let lab = Lab::with(|config| config.allow_development_roots = false).await;
    lab.denied_with(&Attempt::honest().body(), "RootNotTrusted").await;
}

#[tokio::test]
async fn a_guest_that_the_host_may_debug() {
    refused(&Attempt::with(|report| report.policy = GuestPolicy(0xb_0000)), expect![[r#"
        code: GuestDebugAllowed
        claim: x-ms-sevsnpvm-is-debuggable
        expected: false
        actual: true
        rule: line 9 of the attestation policy: ![type=="x-ms-sevsnpvm-is-debuggable", value==false, issuer=="AttestationService"] => deny()
        remedy: launch the VM with the DEBUG bit (19) of the guest policy clear"#]]).await;
}

#[tokio::test]
async fn a_guest_with_a_migration_agent() {
    refused(&Attempt::with(|report| report.policy = GuestPolicy(0x7_0000)), expect![[r#"
        code: MigrationAgentAllowed
        claim: x-ms-sevsnpvm-migration-allowed
        expected: false
        actual: true
        rule: line 12 of the attestation policy: ![type=="x-ms-sevsnpvm-migration-allowed", value==false, issuer=="AttestationService"] => deny()
        remedy: launch the VM with the MIGRATE_MA bit (18) of the guest policy clear"#]]).await;
}

#[tokio::test]
async fn a_report_that_the_guest_asked_for_at_another_privilege_level() {
    refused(&Attempt::with(|report| report.vmpl = 2), expect![[r#"
        code: VmplRefused
        claim: x-ms-sevsnpvm-vmpl
        expected: 0
        actual: 2
        rule: line 15 of the attestation policy: ![type=="x-ms-sevsnpvm-vmpl", value==0, issuer=="AttestationService"] => deny()
        remedy: ask for the report from VMPL 0"#]]).await;
    let lab = Lab::new().await;
    let of_the_host = Attempt::with(|report| report.vmpl = u32::MAX);
    lab.denied_with(&of_the_host.body(), "VmplRefused").await;
}

#[tokio::test]
async fn firmware_below_the_lowest_accepted_patch_level() {
    let minimum = |minimum: MinimumTcb| {
        Lab::with(move |config| {
            config.minimum_tcb.insert("Milan".to_owned(), minimum);
        })
    };
    let lab = minimum(MinimumTcb { snp: Some(25), ..MinimumTcb::default() }).await;
    expect![[r#"
        code: TcbTooOld
        claim: x-ms-sevsnpvm-snpfw-svn
        expected: at least 25
        actual: 24
        rule: line 32 of the attestation policy: m:[type=="x-casemate-minimum-snpfw-svn"] && ![type=="x-ms-sevsnpvm-snpfw-svn", value>=m.value, issuer=="AttestationService"] => deny()
        remedy: update the host's firmware and microcode, commit them, and fetch the VCEK of the new TCB"#]].assert_eq(&shown(&lab.denied(&Attempt::honest().body()).await));
    for too_new in [
        MinimumTcb { bootloader: Some(5), ..MinimumTcb::default() },
        MinimumTcb { tee: Some(1), ..MinimumTcb::default() },
        MinimumTcb { microcode: Some(220), ..MinimumTcb::default() },
        MinimumTcb { fmc: Some(0), ..MinimumTcb::default() },
    ] {
        minimum(too_new).await.denied_with(&Attempt::honest().body(), "TcbTooOld").await;
    }
    let lab = minimum(MinimumTcb {
        bootloader: Some(4),
        tee: Some(0),
        snp: Some(24),
        microcode: Some(219),
        fmc: None,
    });
    lab.await.accepted(&Attempt::honest().body()).await;
    let others = Lab::with(|config| {
        let minimum = MinimumTcb { snp: Some(99), ..MinimumTcb::default() };
        config.minimum_tcb.insert("Genoa".to_owned(), minimum);
    });
    others.await.accepted(&Attempt::honest().body()).await;
}

#[tokio::test]
async fn a_certificate_of_an_older_tcb() {
    let old = TcbVersion { snp: 8, ..TCB };
    let lab = Lab::new().await;
    let attempt = Attempt::with(|report| report.reported_tcb = old.encode(snp::Product::Milan));
    lab.denied_with(&attempt.body(), "TcbMismatch").await;
}

#[tokio::test]
async fn the_report_of_another_chip() {
    let lab = Lab::new().await;
    let attempt = Attempt::with(|report| report.chip_id[0] ^= 1);
    lab.denied_with(&attempt.body(), "ChipIdMismatch").await;
}

#[tokio::test]
async fn runtime_data_of_another_vm() {
    let mut attempt = Attempt::honest();
    attempt.runtime = json!({"keys": [{"kty": "RSA", "kid": "the attacker's"}]});
    refused(&attempt, expect![[r#"
        code: RuntimeDataNotBound
        claim: x-ms-sevsnpvm-reportdata
        expected: 71c973e091f0e0e6216d0fe52a77468d82c52f6223b9bbafe4506966897f41c4 (SHA-256 of the runtime data) in the first half
        actual: 21147c9b5b75f281f650e5efa6ec64a7e8daed6cc88aee9c4698ac89ff951e1e
        rule: runtime data counts only if the report's REPORT_DATA holds its hash
        remedy: send the runtime data byte for byte as they were hashed for the report, with the report that was made for them"#]]).await;
}

#[tokio::test]
async fn something_in_the_second_half_of_report_data() {
    refused(
        &Attempt::with(|report| report.report_data[40] = 1),
        expect![[r#"
        code: ReportDataNotZeroFilled
        claim: x-ms-sevsnpvm-reportdata
        expected: zeros in the second half
        actual: 0000000000000000010000000000000000000000000000000000000000000000
        rule: REPORT_DATA holds the SHA-256 of the runtime data and then zeros
        remedy: ask for a report whose REPORT_DATA is the hash followed by 32 zero bytes"#]],
    )
    .await;
}

#[tokio::test]
async fn the_launch_document_of_another_vm() {
    let mut attempt = Attempt::honest();
    attempt.init_time["vmId"] = json!("ANOTHER");
    refused(&attempt, expect![[r#"
        code: InitTimeDataNotBound
        claim: x-ms-sevsnpvm-hostdata
        expected: ea135f4fa2c3f3de077ddecc144b3db6a5507d9da2a12f555f7424b62f3f6c19 (SHA-256 of the init-time data)
        actual: b0a41bcdf78cea91966c7a09c692ee2e5eabf2937260215424753d69699fc638
        rule: init-time data counts only if the report's HOST_DATA is its hash
        remedy: send the init-time data byte for byte as the VM was launched with them"#]]).await;
}

#[tokio::test]
async fn another_shape_of_the_vm_or_another_paravisor() {
    let lab = Lab::new().await;
    let measured = |cpu, vcpus, paravisor| {
        Attempt::with(|report| report.measurement = BUILD.measurement(cpu, vcpus, paravisor)).body()
    };
    let ours: Option<&[u8]> = Some(b"a paravisor");
    for (cpu, vcpus) in [("EPYC-Milan", 1), ("EPYC-Milan", 4), ("EPYC-v4", 2)] {
        let claims = lab.accepted(&measured(cpu, vcpus, ours)).await;
        assert_eq!(claims["x-casemate-reference"], json!(format!("ovmf-test/paravisor-test/{cpu}/{vcpus}")));
    }
    let cases = [
        (measured("EPYC-Milan", 3, ours), "(ovmf-test/paravisor-test with CPU model EPYC-Milan and 3 vCPUs)"),
        (
            measured("EPYC-Genoa", 64, ours),
            "(ovmf-test/paravisor-test with CPU model EPYC-Genoa and 64 vCPUs)",
        ),
        (
            measured("EPYC-Milan", 2, None),
            "(ovmf-test/paravisor-test with CPU model EPYC-Milan and 2 vCPUs without its paravisor page)",
        ),
        (measured("EPYC-Milan", 2, Some(b"another")), "(of no firmware build that is known here)"),
    ];
    for (body, what) in cases {
        let denial = lab.denied_with(&body, "LaunchMeasurementUnknown").await;
        assert!(denial["actual"].as_str().expect("a text").ends_with(what), "{denial}");
    }
}

#[tokio::test]
async fn other_firmware() {
    refused(&Attempt::with(|report| report.measurement = [0xee; 48]), expect![[r#"
        code: LaunchMeasurementUnknown
        claim: x-ms-sevsnpvm-launchmeasurement
        expected: one of ovmf-test/paravisor-test/EPYC-Milan/1, ovmf-test/paravisor-test/EPYC-Milan/2, ovmf-test/paravisor-test/EPYC-Milan/4, ovmf-test/paravisor-test/EPYC-v4/1, ovmf-test/paravisor-test/EPYC-v4/2, ovmf-test/paravisor-test/EPYC-v4/4
        actual: eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee (of no firmware build that is known here)
        rule: line 38 of the attestation policy: ![type=="x-casemate-reference", issuer=="AttestationService"] => deny()
        remedy: launch a firmware, paravisor, CPU model and vCPU count that the attestation service is configured with, or add them to its configuration"#]]).await;
}

#[tokio::test]
async fn a_service_without_reference_values_accepts_nothing() {
    let lab = Lab::with(|config| config.firmware.clear()).await;
    let denial = lab.denied_with(&Attempt::honest().body(), "LaunchMeasurementUnknown").await;
    assert_eq!(denial["expected"], "a configured launch; none is configured");
}

#[tokio::test]
async fn a_stale_revocation_list_refuses_and_a_fresh_one_does_not() {
    let now = jiff::Timestamp::now().as_second();
    for (age, code) in [(0, None), (400 * 86_400, Some("RevocationListNotCurrent"))] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("crl.der");
        std::fs::write(&path, OURS.authority.crl(now - age).expect("a list")).expect("written");
        let lab = Lab::with(|config| config.crl_files.push(path)).await;
        let body = Attempt::honest().body();
        match code {
            Some(code) => drop(lab.denied_with(&body, code).await),
            None => drop(lab.accepted(&body).await),
        }
    }
}
