//! ID blocks made by the crate `sev`, an independent implementation.

use std::io::Write as _;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sev::measurement::idblock::snp_calculate_id;
use sev::measurement::idblock_types::{FamilyId, ImageId};
use sev::measurement::snp::SnpLaunchDigest;
use sev::parser::ByteParser as _;
use snp::id_block::{IdBlock, IdBlockError, authenticate};
use snp::launch::LaunchDigest;

/// A fresh P-384 key in a PEM file.
fn key_file() -> tempfile::NamedTempFile {
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let body = STANDARD.encode(key.to_pkcs8v1().unwrap());
    let lines: Vec<&str> = (0..body.len()).step_by(64).map(|at| &body[at..body.len().min(at + 64)]).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    file.write_all(text.as_bytes()).unwrap();
    file
}

struct Made {
    block: [u8; 96],
    auth: [u8; 4096],
    id_key_digest: [u8; 48],
    author_key_digest: [u8; 48],
}

fn made() -> Made {
    let (id_key, author_key) = (key_file(), key_file());
    let made = snp_calculate_id(
        Some(SnpLaunchDigest::new([0xD1; 48])),
        Some(FamilyId::new([1; 16])),
        Some(ImageId::new([2; 16])),
        Some(7),
        None,
        id_key.path().into(),
        author_key.path().into(),
    )
    .unwrap();
    Made {
        block: made.id_block.to_bytes().unwrap(),
        auth: made.id_auth.to_bytes().unwrap(),
        id_key_digest: made.id_key_digest.to_bytes().unwrap(),
        author_key_digest: made.auth_key_digest.to_bytes().unwrap(),
    }
}

#[test]
fn an_id_block_of_the_crate_sev_is_read_and_authenticated() {
    let made = made();
    let block = IdBlock::parse(&made.block);
    assert_eq!(block.launch_digest, LaunchDigest([0xD1; 48]));
    assert_eq!((block.family_id, block.image_id, block.version, block.guest_svn), ([1; 16], [2; 16], 1, 7));
    assert_eq!(block.encode(), made.block);
    let keys = authenticate(&made.block, &made.auth, true).unwrap();
    assert_eq!(
        (keys.id_key_digest, keys.author_key_digest),
        (made.id_key_digest, Some(made.author_key_digest))
    );
    assert_eq!(authenticate(&made.block, &made.auth, false).unwrap().author_key_digest, None);
}

#[test]
fn an_altered_id_block_is_refused() {
    let made = made();
    for at in [0, 0x30, 0x54, 0x5F] {
        let mut block = made.block;
        block[at] ^= 1;
        assert_eq!(authenticate(&block, &made.auth, true), Err(IdBlockError::Signature("ID block")));
    }
    let mut block = made.block;
    block[0x50] = 2;
    assert_eq!(authenticate(&block, &made.auth, true), Err(IdBlockError::Version(2)));
    let refused = |at: usize| {
        let mut auth = made.auth;
        auth[at] ^= 1;
        authenticate(&made.block, &auth, true).unwrap_err()
    };
    assert_eq!(refused(0x000), IdBlockError::Algorithm("ID"));
    assert_eq!(refused(0x004), IdBlockError::Algorithm("author"));
    assert_eq!(refused(0x040), IdBlockError::Signature("ID block"));
    assert_eq!(refused(0x240), IdBlockError::Key("ID"));
    assert_eq!(refused(0x680), IdBlockError::Signature("ID key"));
    assert_eq!(refused(0x880), IdBlockError::Key("author"));
    // Bytes of the ID key that the ID block's signature does not need are covered by the author's.
    assert_eq!(refused(0x640), IdBlockError::Signature("ID key"));
}
