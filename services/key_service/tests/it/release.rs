//! Release that works.

use serde_json::json;

use crate::support::issuer::{attestation, transfer_key};
use crate::support::unwrap::{modulus, released_modulus, verified};
use crate::support::vault::{RELEASE_USER, Vault, platform_conditions};

#[tokio::test]
async fn a_released_key_unwraps_to_the_created_one_in_all_three_wrappings() {
    let vault = Vault::new().await;
    let created = vault.exportable("platform", platform_conditions()).await;
    for (generation, enc) in
        ["CKM_RSA_AES_KEY_WRAP", "RSA_AES_KEY_WRAP_256", "RSA_AES_KEY_WRAP_384"].iter().enumerate()
    {
        let token = attestation().token(&vault.evidence(generation as u64));
        let body = json!({"target": token, "enc": enc, "nonce": "from the caller"}).to_string();
        let answer = vault
            .send("POST", "/keys/platform//release", Some(&vault.caller(&[RELEASE_USER])), body)
            .await
            .ok();
        let (header, payload) = verified(answer["value"].as_str().unwrap());
        assert_eq!(header["typ"], "JWT");
        assert_eq!(payload["request"]["enc"], *enc);
        assert_eq!(payload["request"]["nonce"], "from the caller");
        assert_eq!(payload["request"]["api-version"], "7.4");
        assert_eq!(payload["request"]["kid"], created["key"]["kid"]);
        assert_eq!(payload["response"]["key"]["key"]["kid"], created["key"]["kid"]);
        assert_eq!(released_modulus(&payload, transfer_key()), modulus(&created));
    }
}
