//! What systemd-cryptsetup measures of the volume that it opened (`tpm2-measure-pcr=yes`).

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

use crate::pcr::{Digest, extend, to_digest};

/// The digest that is extended into PCR 15 when the volume of that key is opened under that mapping name and LUKS UUID,
/// and the value that PCR 15 has then: HMAC-SHA256(volume key, "cryptsetup:" name ":" UUID).
pub fn volume_key_pcr15(volume_key: &[u8], mapping: &str, luks_uuid: &str) -> (Digest, Digest) {
    let text = format!("cryptsetup:{mapping}:{luks_uuid}");
    let digest = to_digest(sign(&Key::new(HMAC_SHA256, volume_key), text.as_bytes()).as_ref());
    let mut value = [0; 32];
    extend(&mut value, &digest);
    (digest, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcr::sha256;

    #[test]
    fn digest_is_the_keyed_hash_of_name_and_uuid() {
        // Computed with Python's hmac and hashlib.
        let (digest, value) = volume_key_pcr15(&[0x11; 64], "root", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee");
        assert_eq!(hex::encode(digest), "f036cf5d28f47e491dc3c7817e87d2cbbb50decae7f2b55d96ca6649e2ba4bbc");
        assert_eq!(hex::encode(value), "9808dcae77ceb73e18fe5383ab3af32602278be0163cc75d8b7a21e082c3a8bb");
        assert_eq!(value, sha256(&[[0; 32], digest].concat()));
    }

    #[test]
    fn foreign_volume_opened_in_place_of_the_tenants_has_another_value() {
        let own = volume_key_pcr15(&[1; 64], "root", "u");
        assert_ne!(own, volume_key_pcr15(&[2; 64], "root", "u"));
        assert_ne!(own, volume_key_pcr15(&[1; 64], "other", "u"));
        assert_ne!(own, volume_key_pcr15(&[1; 64], "root", "v"));
    }
}
