//! `casemate key` as people run it, against a control plane and a key service.

use aws_lc_rs::digest;
use public_api::encoding::to_base64url;
use serde_json::{Value, json};

use crate::guest::{self, VM};
use crate::platform::Platform;

/// A facts table's value.
fn fact<'a>(table: &'a str, name: &str) -> &'a str {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {table}")).trim()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["value"].as_array().unwrap().iter();
    items.map(|item| item["kid"].as_str().unwrap().rsplit('/').next().unwrap()).collect()
}

#[test]
fn a_keys_life_from_making_to_purging() {
    let platform = Platform::with_keys();
    let disk = platform.json(&["create", "disk"]);
    assert_eq!((&disk["key"]["kty"], &disk["attributes"]["exportable"]), (&json!("RSA-HSM"), &json!(true)));
    let shown = platform.casemate(&["show", "disk"]);
    assert_eq!(fact(&shown, "operations"), "wrapKey, unwrapKey");
    assert!(fact(&shown, "release policy").contains("azure-compliant-cvm"), "{shown}");

    let of_type =
        ["--type", "EC", "--curve", "P-384", "--tag", "team=a", "--expires", "2099-01-01T00:00:00Z"];
    let made = platform.json(&[&["create", "signer"], &of_type[..]].concat());
    assert_eq!((&made["key"]["crv"], &made["tags"]), (&json!("P-384"), &json!({"team": "a"})));
    assert_eq!(made["attributes"]["exp"], 4_070_908_800_i64);
    assert_eq!(names(&platform.json(&["list"])), ["disk", "signer"]);

    let updated = platform.json(&["update", "signer", "--disable", "--clear-tags", "--ops", "sign"]);
    assert_eq!((&updated["attributes"]["enabled"], &updated["tags"]), (&json!(false), &Value::Null));
    assert_eq!(updated["key"]["key_ops"], json!(["sign"]));
    platform.json(&["update", "signer", "--enable"]);
    let rotated = platform.json(&["rotate", "signer"]);
    let versions = platform.json(&["versions", "signer"]);
    assert_eq!(versions["value"].as_array().unwrap().len(), 2);
    let old = versions["value"][0]["kid"].as_str().unwrap();
    assert_ne!(rotated["key"]["kid"], old);
    let version = old.rsplit('/').next().unwrap();
    assert_eq!(platform.json(&["show", "signer", "--key-version", version])["key"]["kid"], old);

    platform.json(&["delete", "signer"]);
    assert_eq!(names(&platform.json(&["list", "--deleted"])), ["signer"]);
    platform.json(&["recover", "signer"]);
    platform.json(&["delete", "signer"]);
    assert_eq!(platform.json(&["purge", "signer"]), json!({"name": "signer", "purged": true}));
    assert_eq!(names(&platform.json(&["list", "--deleted"])), Vec::<&str>::new());
    let (code, said) = platform.fails("operator", &["show", "signer"]);
    assert_eq!((code, said.contains("KeyNotFound")), (2, true), "{said}");

    let log = platform.json(&["log", "signer"]);
    let done: Vec<_> = log.as_array().unwrap().iter().map(|entry| &entry["detail"]["operation"]).collect();
    let expected =
        ["create", "update", "update", "rotate", "delete", "recover", "delete", "purge"].map(Value::from);
    assert_eq!(done, expected.iter().collect::<Vec<_>>());
}

#[test]
fn values_are_encrypted_wrapped_and_come_back() {
    let platform = Platform::with_keys();
    platform.json(&["create", "rsa", "--type", "RSA", "--size", "2048"]);
    platform.json(&["create", "aes", "--type", "oct-HSM", "--size", "256"]);
    let plain = platform.file("plain", "a secret of mine");
    let sealed = platform.path("sealed").display().to_string();
    platform.json(&["encrypt", "rsa", "--alg", "RSA-OAEP-256", "--file", &plain, "--to", &sealed]);
    let open = platform.json(&["decrypt", "rsa", "--alg", "RSA-OAEP-256", "--file", &sealed]);
    assert_eq!(open["value"], to_base64url(b"a secret of mine"));
    let (code, said) = platform
        .fails("operator", &["encrypt", "rsa", "--alg", "RSA-OAEP", "--file", &plain, "--to", &sealed]);
    assert_eq!((code, said.contains("exists")), (2, true), "{said}");

    let aad = to_base64url(b"beside");
    let gcm = ["--alg", "A256GCM", "--aad", &aad];
    let sealed = platform.json(&[&["encrypt", "aes", "--file", &plain], &gcm[..]].concat());
    let member = |name: &str| sealed[name].as_str().unwrap();
    let parts = ["--value", member("value"), "--iv", member("iv"), "--tag", member("tag")];
    let open = platform.casemate(&[&["decrypt", "aes"], &gcm[..], &parts[..]].concat());
    assert_eq!(fact(&open, "value"), to_base64url(b"a secret of mine"));
    let other = ["decrypt", "aes", "--alg", "A256GCM"];
    let (code, said) = platform.fails("operator", &[&other[..], &parts[..]].concat());
    assert_eq!((code, said.contains("BadParameter")), (2, true), "{said}");

    let key = to_base64url(&[7; 32]);
    let wrapped = platform.json(&["wrap", "aes", "--alg", "A256KW", "--value", &key]);
    let wrapped = wrapped["value"].as_str().unwrap();
    let open = platform.json(&["unwrap", "aes", "--alg", "A256KW", "--value", wrapped]);
    assert_eq!(open["value"], key);
}

