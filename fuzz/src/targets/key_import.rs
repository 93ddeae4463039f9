//! Private JSON Web Keys that somebody imports.

use key_service::check;

use crate::Target;
use crate::support::data;

pub(crate) const TARGET: Target = Target {
    name: "key_import",
    run,
    seeds,
    words: &[
        b"\"key\":{",
        b"\"kty\":\"RSA\"",
        b"\"kty\":\"EC-HSM\"",
        b"\"kty\":\"oct\"",
        b"\"Hsm\":true",
        b"\"crv\":\"P-256\"",
        b"\"crv\":\"P-521\"",
        b"\"key_ops\":[",
        b"\"d\":\"AQ\"",
        b"\"e\":\"AQAB\"",
        b"\"qi\":",
        b"\"attributes\":{\"exportable\":true}",
    ],
    max_len: 8192,
};

/// A body of `PUT /keys/{name}`.
fn run(input: &[u8]) {
    let outcome = check::import(input);
    assert_eq!(outcome.is_ok(), check::import(input).is_ok(), "the same body, the same decision");
    let Ok(key) = outcome else { return };
    assert!(!key.key_ops.is_empty(), "a key can do something");
    assert!(
        !key.exportable || (key.has_policy && key.kty.ends_with("-HSM")),
        "an exportable key has a policy"
    );
    assert_eq!(key.exportable, key.has_policy);
    if key.kty.starts_with("EC") {
        assert!(key.key_ops.iter().all(|op| op == "sign" || op == "verify"));
    }
}

/// A key whose factors are not prime; the base point of P-256, whose scalar is 1; symmetric keys.
fn seeds() -> Vec<Vec<u8>> {
    let composite = data("services/key_service/tests/it/support/composite.json");
    let composite = format!(r#"{{"key":{}}}"#, String::from_utf8_lossy(&composite));
    let point = r#""x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU""#;
    let curve = format!(r#"{{"key":{{"kty":"EC","crv":"P-256","d":"AQ",{point}}},"Hsm":true}}"#);
    let policy = "eyJ2ZXJzaW9uIjoiMS4wLjAiLCJhbnlPZiI6W3siYXV0aG9yaXR5IjoiaHR0cHM6Ly9hLmV4YW1wbGUiLCJhbGxPZiI6W3siY2xhaW0iOiJhIiwiZXF1YWxzIjoxfV19XX0";
    let symmetric = format!(
        r#"{{"key":{{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZg","key_ops":["wrapKey"]}},"hsm":true,"attributes":{{"exportable":true}},"release_policy":{{"data":"{policy}"}}}}"#
    );
    [composite, curve, symmetric].map(String::into_bytes).to_vec()
}
