//! Private keys made by the test, as JSON Web Keys.

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, EcPrivateKeyBin, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};
use der::asn1::{AnyRef, OctetStringRef, UintRef};
use der::{Decode as _, Sequence};
use serde_json::{Value, json};

use super::issuer::encoded;

#[derive(Sequence)]
struct PrivateKeyInfo<'a> {
    version: u8,
    algorithm: AnyRef<'a>,
    key: &'a OctetStringRef,
}

#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    n: UintRef<'a>,
    e: UintRef<'a>,
    d: UintRef<'a>,
    p: UintRef<'a>,
    q: UintRef<'a>,
    dp: UintRef<'a>,
    dq: UintRef<'a>,
    qi: UintRef<'a>,
}

/// Every member of an RSA private key in PKCS#8, by its name in a JWK.
pub fn rsa_members(pkcs8: &[u8]) -> Value {
    let info = PrivateKeyInfo::from_der(pkcs8).expect("PKCS#8");
    assert_eq!(info.version, 0);
    assert!(!info.algorithm.value().is_empty());
    let key = RsaPrivateKey::from_der(info.key.as_bytes()).expect("PKCS#1");
    assert_eq!(key.version, 0);
    let text = |number: UintRef<'_>| encoded(number.as_bytes());
    json!({
        "kty": "RSA", "n": text(key.n), "e": text(key.e), "d": text(key.d), "p": text(key.p), "q": text(key.q),
        "dp": text(key.dp), "dq": text(key.dq), "qi": text(key.qi),
    })
}

/// A new RSA private key.
pub fn rsa(size: KeySize) -> Value {
    let pair = KeyPair::generate(size).expect("random numbers");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("PKCS#8");
    rsa_members(der.as_ref())
}

/// A new private key on a curve.
pub fn ec(crv: &str) -> Value {
    let algorithm = match crv {
        "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
        "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
        "P-521" => &ECDSA_P521_SHA512_FIXED_SIGNING,
        "P-256K" => &ECDSA_P256K1_SHA256_FIXED_SIGNING,
        other => panic!("unknown curve {other}"),
    };
    let pair = EcdsaKeyPair::generate(algorithm).expect("random numbers");
    let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().expect("a scalar");
    let (x, y) = pair.public_key().as_ref()[1..].split_at(scalar.as_ref().len());
    json!({"kty": "EC", "crv": crv, "d": encoded(scalar.as_ref()), "x": encoded(x), "y": encoded(y)})
}

/// A symmetric key.
pub fn oct(key: &[u8]) -> Value {
    json!({"kty": "oct", "k": encoded(key)})
}