#[test]
fn a_file_is_signed_and_another_is_not() {
    let platform = Platform::with_keys();
    platform.json(&["create", "signer", "--type", "EC"]);
    let (mine, other) = (platform.file("mine", "text"), platform.file("other", "another text"));
    let signed = platform.json(&["sign", "signer", "--alg", "ES256", "--file", &mine]);
    let signature = signed["value"].as_str().unwrap();
    let verify = ["verify", "signer", "--alg", "ES256", "--signature", signature];
    let digest = to_base64url(digest::digest(&digest::SHA256, b"text").as_ref());
    for message in [["--file", &mine], ["--digest", &digest]] {
        assert_eq!(platform.json(&[&verify[..], &message[..]].concat()), json!({"value": true}));
    }
    let (code, said) = platform.fails("operator", &[&verify[..], &["--file", &other]].concat());
    assert_eq!((code, said.contains("does not hold"), said.contains("\nhint: ")), (3, true, true), "{said}");
    let (code, said) = platform.fails("operator", &["sign", "signer", "--alg", "none", "--file", &mine]);
    assert_eq!((code, said.contains("no signature algorithm")), (2, true), "{said}");
}

#[test]
fn a_key_is_brought_along_saved_and_brought_back() {
    let platform = Platform::with_keys();
    let jwk = json!({"kty": "oct", "k": to_base64url(b"0123456789abcdef0123456789abcdef")});
    let file = platform.file("key.jwk", &jwk.to_string());
    let imported = platform.json(&["import", "mine", &file, "--hsm", "--ops", "wrapKey,unwrapKey"]);
    assert_eq!(imported["key"]["kty"], "oct-HSM");
    let key = to_base64url(&[7; 32]);
    let wrapped = platform.json(&["wrap", "mine", "--alg", "A256KW", "--value", &key]);

    let saved = platform.path("mine.backup").display().to_string();
    platform.json(&["backup", "mine", "--to", &saved]);
    platform.json(&["delete", "mine"]);
    platform.json(&["purge", "mine"]);
    assert_eq!(platform.json(&["restore", &saved])["key"]["kid"], imported["key"]["kid"]);
    let again = platform.json(&["wrap", "mine", "--alg", "A256KW", "--value", &key]);
    assert_eq!(again["value"], wrapped["value"]);

    let policy = platform.file(
        "policy.json",
        &json!({"version": "1.0.0", "anyOf": [
        {"authority": "https://attest.example", "allOf": [{"claim": "a", "equals": "b"}]}]})
        .to_string(),
    );
    let exportable = ["import", "released", &file, "--hsm", "--release-policy", &policy, "--immutable"];
    let exportable = platform.json(&exportable);
    assert_eq!(
        (&exportable["attributes"]["exportable"], &exportable["release_policy"]["immutable"]),
        (&json!(true), &json!(true))
    );

    let (code, said) = platform.fails("operator", &["import", "mine", &policy]);
    assert_eq!((code, said.contains("BadParameter")), (2, true), "{said}");
    let text = platform.file("text", "no JSON");
    let (code, said) = platform.fails("operator", &["import", "mine", &text]);
    assert_eq!((code, said.contains("is no JSON"), said.contains("\nhint: ")), (2, true, true), "{said}");
    let (code, said) = platform.fails("operator", &["restore", &text]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn a_rotation_policy_is_set_and_shown() {
    let platform = Platform::with_keys();
    platform.json(&["create", "k", "--type", "EC"]);
    let set = ["rotation-policy", "set", "k", "--rotate-after", "P90D", "--notify-before-expiry", "P30D"];
    let policy = platform.json(&[&set[..], &["--expire-after", "P1Y"]].concat());
    assert_eq!(policy, platform.json(&["rotation-policy", "show", "k"]));
    assert_eq!(policy["attributes"]["expiryTime"], "P1Y");
    let shown = platform.casemate(&["rotation-policy", "show", "k"]);
    assert_eq!(fact(&shown, "after it was made"), "P90D: Rotate");
    assert_eq!(fact(&shown, "before it expires"), "P30D: Notify");
    let (code, said) = platform.fails("operator", &["rotation-policy", "set", "k", "--rotate-after", "soon"]);
    assert_eq!((code, said.contains("BadParameter")), (2, true), "{said}");
}

#[test]
fn a_generation_is_shown_and_put_back_for_a_restored_state() {
    let platform = Platform::with_keys();
    let policy = platform.file("policy.json", &guest::policy());
    platform.json(&["create", "disk", "--release-policy", &policy]);
    assert_eq!(platform.json(&["generation", "list", "disk"]), json!({"value": []}));
    let vm = platform.guest();
    for generation in 0..=3 {
        assert_eq!(vm.release("disk", generation), "released");
    }
    assert_eq!(vm.release("disk", 1), "RollbackRefused");
    let listed = platform.json(&["generation", "list", "disk"]);
    assert_eq!(listed, json!({"value": [{"vmId": VM, "generation": 3}]}));

    let reset = ["generation", "reset", "disk", "--vm", VM];
    for (numbers, part) in [
        (&["--from", "2", "--to", "1"][..], "GenerationMoved"),
        (&["--from", "3", "--to", "3"], "GenerationNotLower"),
        (&["--to", "1"], "--from"),
        (&["--from", "3"], "--to"),
    ] {
        let (code, said) = platform.fails("operator", &[&reset[..], numbers].concat());
        assert!((2..=3).contains(&code) && said.contains(part), "{numbers:?}: {code} {said}");
    }
    assert_eq!(vm.release("disk", 1), "RollbackRefused");
    let done = platform.json(&[&reset[..], &["--from", "3", "--to", "1"]].concat());
    assert_eq!(done, json!({"vmId": VM, "generation": 1, "keys": ["disk"]}));
    let shown = platform.casemate(&["generation", "list", "disk"]);
    assert!(shown.lines().any(|line| line.split_whitespace().eq([VM, "1"])), "{shown}");
    for (generation, expected) in [(0, "RollbackRefused"), (1, "released"), (2, "released"), (3, "released")]
    {
        assert_eq!(vm.release("disk", generation), expected, "{generation}");
    }
    let log = platform.json(&["log", "disk", "--last", "100"]);
    let operations = |entry: &&Value| entry["detail"]["operation"] == "resetGeneration";
    let decided: Vec<_> =
        log.as_array().unwrap().iter().filter(operations).map(|entry| &entry["decision"]).collect();
    assert_eq!(decided, ["refused", "refused", "policyChanged"]);
}

#[test]
fn random_bytes_come_as_many_as_asked() {
    let platform = Platform::with_keys();
    let file = platform.path("random");
    platform.json(&["random", "100", "--to", &file.display().to_string()]);
    assert_eq!(std::fs::read(&file).unwrap().len(), 100);
    assert_ne!(platform.casemate(&["random", "32"]), platform.casemate(&["random", "32"]));
    let (code, said) = platform.fails("operator", &["random", "129"]);
    assert_eq!((code, said.contains("129")), (2, true), "{said}");
}

#[test]
fn what_makes_no_sense_is_told_before_anything_is_sent() {
    let platform = Platform::with_keys();
    for (arguments, part) in [
        (&["show", "../keys"][..], "letters, digits and hyphens"),
        (&["create", "k", "--type", "EC", "--expires", "tomorrow"], "expected a time such as"),
        (&["create", "k", "--tag", "=x"], "expected name=value"),
        (&["update", "k"], "there is nothing to change"),
        (&["encrypt", "k", "--alg", "RSA1_5", "--value", "*"], "not base64"),
        (&["encrypt", "k", "--alg", "RSA1_5"], "--value"),
        (&["create", "k", "--release-policy", "no-such-file"], "no-such-file cannot be read"),
    ] {
        let (code, said) = platform.fails("operator", arguments);
        assert_eq!((code, said.contains(part)), (2, true), "{arguments:?}: {said}");
    }
    assert_eq!(platform.json(&["log"]), json!([]));
}

#[test]
fn attack_a_stranger_reads_or_changes_keys() {
    let platform = Platform::with_keys();
    platform.json(&["create", "k", "--type", "EC"]);
    let file = platform.file("file", "text");
    for arguments in [
        &["list"][..],
        &["show", "k"],
        &["create", "k", "--type", "EC"],
        &["delete", "k"],
        &["sign", "k", "--alg", "ES256", "--file", &file],
        &["log"],
        &["generation", "list", "k"],
        &["generation", "reset", "k", "--vm", VM, "--from", "1", "--to", "0"],
    ] {
        let (code, said) = platform.fails("stranger", arguments);
        assert_eq!(code, 3, "{arguments:?}: {said}");
    }
}
