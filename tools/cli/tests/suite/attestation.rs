//! `casemate attestation` as people run it, against a control plane and an attestation service.

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::platform::Platform;

const ONE: &str = "version=1.0; authorizationrules { => permit(); };\n";
const TWO: &str =
    "version=1.0; authorizationrules { [type==\"x-ms-sevsnpvm-vmpl\", value==0] => permit(); };\n";

/// A key and its certificate in files, named after `name`.
fn signer(platform: &Platform, name: &str, key: &KeyPair) -> [String; 2] {
    let certificate = CertificateParams::default().self_signed(key).unwrap();
    let key = platform.file(&format!("{name}.key"), &key.serialize_pem());
    [key, platform.file(&format!("{name}.pem"), &certificate.pem())]
}

fn states(history: &Value) -> Vec<(u64, &str)> {
    let version = |one: &'_ Value| one["version"].as_u64().unwrap();
    history.as_array().unwrap().iter().map(|one| (version(one), one["state"].as_str().unwrap())).collect()
}

#[test]
fn a_provider_and_its_policy_from_making_to_deleting() {
    let platform = Platform::up();
    let made = platform.json(&["provider", "create", "team-a"]);
    assert_eq!(made["properties"]["status"], "Ready");
    let list = platform.casemate(&["provider", "list"]);
    assert!(list.contains("team-a") && list.contains("default") && list.contains("AAD"), "{list}");

    let of = ["--provider", "team-a"];
    let policy = |arguments: &[&str]| platform.json(&[&["policy"], arguments, &of[..]].concat());
    let shipped = policy(&["show"])["policy"].as_str().unwrap().to_owned();
    assert!(shipped.contains("authorizationrules"), "{shipped}");
    let (one, two) = (platform.file("one.txt", ONE), platform.file("two.txt", TWO));
    assert!(policy(&["check", &one])["policyHash"].is_string());
    assert_eq!(policy(&["dry-run", &one])["evaluated"], 0);
    policy(&["stage", &one]);
    assert_eq!(states(&policy(&["history"])), [(1, "staged")]);
    assert_eq!(states(&policy(&["promote"])), [(1, "active")]);
    assert_eq!(policy(&["set", &two])["x-ms-policy-result"], "Updated");
    assert_eq!(platform.casemate(&["policy", "show", "--provider", "team-a"]), TWO.trim_end());
    let difference = platform.casemate(&["policy", "diff", "1", "2", "--provider", "team-a"]);
    assert!(difference.contains(&format!("-{}", ONE.trim_end())), "{difference}");
    assert_eq!(states(&policy(&["rollback", "1"])), [(2, "former"), (1, "active")]);
    let history = platform.casemate(&["policy", "history", "--provider", "team-a"]);
    assert!(history.trim_start().starts_with("VERSION") && history.contains("former"), "{history}");
    policy(&["stage", &two]);
    assert_eq!(states(&policy(&["withdraw"])), [(3, "former"), (2, "former"), (1, "active")]);
    assert_eq!(policy(&["reset"])["x-ms-policy-result"], "Removed");
    assert_eq!(policy(&["show"])["policy"], shipped);
    assert_eq!(platform.json(&["policy", "show", "--type", "tpm"])["type"], "Tpm");

    let keys = platform.json(&["signer", "rotate-token-key", "--provider", "team-a"]);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    platform.casemate(&["provider", "delete", "team-a"]);
    let (code, said) = platform.fails("operator", &["provider", "show", "team-a"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("ResourceNotFound"), "{said}");
}

#[test]
fn an_isolated_provider_is_administered_by_its_signers() {
    let platform = Platform::up();
    let [key, certificate] =
        signer(&platform, "first", &KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap());
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let [second_key, second] = signer(&platform, "second", &rsa);
    let made = platform.json(&["provider", "create", "team-b", "--policy-signer", &certificate]);
    assert_eq!(made["properties"]["trustModel"], "Isolated");
    let one = platform.file("one.txt", ONE);
    let of = ["--provider", "team-b"];
    let (code, said) = platform.fails("operator", &[&["policy", "set", &one], &of[..]].concat());
    assert_eq!(code, 3, "{said}");
    for part in ["PolicyNotSigned", "expected a policy signed by", "found no signature", "rule: ", "\nhint: "]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let signed = ["--signed-by", &key, "--certificate", &certificate];
    let set = platform.json(&[&["policy", "set", &one], &signed[..], &of[..]].concat());
    assert!(set["x-ms-policy-signer"].is_object(), "{set}");
    let added = platform.json(&[&["signer", "add", &second], &signed[..], &of[..]].concat());
    assert_eq!(added["x-ms-policycertificates-result"], "IsPresent");
    assert_eq!(
        platform.json(&["signer", "list", "--provider", "team-b"])["keys"].as_array().unwrap().len(),
        2
    );
    let signed = ["--signed-by", &second_key, "--certificate", &second];
    platform.casemate(&[&["signer", "remove", &certificate], &signed[..], &of[..]].concat());
    platform.casemate(&[&["policy", "reset"], &signed[..], &of[..]].concat());
    let mixed = ["--signed-by", &key, "--certificate", &second];
    let (code, said) = platform.fails("operator", &[&["policy", "set", &one], &mixed[..], &of[..]].concat());
    assert_eq!((code, said.contains("PolicySignatureInvalid")), (3, true), "{said}");
    let (code, said) =
        platform.fails("operator", &["policy", "set", &one, "--signed-by", &key, "--provider", "team-b"]);
    assert_eq!((code, said.contains("--certificate")), (2, true), "{said}");
    let (code, said) = platform.fails(
        "operator",
        &["policy", "set", &one, "--signed-by", &one, "--certificate", &second, "--provider", "team-b"],
    );
    assert_eq!((code, said.contains("no RSA, P-256 or P-384 key")), (2, true), "{said}");
}

/// A signed document may come from elsewhere, where the key is.
#[test]
fn a_jws_is_sent_as_it_is() {
    let platform = Platform::up();
    let shown = platform.json(&["policy", "show"]);
    let jws = platform.file("policy.jws", shown["jws"].as_str().unwrap());
    let set = platform.json(&["policy", "set", &jws]);
    assert_eq!(set["x-ms-policy-result"], "Updated");
    assert_eq!(platform.json(&["policy", "show"])["jws"], shown["jws"]);
}

#[test]
fn a_policy_that_cannot_be_read_is_refused_with_its_place() {
    let platform = Platform::up();
    let broken = platform.file("broken.txt", "version=1.0; authorizationrules { => perhaps(); };");
    for verb in ["check", "dry-run", "stage", "set"] {
        let (code, said) = platform.fails("operator", &["policy", verb, &broken]);
        assert_eq!(code, 2, "{verb}: {said}");
        assert!(said.contains("line 1, column 38"), "{verb}: {said}");
    }
    assert_eq!(platform.json(&["policy", "history"]), json!([]));
    let (code, said) = platform.fails("operator", &["policy", "check", "no-such-file"]);
    assert_eq!((code, said.contains("\nhint: ")), (2, true), "{said}");
    let (code, said) = platform.fails("operator", &["policy", "show", "--type", "SgxEnclave"]);
    assert_eq!((code, said.contains("SevSnpVm, AzureGuest, Tpm")), (2, true), "{said}");
    let (code, said) = platform.fails("operator", &["policy", "show", "--provider", "../policies"]);
    assert_eq!((code, said.contains("letters, digits and hyphens")), (2, true), "{said}");
}

#[test]
fn attack_a_stranger_changes_what_is_not_theirs() {
    let platform = Platform::up();
    platform.casemate(&["provider", "create", "team-a"]);
    let one = platform.file("one.txt", ONE);
    let table = platform.file("table.jws", "a.b.c");
    for arguments in [
        &["policy", "set", &one, "--provider", "team-a"][..],
        &["policy", "history", "--provider", "team-a"],
        &["policy", "set", &one],
        &["signer", "rotate-token-key", "--provider", "team-a"],
        &["minimum-tcb", "set", &table],
        &["collateral", "export"],
    ] {
        let (code, said) = platform.fails("stranger", arguments);
        assert_eq!((code, said.contains("RoleMissing")), (3, true), "{arguments:?}: {said}");
    }
    let (code, said) = platform.fails("stranger", &["provider", "create", "team-a"]);
    assert_eq!((code, said.contains("NameNotAvailable")), (2, true), "{said}");
}

#[test]
fn collateral_patch_levels_and_reference_values_are_shown_and_exchanged() {
    let platform = Platform::up();
    let status = platform.casemate(&["collateral", "status"]);
    assert!(status.contains("Milan") && status.contains("no revocation list"), "{status}");
    let bundle = platform.path("bundle.json").display().to_string();
    platform.casemate(&["collateral", "export", "--file", &bundle]);
    assert_eq!(platform.json(&["collateral", "import", &bundle])["vceks"], 0);
    let damaged = platform.file("damaged.json", r#"{"version": 1, "colour": "red"}"#);
    let (code, said) = platform.fails("operator", &["collateral", "import", &damaged]);
    assert_eq!((code, said.contains("colour")), (2, true), "{said}");
    let (code, said) = platform.fails("operator", &["collateral", "prefetch"]);
    assert_eq!((code, said.contains("--product")), (2, true), "{said}");

    assert_eq!(platform.json(&["minimum-tcb", "show"])["table"], Value::Null);
    let table = json!({
        "document": "minimum-tcb", "sequence": 1, "issuedOn": "2026-01-15T00:00:00Z",
        "products": {"Milan": [{"bulletin": "AMD-SB-0000", "date": "2026-01-15", "minimum": {"snp": 1}}]},
    });
    let table = platform.file("table.json", &table.to_string());
    assert_eq!(platform.json(&["minimum-tcb", "dry-run", &table])["evaluated"], 0);
    let (code, said) = platform.fails("operator", &["minimum-tcb", "set", &table]);
    assert_eq!((code, said.contains("Document")), (3, true), "an unsigned table is refused: {said}");

    let list = platform.casemate(&["reference-values", "list"]);
    assert!(list.contains("a launch") && list.contains(&"ab".repeat(48)), "{list}");
    let document = platform.path("references.jws").display().to_string();
    platform.casemate(&["reference-values", "export", "--file", &document]);
    let (code, said) = platform.fails("operator", &["reference-values", "import", &document]);
    assert_eq!((code, said.contains("DocumentSignerUnknown")), (3, true), "no key is pinned: {said}");
}
