//! Making keys in the token, and bringing keys into it.

use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use der::Decode as _;
use der::asn1::OctetStringRef;

use super::error::{Doing as _, HsmError};
use super::kek::{Kek, KekUse};
use super::mechanisms::Purpose;
use super::object::{self, KeyId, NewKey};
use super::pool::Connection;
use crate::crypto::ec::{Curve, EcPoint};
use crate::crypto::kind::{Family, KeySpec, PublicKey};
use crate::crypto::oct::OctBits;
use crate::crypto::rsa::{Bits, PublicParts};

/// 65537, big endian.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// Makes a key. The public half is a session object, which goes with the session: it is stored in the database.
pub fn generate(
    connection: &Connection<'_>,
    spec: KeySpec,
    new: &NewKey,
) -> Result<(KeyId, PublicKey), HsmError> {
    let id = KeyId::random();
    let (handle, public) = match spec {
        KeySpec::Rsa(bits) => rsa(connection, bits, id, new)?,
        KeySpec::Ec(curve) => ec(connection, curve, id, new)?,
        KeySpec::Oct(bits) => (oct(connection, bits, id, new)?, PublicKey::Oct(bits)),
    };
    protected(connection, handle, id, new)?;
    Ok((id, public))
}

/// What is not as protected as it was asked for does not stay.
fn protected(
    connection: &Connection<'_>,
    handle: ObjectHandle,
    id: KeyId,
    new: &NewKey,
) -> Result<(), HsmError> {
    object::check_protected(connection, handle, id, new.extractable).inspect_err(|_| {
        // The refusal is what is told; an object that stays behind has the label of one that was only made.
        let _ = connection.session.destroy_object(handle);
    })
}

fn rsa(
    connection: &Connection<'_>,
    bits: Bits,
    id: KeyId,
    new: &NewKey,
) -> Result<(ObjectHandle, PublicKey), HsmError> {
    let size = bits.number();
    let mechanism = MechanismType::RSA_PKCS_KEY_PAIR_GEN;
    connection.token.mechanisms.require_size(mechanism, Purpose::GeneratePair, size as usize)?;
    let public = [
        Attribute::Token(false),
        Attribute::Verify(true),
        Attribute::Encrypt(true),
        Attribute::ModulusBits(u64::from(size).into()),
        Attribute::PublicExponent(EXPONENT.to_vec()),
    ];
    let private = new.template(id, Family::Rsa);
    let (public, private) = connection
        .session
        .generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private)
        .doing("make an RSA key")?;
    let asked = [AttributeType::Modulus, AttributeType::PublicExponent];
    let seen = connection.session.get_attributes(public, &asked).doing("read a public key")?;
    let [Attribute::Modulus(modulus), Attribute::PublicExponent(exponent)] = seen.as_slice() else {
        return Err(HsmError::Answer("an RSA public key"));
    };
    let parts = PublicParts { modulus: stripped(modulus), exponent: stripped(exponent) };
    if parts.bits() != size as usize {
        return Err(HsmError::Answer("an RSA public key of another size"));
    }
    Ok((private, PublicKey::Rsa(parts)))
}

fn stripped(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn ec(
    connection: &Connection<'_>,
    curve: Curve,
    id: KeyId,
    new: &NewKey,
) -> Result<(ObjectHandle, PublicKey), HsmError> {
    connection.token.mechanisms.require(MechanismType::ECC_KEY_PAIR_GEN, Purpose::GeneratePair)?;
    let parameters = Attribute::EcParams(curve.parameters().to_vec());
    let public = [Attribute::Token(false), Attribute::Verify(true), parameters];
    let private = new.template(id, Family::Ec);
    let (public, private) = connection
        .session
        .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
        .doing("make an EC key on this curve (CKM_EC_KEY_PAIR_GEN)")?;
    let seen =
        connection.session.get_attributes(public, &[AttributeType::EcPoint]).doing("read a public key")?;
    let [Attribute::EcPoint(point)] = seen.as_slice() else { return Err(HsmError::Answer("a point")) };
    Ok((private, PublicKey::Ec(read_point(curve, point)?)))
}

/// CKA_EC_POINT is an OCTET STRING around the point; older tokens leave that away.
fn read_point(curve: Curve, bytes: &[u8]) -> Result<EcPoint, HsmError> {
    let bare = EcPoint::from_uncompressed(curve, bytes.to_vec());
    let wrapped = || <&OctetStringRef>::from_der(bytes).ok().map(|octets| octets.as_bytes().to_vec());
    bare.or_else(|| EcPoint::from_uncompressed(curve, wrapped()?)).ok_or(HsmError::Answer("a point"))
}

fn oct(
    connection: &Connection<'_>,
    bits: OctBits,
    id: KeyId,
    new: &NewKey,
) -> Result<ObjectHandle, HsmError> {
    connection.token.mechanisms.require(MechanismType::AES_KEY_GEN, Purpose::Generate)?;
    let mut template = new.template(id, Family::Oct);
    template.push(Attribute::ValueLen(u64::from(bits.number() / 8).into()));
    connection.session.generate_key(&Mechanism::AesKeyGen, &template).doing("make an AES key")
}

/// Brings a key in as the object `id`: `wrapped` is its PKCS#8 form, or an AES key's bytes, under `kek` (RFC 5649). The
/// token opens it.
pub fn import(
    connection: &Connection<'_>,
    (id, public): (KeyId, &PublicKey),
    new: &NewKey,
    (kek, wrapped): (&[u8], &[u8]),
) -> Result<(), HsmError> {
    connection.token.mechanisms.require(MechanismType::AES_KEY_WRAP_PAD, Purpose::Unwrap)?;
    let (class, key_type, family) = match public {
        PublicKey::Rsa(_) => (ObjectClass::PRIVATE_KEY, KeyType::RSA, Family::Rsa),
        PublicKey::Ec(_) => (ObjectClass::PRIVATE_KEY, KeyType::EC, Family::Ec),
        PublicKey::Oct(_) => (ObjectClass::SECRET_KEY, KeyType::AES, Family::Oct),
    };
    let mut template = vec![Attribute::Class(class), Attribute::KeyType(key_type)];
    template.extend(new.template(id, family));
    let kek = Kek::put(connection, kek, KekUse::Unwraps)?;
    let handle = connection
        .session
        .unwrap_key(&Mechanism::AesKeyWrapPad, kek.handle(), wrapped, &template)
        .doing("take a key in (C_UnwrapKey with CKM_AES_KEY_WRAP_PAD)")?;
    protected(connection, handle, id, new)
}
