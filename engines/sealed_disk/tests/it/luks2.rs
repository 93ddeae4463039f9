//! LUKS2 headers: stock cryptsetup opens ours, the checker refuses what is not on its list.

use std::path::PathBuf;

use base64::Engine as _;
use proptest::prelude::*;
use sealed_disk::luks2::{
    COPIES_BYTES, DATA_OFFSET, Format, FormatError, HeaderRefusal, SectorSize, UnlockError, check, repair,
    replace_token,
};
use sealed_disk::secret::{Passphrase, Secret, VolumeKey};
use sealed_disk::xts::Xts;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::tools;

const COPY: usize = COPIES_BYTES / 2;
const UUID: Uuid = Uuid::from_u128(0xaaaa_aaaa_bbbb_cccc_dddd_eeee_eeee_eeee);

struct Made {
    header: Vec<u8>,
    key: VolumeKey,
    sealed: Passphrase,
    recovery: Passphrase,
}

fn token(blob: &[u8]) -> Value {
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    json!({
        "type": "systemd-tpm2", "keyslots": ["0"], "tpm2-blob": base64(blob), "tpm2-pcrs": [4, 7, 9, 12, 15],
        "tpm2-pcr-bank": "sha256", "tpm2-primary-alg": "ecc", "tpm2-policy-hash": "ab".repeat(32),
        "tpm2_srk": base64(&[1; 138]),
    })
}

fn make() -> Made {
    let (key, secret, recovery) = (VolumeKey::random(), Secret::<32>::random(), Secret::<32>::random());
    let (sealed, recovery) = (Passphrase::of_secret(&secret), Passphrase::of_secret(&recovery));
    let tokens = vec![token(&[7; 260]), json!({"type": "systemd-recovery", "keyslots": ["1"]})];
    let keyslots = vec![sealed.clone(), recovery.clone()];
    let format = Format { uuid: UUID, volume_key: &key, keyslots, tokens, sector_size: SectorSize::B4096 };
    Made { header: format.write().unwrap(), key, sealed, recovery }
}

/// Edits the metadata and puts the checksums of both copies right, as an attacker would.
fn edit(header: &[u8], change: impl Fn(&mut Value)) -> Vec<u8> {
    let text = std::str::from_utf8(&header[0x1000..COPY]).unwrap().trim_end_matches('\0');
    let mut json: Value = serde_json::from_str(text).unwrap();
    change(&mut json);
    with_text(header, &json.to_string())
}

fn with_text(header: &[u8], text: &str) -> Vec<u8> {
    let mut header = header.to_vec();
    for copy in header[..COPIES_BYTES].chunks_exact_mut(COPY) {
        copy[0x1000..].fill(0);
        copy[0x1000..0x1000 + text.len()].copy_from_slice(text.as_bytes());
        put_checksum(copy);
    }
    header
}

fn put_checksum(copy: &mut [u8]) {
    copy[0x1c0..0x200].fill(0);
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, copy);
    copy[0x1c0..0x1e0].copy_from_slice(sum.as_ref());
}

#[test]
fn what_is_written_passes_the_check_and_opens() {
    let made = make();
    let checked = check(&made.header).unwrap();
    assert_eq!((checked.uuid, checked.seqid, checked.sector_size), (UUID, 1, SectorSize::B4096));
    assert_eq!(checked.keyslots(), [0, 1]);
    assert_eq!(checked.tpm2_token(), Some(&token(&[7; 260])));
    for passphrase in [&made.sealed, &made.recovery] {
        assert_eq!(checked.unlock(&made.header, passphrase).unwrap().expose(), made.key.expose());
    }
    let wrong = Passphrase::from_text("wrong".into());
    assert_eq!(checked.unlock(&made.header, &wrong).err(), Some(UnlockError::NoKeyslot));
    assert_eq!(checked.unlock(&made.header[..COPIES_BYTES], &wrong).err(), Some(UnlockError::TooShort));
}

