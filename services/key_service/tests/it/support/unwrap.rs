//! What a client does with a release answer, written apart from the service and from its primitives' types: the JWS is
//! checked under its certificate chain, the key unwrapped, and its modulus read from the PKCS#8 bytes.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rsa::{
    KeyPair, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OaepPrivateDecryptingKey,
    PrivateDecryptingKey,
};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::{Decode as _, Encode as _};
use serde_json::Value;
use x509_cert::Certificate;

use super::issuer::{decoded, encoded, numbers};

/// Header and payload of a release answer whose signature and chain hold.
pub fn verified(jws: &str) -> (Value, Value) {
    let parts: Vec<&str> = jws.split('.').collect();
    assert_eq!(parts.len(), 3);
    let header: Value = serde_json::from_slice(&decoded(parts[0])).expect("header");
    assert_eq!(header["alg"], "RS256");
    let chain: Vec<Certificate> = header["x5c"].as_array().expect("x5c").iter().map(certificate).collect();
    let message = format!("{}.{}", parts[0], parts[1]);
    check(&chain[0], message.as_bytes(), &decoded(parts[2]));
    for pair in chain.windows(2) {
        assert_eq!(pair[0].tbs_certificate().issuer(), pair[1].tbs_certificate().subject());
        let signed = pair[0].tbs_certificate().to_der().expect("DER");
        check(&pair[1], &signed, pair[0].signature().as_bytes().expect("whole bytes"));
    }
    (header, serde_json::from_slice(&decoded(parts[1])).expect("payload"))
}

fn certificate(text: &Value) -> Certificate {
    let der = STANDARD.decode(text.as_str().expect("a string")).expect("standard base64");
    Certificate::from_der(&der).expect("a certificate")
}

fn check(signer: &Certificate, message: &[u8], signature: &[u8]) {
    let key =
        signer.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes().expect("bytes");
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
        .verify(message, signature)
        .expect("the signature holds");
}

/// The modulus (base64url) of the private key in a verified payload.
pub fn released_modulus(payload: &Value, transfer: &KeyPair) -> String {
    let pkcs8 = released_pkcs8(payload, transfer);
    numbers(&KeyPair::from_pkcs8(&pkcs8).expect("a private key")).0
}

/// The private key in a verified payload.
pub fn released_pkcs8(payload: &Value, transfer: &KeyPair) -> Vec<u8> {
    let bundle = payload["response"]["key"]["key"]["key_hsm"].as_str().expect("key_hsm");
    let wrapped: Value = serde_json::from_slice(&decoded(bundle)).expect("JSON");
    let oaep = match wrapped["header"]["enc"].as_str().expect("enc") {
        "CKM_RSA_AES_KEY_WRAP" => &OAEP_SHA1_MGF1SHA1,
        "RSA_AES_KEY_WRAP_256" => &OAEP_SHA256_MGF1SHA256,
        "RSA_AES_KEY_WRAP_384" => &OAEP_SHA384_MGF1SHA384,
        other => panic!("unknown enc {other}"),
    };
    let ciphertext = decoded(wrapped["ciphertext"].as_str().expect("ciphertext"));
    let (block, wrapped_key) = ciphertext.split_at(transfer.public_modulus_len());
    let pkcs8: Pkcs8V1Der<'_> = transfer.as_der().expect("PKCS#8");
    let key = PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref()).expect("the transfer key");
    let key = OaepPrivateDecryptingKey::new(key).expect("the transfer key");
    let mut kek = vec![0; key.min_output_size()];
    let kek = key.decrypt(oaep, block, &mut kek, None).expect("the block decrypts");
    assert_eq!(kek.len(), 32);
    let kek = AesKek::new(&AES_256, kek).expect("32 bytes");
    let mut output = vec![0; wrapped_key.len()];
    kek.unwrap_with_padding(wrapped_key, &mut output).expect("the integrity check holds").to_vec()
}

/// `key.n` of a bundle.
pub fn modulus(bundle: &Value) -> String {
    let n = bundle["key"]["n"].as_str().expect("n").to_owned();
    assert_eq!(encoded(decoded(&n)), n);
    n
}
