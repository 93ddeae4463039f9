//! The offline `verify` command: the same verdicts, and tokens that do not belong to their evidence.

use std::path::PathBuf;
use std::process::Command;

use public_api::attestation::EvidenceBundle;
use public_api::attestation_policy::TokenAlgorithm;
use serde_json::{Value, json};

use crate::support::*;
use crate::{minimum_tcb, references};

/// A bundle as the control plane stores it, and the files to verify it with.
struct Case {
    lab: Lab,
    bundle: EvidenceBundle,
}

impl Case {
    async fn new() -> Self {
        Self::of(Lab::new().await, &Attempt::honest()).await
    }

    async fn of(lab: Lab, attempt: &Attempt) -> Self {
        let (_, answer) = lab.attest(&attempt.body()).await;
        let (_, certs) = lab.get("/certs").await;
        std::fs::write(lab.directory.path().join("jwks.json"), certs.to_string()).expect("written");
        let build = BUILD.config();
        let reference = format!(
            "[[firmware]]\nname = {:?}\nfirmware = {:?}\nparavisor = {:?}\nvars_template = {:?}\ncpu_models = {:?}\nvcpus = {:?}\n",
            build.name, build.firmware, build.paravisor, build.vars_template, build.cpu_models, build.vcpus
        );
        std::fs::write(lab.directory.path().join("reference.toml"), reference).expect("written");
        let bundle = EvidenceBundle {
            version: 1,
            snp_report: attempt.machine.sign(&attempt.report),
            certificate_chain: attempt.chain.clone(),
            runtime_data: attempt.runtime.to_string().into_bytes(),
            init_time_data: attempt.init_time.to_string().into_bytes(),
            token: answer["token"].as_str().expect("a token").to_owned(),
        };
        Self { lab, bundle }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.directory.path().join(name)
    }

    /// Exit status and result of the program.
    fn verify(&self, arguments: &[(&str, PathBuf)]) -> (i32, Value) {
        let bundle = self.path("bundle.json");
        std::fs::write(&bundle, serde_json::to_vec(&self.bundle).expect("JSON")).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-attestation"));
        command.arg("verify").arg("--bundle").arg(bundle);
        for (name, value) in arguments {
            command.arg(name).arg(value);
        }
        let output = command.output().expect("the program runs");
        let result = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| json!({"stderr": String::from_utf8_lossy(&output.stderr)}));
        (output.status.code().expect("an exit status"), result)
    }

    fn verify_with_everything(&self) -> (i32, Value) {
        self.verify(&[
            ("--development-root", OURS.root()),
            ("--reference", self.path("reference.toml")),
            ("--jwks", self.path("jwks.json")),
        ])
    }

    fn refused(&self, code: &str) -> Value {
        let (status, result) = self.verify_with_everything();
        assert_eq!(
            (status, &result["verified"], &result["denial"]["code"]),
            (1, &json!(false), &json!(code))
        );
        result
    }
}

#[tokio::test]
async fn an_honest_bundle_verifies_claim_by_claim() {
    let case = Case::new().await;
    let (status, result) = case.verify_with_everything();
    assert_eq!(status, 0, "{result}");
    assert_eq!((&result["verified"], &result["denial"]), (&json!(true), &Value::Null));
    assert_eq!(result["tokenSignature"], "verified");
    assert_eq!(result["claims"]["x-casemate-trust-root"], "development");
    assert_eq!(result["claims"]["x-ms-inittime"]["vmId"], VM_ID);
    let comparison = result["comparison"].as_array().expect("a list");
    assert!(comparison.len() > 30);
    let (status, result) =
        case.verify(&[("--development-root", OURS.root()), ("--reference", case.path("reference.toml"))]);
    assert_eq!((status, &result["tokenSignature"]), (0, &json!("notChecked")));
}

#[tokio::test]
async fn the_name_of_a_boot_chain_is_the_services_to_state() {
    let lab = Lab::new().await;
    let chain = json!({
        "loader": "systemd-boot", "entry": "debian.conf", "version": "6.12.1",
        "pcrs": {"4": "04".repeat(32), "7": "07".repeat(32)},
    });
    let reference = json!({"name": "debian-13", "bootChain": chain});
    assert_eq!(lab.put("/bootReferences", &reference.to_string(), ADMIN_TOKEN).await.0, 200);
    let mut attempt = Attempt::honest();
    attempt.runtime["boot-chain"] = chain;
    attempt.bind();
    let (status, result) = Case::of(lab, &attempt).await.verify_with_everything();
    assert_eq!((status, &result["verified"]), (0, &json!(true)), "{result}");
    let comparison = result["comparison"].as_array().expect("a list");
    let named = comparison.iter().find(|claim| claim["claim"] == "x-casemate-boot-reference").expect("it");
    assert_eq!((&named["token"], &named["result"]), (&json!("debian-13"), &json!("statedByService")));
}

#[tokio::test]
async fn development_evidence_is_refused_without_its_root() {
    let case = Case::new().await;
    let (status, result) = case.verify(&[("--reference", case.path("reference.toml"))]);
    assert_eq!((status, &result["denial"]["code"]), (1, &json!("RootNotTrusted")));
}

