//! Tiny PE images, and what is checked about the hash of images.

use vtpm::authenticode::{Pe, sha256};

const PE_OFFSET: usize = 0x300;
const OPTIONAL: usize = PE_OFFSET + 24;
const SECURITY_ENTRY: usize = OPTIONAL + 112 + 4 * 8;
const HEADERS: usize = 0x800;

/// A PE32+ image of the given sections, unsigned.
pub fn pe(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; HEADERS];
    let mut strings = vec![0; 4];
    image[..2].copy_from_slice(b"MZ");
    put(&mut image, 0x3C, PE_OFFSET);
    image[PE_OFFSET..PE_OFFSET + 6].copy_from_slice(b"PE\0\0\x64\x86");
    image[PE_OFFSET + 6] = u8::try_from(sections.len()).unwrap();
    image[PE_OFFSET + 20] = 240;
    image[OPTIONAL..OPTIONAL + 2].copy_from_slice(&[0x0B, 0x02]);
    put(&mut image, OPTIONAL + 60, HEADERS);
    put(&mut image, OPTIONAL + 108, 16);
    for (number, (name, content)) in sections.iter().enumerate() {
        let entry = OPTIONAL + 240 + number * 40;
        let short = if name.len() > 8 { format!("/{}", strings.len()) } else { (*name).to_owned() };
        if name.len() > 8 {
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
        }
        image[entry..entry + short.len()].copy_from_slice(short.as_bytes());
        let (at, raw) = (image.len(), content.len().next_multiple_of(512));
        put(&mut image, entry + 8, content.len());
        put(&mut image, entry + 16, raw);
        put(&mut image, entry + 20, at);
        image.extend_from_slice(content);
        image.resize(at + raw, 0);
    }
    let at = image.len();
    put(&mut image, PE_OFFSET + 12, at);
    let length = strings.len();
    put(&mut strings, 0, length);
    image.extend_from_slice(&strings);
    image.resize(image.len().next_multiple_of(8), 0);
    image
}

/// An image that looks like a Linux kernel of that release.
pub fn kernel(release: &str, content: &[u8]) -> Vec<u8> {
    let mut image = pe(&[(".text", content)]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    let at: u16 = 0x60;
    image[0x20E..0x210].copy_from_slice(&at.to_le_bytes());
    let text = format!("{release} (builder@host) #1\0");
    image[0x260..0x260 + text.len()].copy_from_slice(text.as_bytes());
    image
}

pub fn append_signature(pe: &[u8], pkcs7: &[u8]) -> Vec<u8> {
    let mut image = pe.to_vec();
    let start = image.len();
    let length = (8 + pkcs7.len()).next_multiple_of(8);
    image.extend_from_slice(&u32::try_from(8 + pkcs7.len()).unwrap().to_le_bytes());
    image.extend_from_slice(&[0, 2, 2, 0]);
    image.extend_from_slice(pkcs7);
    image.resize(start + length, 0);
    let entry = |at: usize| u32::from_le_bytes(pe[at..at + 4].try_into().unwrap()) as usize;
    let (first, before) = (entry(SECURITY_ENTRY), entry(SECURITY_ENTRY + 4));
    put(&mut image, SECURITY_ENTRY, if before == 0 { start } else { first });
    put(&mut image, SECURITY_ENTRY + 4, before + length);
    image
}

fn put(image: &mut [u8], at: usize, value: usize) {
    image[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
}

#[test]
fn hash_leaves_out_checksum_directory_entry_and_signatures() {
    let unsigned = pe(&[(".text", b"code"), (".a-long-name", b"data")]);
    let digest = sha256(&unsigned).unwrap();
    let mut by_hand = unsigned.clone();
    by_hand.drain(SECURITY_ENTRY..SECURITY_ENTRY + 8);
    by_hand.drain(OPTIONAL + 64..OPTIONAL + 68);
    assert_eq!(digest, vtpm::pcr::sha256(&by_hand));

    let mut signed = super::signing::PLATFORM.sign(&unsigned);
    put(&mut signed, OPTIONAL + 64, 0x1234_5678);
    assert_eq!(sha256(&signed).unwrap(), digest);
}

#[test]
fn one_changed_bit_changes_the_hash_wherever_it_is_hashed() {
    let unsigned = pe(&[(".text", b"code")]);
    let digest = sha256(&unsigned).unwrap();
    for at in [0x50, OPTIONAL + 70, HEADERS, HEADERS + 400, unsigned.len() - 1] {
        let mut changed = unsigned.clone();
        changed[at] ^= 1;
        assert_ne!(sha256(&changed).unwrap(), digest, "offset {at:#x}");
    }
}

#[test]
fn sections_with_long_names_are_found() {
    let image = pe(&[(".text", b"code"), (".sbatlevel", b"level"), (".vendor_cert", b"certificate")]);
    let parsed = Pe::parse(&image).unwrap();
    assert_eq!(parsed.section(".sbatlevel"), Some(&b"level"[..]));
    assert_eq!(parsed.section(".vendor_cert"), Some(&b"certificate"[..]));
    assert_eq!(parsed.section(".linux"), None);
}

#[test]
fn section_or_certificate_table_outside_the_file_is_refused() {
    let good = pe(&[(".text", b"code")]);
    for (at, value) in
        [(OPTIONAL + 240 + 20, 1 << 30), (SECURITY_ENTRY + 4, 1 << 30), (OPTIONAL + 60, 1 << 30)]
    {
        let mut bad = good.clone();
        put(&mut bad, at, value);
        assert!(sha256(&bad).is_err(), "offset {at:#x}");
    }
    assert!(sha256(&good[..HEADERS]).is_err());
    assert!(sha256(b"MZ").is_err());
}

proptest::proptest! {
    #[test]
    fn damaged_images_never_panic(at in 0usize..0x900, byte in proptest::num::u8::ANY, cut in 0usize..0x900) {
        let mut image = super::signing::PLATFORM.sign(&pe(&[(".text", b"code"), (".vendor_cert", b"x")]));
        image[at] = byte;
        image.truncate(image.len() - cut.min(image.len()));
        let _ = sha256(&image);
        if let Ok(parsed) = Pe::parse(&image) {
            let _ = parsed.section(".vendor_cert");
        }
    }
}