#[test]
fn what_cannot_be_written_is_said() {
    let key = VolumeKey::random();
    let format = |keyslots, tokens| {
        Format { uuid: UUID, volume_key: &key, keyslots, tokens, sector_size: SectorSize::B512 }
            .write()
            .unwrap_err()
    };
    let passphrase = || Passphrase::from_text("a".into());
    assert_eq!(format(vec![], vec![]), FormatError::KeyslotCount(0));
    assert_eq!(format((0..9).map(|_| passphrase()).collect(), vec![]), FormatError::KeyslotCount(9));
    let error = format(vec![passphrase()], vec![json!({"type": "own", "keyslots": ["0"]})]);
    assert!(matches!(error, FormatError::WouldBeRefused(HeaderRefusal::NotAllowed { .. })), "{error}");
    let error = format(vec![passphrase()], (0..20).map(|_| token(&[7; 1000])).collect());
    assert!(matches!(error, FormatError::MetadataTooLarge(_)), "{error}");
}

/// Each row: what an attacker with the disk changes, and a part of the refusal.
#[test]
fn attack_metadata_off_the_allow_list_is_refused() {
    let made = make();
    let rows: &[(&str, Value, &str)] = &[
        ("/segments/0/sector_size", json!(1024), "segment 0: sector_size is 1024"),
        ("/segments/0/offset", json!("33554432"), "segment 0: offset is 33554432"),
        ("/segments/0/size", json!("4096"), "segment 0: size is 4096"),
        ("/segments/0/iv_tweak", json!("8"), "segment 0: iv_tweak is 8"),
        ("/segments/0/type", json!("linear"), "segment 0: type is linear"),
        ("/segments/0/encryption", json!("aes-cbc-plain64"), "segment 0: encryption is aes-cbc-plain64"),
        ("/segments/0/encryption", json!("aes-xts-essiv:sha256"), "aes-xts-essiv:sha256"),
        ("/segments/0/integrity", json!({"type": "none"}), "unknown field `integrity`"),
        ("/segments/0/flags", json!(["in-reencryption"]), "unknown field `flags`"),
        (
            "/segments/1",
            json!({"type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
            "encryption": "aes-xts-plain64", "sector_size": 4096}),
            "segments is 0,1",
        ),
        ("/keyslots/0/key_size", json!(32), "keyslot 0: key_size is 32"),
        ("/keyslots/0/type", json!("reencrypt"), "keyslot 0: type is reencrypt"),
        ("/keyslots/0/area/encryption", json!("aes-ecb"), "keyslot 0: area encryption is aes-ecb"),
        ("/keyslots/0/area/type", json!("journal"), "keyslot 0: area type is journal"),
        ("/keyslots/0/area/offset", json!("16384"), "keyslot 0: area offset is 16384"),
        ("/keyslots/0/area/offset", json!("032768"), "keyslot 0: area offset is 032768"),
        ("/keyslots/1/area/offset", json!("36864"), "overlaps no other"),
        ("/keyslots/0/area/size", json!("4096"), "keyslot 0: area size is 4096"),
        ("/keyslots/0/af/hash", json!("sha1"), "keyslot 0: af hash is sha1"),
        ("/keyslots/0/af/stripes", json!(1), "keyslot 0: af stripes is 1"),
        ("/keyslots/0/kdf/hash", json!("sha1"), "keyslot 0: hash is sha1"),
        ("/keyslots/0/kdf/iterations", json!(1), "keyslot 0: iterations is 1"),
        ("/keyslots/0/kdf/type", json!("scrypt"), "unknown variant `scrypt`"),
        ("/keyslots/40", Value::Null, "invalid type: null"),
        ("/tokens/0/keyslots", json!(["5"]), "token 0: keyslots is 5"),
        ("/tokens/0/tpm2-pin", json!(true), "token 0: tpm2-pin is true"),
        ("/tokens/0/tpm2_pubkey", json!("AA=="), "unknown field `tpm2_pubkey`"),
        ("/tokens/0/tpm2-pcr-bank", json!("sha1"), "token 0: tpm2-pcr-bank is sha1"),
        ("/tokens/0/tpm2-pcrs", json!([]), "token 0: tpm2-pcrs is []"),
        ("/tokens/0/tpm2-pcrs", json!([7, 4]), "token 0: tpm2-pcrs is [7, 4]"),
        ("/tokens/0/type", json!("luks2-keyring"), "token 0: type is luks2-keyring"),
        ("/tokens/2", token(&[8; 260]), "tokens is 2 of type systemd-tpm2"),
        ("/digests/0/keyslots", json!(["0"]), "digest 0: keyslots is 0"),
        ("/digests/0/segments", json!([]), "digest 0: segments"),
        ("/digests/0/iterations", json!(0), "digest 0: iterations is 0"),
        ("/digests/0/type", json!("none"), "digest 0: type is none"),
        ("/config/flags", json!(["integrity-no-journal"]), "config: flags is integrity-no-journal"),
        ("/config/requirements", json!({"mandatory": ["online-reencrypt"]}), "unknown field `requirements`"),
        ("/config/json_size", json!("16384"), "config: json_size is 16384"),
        ("/own", json!(1), "unknown field `own`"),
    ];
    for (pointer, value, expected) in rows {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        let header = edit(&made.header, |json| json.pointer_mut(parent).unwrap()[member] = value.clone());
        let refusal = check(&header).expect_err(pointer).to_string();
        assert!(refusal.contains(expected), "{pointer}: {refusal}");
    }
}