#[tokio::test]
async fn a_launch_is_refused_without_reference_values() {
    let case = Case::new().await;
    let (status, result) = case.verify(&[("--development-root", OURS.root())]);
    assert_eq!((status, &result["denial"]["code"]), (1, &json!("LaunchMeasurementUnknown")));
}

#[tokio::test]
async fn a_token_in_elliptic_curves_is_checked_with_the_services_keys_too() {
    let lab = Lab::with(|config| config.token_algorithm = TokenAlgorithm::ES384).await;
    let mut case = Case::of(lab, &Attempt::honest()).await;
    let (status, result) = case.verify_with_everything();
    assert_eq!((status, &result["tokenSignature"]), (0, &json!("verified")), "{result}");
    let signature = case.bundle.token.rfind('.').expect("three parts");
    let other = if &case.bundle.token[signature + 1..=signature + 1] == "A" { "B" } else { "A" };
    case.bundle.token.replace_range(signature + 1..=signature + 1, other);
    case.refused("TokenSignatureInvalid");
}

#[tokio::test]
async fn a_signed_table_of_minimum_patch_levels_binds_offline_too() {
    let case = Case::new().await;
    let key = minimum_tcb::key(&rcgen::PKCS_ECDSA_P384_SHA384);
    std::fs::write(case.path("signer.pem"), key.public_key_pem()).expect("written");
    let under = |minimum: Value| {
        let table = minimum_tcb::signed(&minimum_tcb::table(1, &minimum), &key);
        std::fs::write(case.path("table.jws"), table).expect("written");
        case.verify(&[
            ("--development-root", OURS.root()),
            ("--reference", case.path("reference.toml")),
            ("--minimum-tcb", case.path("table.jws")),
            ("--minimum-tcb-signer", case.path("signer.pem")),
        ])
    };
    assert_eq!(under(json!({"snp": 24})).0, 0);
    let (status, result) = under(json!({"snp": 25}));
    assert_eq!((status, &result["denial"]["code"]), (1, &json!("TcbBelowMinimum")));
}

#[tokio::test]
async fn a_services_signed_reference_values_stand_for_its_firmware_files() {
    let case = Case::new().await;
    std::fs::write(case.path("values.jws"), references::exported(&case.lab).await).expect("written");
    let with = |signer: PathBuf| {
        case.verify(&[
            ("--development-root", OURS.root()),
            ("--reference-values", case.path("values.jws")),
            ("--reference-signer", signer),
        ])
    };
    let (status, result) = with(case.path("jwks.json"));
    assert_eq!((status, &result["verified"]), (0, &json!(true)), "{result}");
    let stranger = minimum_tcb::key(&rcgen::PKCS_ECDSA_P384_SHA384);
    std::fs::write(case.path("stranger.pem"), stranger.public_key_pem()).expect("written");
    let (status, result) = with(case.path("stranger.pem"));
    let problem = result["stderr"].as_str().expect("a text");
    assert!(status == 2 && problem.contains("DocumentSignerUnknown"), "{status} {problem}");
}

#[tokio::test]
async fn evidence_that_was_altered_in_the_bundle() {
    let mut case = Case::new().await;
    case.bundle.snp_report[0x90] ^= 1;
    case.refused("ReportSignatureInvalid");
    let mut case = Case::new().await;
    case.bundle.runtime_data = b"{}".to_vec();
    case.refused("RuntimeDataNotBound");
    let mut case = Case::new().await;
    case.bundle.init_time_data = b"{}".to_vec();
    case.refused("InitTimeDataNotBound");
}

#[tokio::test]
async fn the_token_of_another_vm() {
    let mut case = Case::new().await;
    let mut other = Attempt::honest();
    other.init_time["vmId"] = json!("ANOTHER");
    other.bind();
    let (_, answer) = case.lab.attest(&other.body()).await;
    case.bundle.token = answer["token"].as_str().expect("a token").to_owned();
    let result = case.refused("TokenDoesNotMatchEvidence");
    let differs =
        result["comparison"].as_array().expect("a list").iter().filter(|claim| claim["result"] == "differs");
    let differs: Vec<&Value> = differs.map(|claim| &claim["claim"]).collect();
    assert_eq!(differs, [&json!("x-ms-inittime"), &json!("x-ms-sevsnpvm-hostdata")]);
}

#[tokio::test]
async fn a_token_signed_by_a_stranger_or_not_at_all() {
    let case = Case::new().await;
    let other = Lab::new().await;
    let (_, answer) = other.attest(&Attempt::honest().body()).await;
    let unsigned = {
        let mut parts = case.bundle.token.split('.');
        format!("{}.{}.", parts.next().expect("a header"), parts.next().expect("a payload"))
    };
    let strangers = answer["token"].as_str().expect("a token").to_owned();
    let mut case = case;
    for token in [strangers, unsigned, String::new()] {
        case.bundle.token = token;
        case.refused("TokenSignatureInvalid");
    }
}

#[tokio::test]
async fn input_that_cannot_be_read_is_another_exit_status() {
    let mut case = Case::new().await;
    case.bundle.version = 2;
    let (status, result) = case.verify_with_everything();
    assert_eq!(status, 2);
    assert!(
        result["stderr"].as_str().expect("a text").contains("evidence bundle version 2 is not known"),
        "{result}"
    );
    let (status, _) = case.verify(&[("--development-root", case.path("missing"))]);
    assert_eq!(status, 2);
}