#[test]
fn attack_null_cipher_in_a_keyslot_is_refused() {
    let header =
        edit(&make().header, |json| json["keyslots"]["0"]["area"]["encryption"] = "cipher_null-ecb".into());
    let refusal = check(&header).unwrap_err().to_string();
    assert_eq!(refusal, "LUKS2 keyslot 0: area encryption is cipher_null-ecb, allowed is aes-xts-plain64");
}

#[test]
fn attack_null_cipher_in_the_segment_is_refused() {
    let header = edit(&make().header, |json| json["segments"]["0"]["encryption"] = "cipher_null-ecb".into());
    let refusal = check(&header).unwrap_err().to_string();
    assert_eq!(refusal, "LUKS2 segment 0: encryption is cipher_null-ecb, allowed is aes-xts-plain64");
}

#[test]
fn attack_a_null_cipher_hidden_in_the_copy_that_is_not_used_first_is_refused() {
    let good = make().header;
    let evil = edit(&good, |json| json["segments"]["0"]["encryption"] = "cipher_null-ecb".into());
    let header = [&good[..COPY], &evil[COPY..]].concat();
    assert_eq!(check(&header), Err(HeaderRefusal::CopiesDiffer { what: "their metadata" }));
}

#[test]
fn attack_a_member_named_twice_is_refused() {
    let header = make().header;
    let text = std::str::from_utf8(&header[0x1000..COPY]).unwrap().trim_end_matches('\0');
    let segment = r#"{"type":"crypt","offset":"16777216","size":"dynamic","iv_tweak":"0","encryption":"cipher_null-ecb","sector_size":4096}"#;
    for (from, to) in [
        (r#""segments":{"#, format!(r#""segments":{{"0":{segment},"#)),
        (r#""segments":{"#, format!(r#""segments":{{"0":{segment}}},"segments":{{"#)),
    ] {
        let twice = text.replacen(from, &to, 1);
        assert_ne!(twice, text);
        let refusal = check(&with_text(&header, &twice)).unwrap_err().to_string();
        assert!(refusal.contains("twice") || refusal.contains("duplicate field"), "{refusal}");
    }
}

#[test]
fn attack_bytes_behind_the_metadata_are_refused() {
    let mut header = make().header;
    for copy in header[..COPIES_BYTES].chunks_exact_mut(COPY) {
        copy[COPY - 1] = b'x';
        put_checksum(copy);
    }
    let refusal = check(&header).unwrap_err().to_string();
    assert!(refusal.contains("bytes behind its end"), "{refusal}");
}

#[test]
fn attack_binary_header_fields_are_refused() {
    let good = make().header;
    for (at, value, expected) in [
        (7, 1, "version"),
        (14, 0x80, "hdr_size"),
        (0x107, 1, "hdr_offset"),
        (0x48, b'm', "csum_alg"),
        (0xa8, b'x', "uuid"),
        (0x17, 9, "sequence number"),
    ] {
        let mut header = good.clone();
        header[at] = value;
        put_checksum(&mut header[..COPY]);
        let refusal = check(&header).unwrap_err().to_string();
        assert!(refusal.to_lowercase().contains(expected), "{at:#x}: {refusal}");
    }
    let mut header = good.clone();
    header[0] = 0;
    assert!(matches!(check(&header), Err(HeaderRefusal::NotLuks2 { .. })));
    for length in [0, 1, COPY, COPIES_BYTES - 1] {
        assert!(matches!(check(&good[..length]), Err(HeaderRefusal::TooShort { .. })));
    }
}

#[test]
fn a_new_token_is_in_both_copies_and_keyslots_stay() {
    let made = make();
    let mut header = made.header.clone();
    replace_token(&mut header, &token(&[9; 260])).unwrap();
    let checked = check(&header).unwrap();
    assert_eq!(checked.seqid, 2);
    assert_eq!(checked.tpm2_token(), Some(&token(&[9; 260])));
    assert_eq!(checked.tokens.len(), 2);
    assert_eq!(checked.unlock(&header, &made.sealed).unwrap().expose(), made.key.expose());
    assert_eq!(header[COPIES_BYTES..], made.header[COPIES_BYTES..]);
}

#[test]
fn a_token_that_would_be_refused_changes_nothing() {
    let mut header = make().header;
    let before = header.clone();
    for bad in [json!({"type": "own"}), json!(1), json!({"type": "systemd-tpm2", "keyslots": ["7"]})] {
        assert!(replace_token(&mut header, &bad).is_err());
        assert!(header == before);
    }
}

#[test]
fn an_interrupted_write_is_repaired_from_the_newer_copy() {
    let old = make().header;
    let mut new = old.clone();
    replace_token(&mut new, &token(&[9; 260])).unwrap();
    let between = [&new[..COPY], &old[COPY..]].concat();
    let mut torn = between.clone();
    torn[0x1000..0x1800].fill(0);
    for (mut header, blob) in [(between, [9; 260]), (torn, [7; 260])] {
        assert!(check(&header).is_err());
        assert_eq!(repair(&mut header), Ok(true));
        assert_eq!(check(&header).unwrap().tpm2_token(), Some(&token(&blob)));
        assert_eq!(repair(&mut header), Ok(false));
    }
    let mut lost = vec![0; COPIES_BYTES];
    assert!(repair(&mut lost).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_of_the_header_copies_is_refused(place in 0..COPIES_BYTES, bit in 0u8..8) {
        static GOOD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| make().header);
        let mut header = GOOD.clone();
        header[place] ^= 1 << bit;
        // The second half of the checksum field is not used.
        let unused = (0x1e0..0x200).contains(&(place % COPY));
        prop_assert_eq!(check(&header).is_ok(), unused, "byte {:#x}", place);
    }

    #[test]
    fn rubbish_as_metadata_is_refused(text in "\\PC{0,200}") {
        prop_assert!(check(&with_text(&make_once(), &text)).is_err());
    }
}

fn make_once() -> Vec<u8> {
    static GOOD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| make().header);
    GOOD.clone()
}

// Against cryptsetup.

struct Volume {
    folder: TempDir,
    cryptsetup: PathBuf,
}

impl Volume {
    fn new(header: &[u8]) -> Option<Self> {
        let volume = Self { cryptsetup: tools::find("cryptsetup")?, folder: TempDir::new().unwrap() };
        std::fs::write(volume.path("disk"), header).unwrap();
        let file = std::fs::File::options().write(true).open(volume.path("disk")).unwrap();
        file.set_len(DATA_OFFSET + (4 << 20)).unwrap();
        Some(volume)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key_file(&self, passphrase: &Passphrase) -> String {
        std::fs::write(self.path("key"), passphrase.expose()).unwrap();
        format!("--key-file={}", self.path("key").display())
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let disk = self.path("disk").display().to_string();
        arguments.iter().map(|argument| argument.replace("DISK", &disk)).collect()
    }

    fn must(&self, arguments: &[&str]) -> String {
        tools::must(&self.cryptsetup, &self.arguments(arguments))
    }

    fn fails(&self, arguments: &[&str]) -> bool {
        !tools::run(&self.cryptsetup, &self.arguments(arguments)).status.success()
    }

    fn header(&self) -> Vec<u8> {
        std::fs::read(self.path("disk")).unwrap()[..DATA_OFFSET as usize].to_vec()
    }

    fn volume_key(&self, passphrase: &Passphrase) -> Vec<u8> {
        let (key, out) = (self.key_file(passphrase), self.path("volume-key"));
        let out_argument = format!("--volume-key-file={}", out.display());
        let _ = std::fs::remove_file(&out);
        self.must(&["luksDump", "--batch-mode", "--dump-volume-key", &out_argument, &key, "DISK"]);
        std::fs::read(out).unwrap()
    }
}

#[test]
fn cryptsetup_opens_our_header() {
    let made = make();
    let Some(volume) = Volume::new(&made.header) else { return };
    assert_eq!(volume.must(&["luksUUID", "DISK"]).trim(), UUID.to_string());
    for passphrase in [&made.sealed, &made.recovery] {
        let key = volume.key_file(passphrase);
        volume.must(&["open", "--test-passphrase", &key, "DISK"]);
        assert_eq!(volume.volume_key(passphrase), made.key.expose());
    }
    let wrong = volume.key_file(&Passphrase::from_text("wrong".into()));
    assert!(volume.fails(&["open", "--test-passphrase", &wrong, "DISK"]));
    let dump = volume.must(&["luksDump", "DISK"]);
    for line in
        ["systemd-tpm2", "systemd-recovery", "sector: 4096", "offset: 16777216", "cipher: aes-xts-plain64"]
    {
        assert!(dump.contains(line), "{line} is missing in: {dump}");
    }
}

#[test]
fn cryptsetup_uses_our_secondary_copy_and_our_new_token() {
    let made = make();
    let mut header = made.header;
    replace_token(&mut header, &token(&[9; 260])).unwrap();
    header[0x1000] ^= 1;
    let Some(volume) = Volume::new(&header) else { return };
    let key = volume.key_file(&made.sealed);
    volume.must(&["open", "--test-passphrase", &key, "DISK"]);
    let exported: Value =
        serde_json::from_str(&volume.must(&["token", "export", "--token-id", "0", "DISK"])).unwrap();
    assert_eq!(exported, token(&[9; 260]));
}

#[test]
fn what_cryptsetup_changes_in_the_guest_still_passes() {
    let made = make();
    let Some(volume) = Volume::new(&made.header) else { return };
    let key = volume.key_file(&made.sealed);
    std::fs::write(volume.path("new"), "another").unwrap();
    let new = volume.path("new").display().to_string();
    volume.must(&[
        "luksAddKey",
        "--batch-mode",
        "--pbkdf=argon2id",
        "--pbkdf-force-iterations=4",
        "--pbkdf-memory=64",
        "--pbkdf-parallel=1",
        &key,
        "DISK",
        &new,
    ]);
    volume.must(&[
        "luksAddKey",
        "--batch-mode",
        "--pbkdf=pbkdf2",
        "--pbkdf-force-iterations=1000",
        &key,
        "DISK",
        &new,
    ]);
    let header = volume.header();
    let checked = check(&header).unwrap();
    assert_eq!(checked.keyslots(), [0, 1, 2, 3]);
    let another = Passphrase::from_text("another".into());
    assert_eq!(checked.unlock(&header, &another).unwrap().expose(), made.key.expose());
    volume.must(&["luksKillSlot", "--batch-mode", &key, "DISK", "2"]);
    let mut header = volume.header();
    assert_eq!(check(&header).unwrap().keyslots(), [0, 1, 3]);
    replace_token(&mut header, &token(&[9; 260])).unwrap();
}

/// cryptsetup encrypts a file in place, without a device mapper; our cipher decrypts what it wrote.
#[test]
fn our_cipher_reads_what_cryptsetup_encrypted() {
    for sector_size in [512usize, 4096] {
        let Some(volume) = Volume::new(&[]) else { return };
        let plain: Vec<u8> =
            (0..8u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut content = plain.clone();
        content.resize(plain.len() + (32 << 20), 0);
        std::fs::write(volume.path("disk"), &content).unwrap();
        let passphrase = Passphrase::from_text("a passphrase".into());
        let (key, sector) = (volume.key_file(&passphrase), format!("--sector-size={sector_size}"));
        volume.must(&[
            "reencrypt",
            "--encrypt",
            "--type=luks2",
            "--reduce-device-size=32M",
            "--resilience=none",
            "--batch-mode",
            "--cipher=aes-xts-plain64",
            "--key-size=512",
            "--hash=sha256",
            "--pbkdf=pbkdf2",
            "--pbkdf-force-iterations=1000",
            &sector,
            &key,
            "DISK",
        ]);
        let header = volume.header();
        let checked = check(&header).unwrap();
        assert_eq!(checked.sector_size.bytes(), sector_size);
        let volume_key = checked.unlock(&header, &passphrase).unwrap();
        assert_eq!(volume.volume_key(&passphrase), volume_key.expose());
        let mut data =
            std::fs::read(volume.path("disk")).unwrap()[DATA_OFFSET as usize..][..plain.len()].to_vec();
        assert!(data != plain);
        Xts::new(volume_key.expose()).unwrap().decrypt_in_place(&mut data, 0, sector_size);
        assert!(data == plain, "sector size {sector_size}");
    }
}
