//! DER, written: the handful of types that AMD's certificates and lists are made of (ITU-T X.690).

/// 2050-01-01T00:00:00Z.
const YEAR_2050: i64 = 2_524_608_000;

/// Constructed SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// Constructed SET.
pub const SET: u8 = 0x31;
/// OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// UTF8String.
pub const UTF8_STRING: u8 = 0x0C;
/// IA5String.
pub const IA5_STRING: u8 = 0x16;

/// A value of any tag.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ 0..0x80 => out.push(len.to_le_bytes()[0]),
        len => {
            let bytes = len.to_be_bytes();
            let significant: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | significant.len().to_le_bytes()[0]);
            out.extend(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A SEQUENCE of parts.
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// A context-specific constructed value, for explicit tags.
pub fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xA0 | number, content)
}

/// A non-negative INTEGER.
pub fn integer(value: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    if bytes.first().is_none_or(|first| first & 0x80 != 0) {
        bytes.insert(0, 0);
    }
    tlv(0x02, &bytes)
}

/// An OBJECT IDENTIFIER.
pub fn oid(arcs: &[u64]) -> Vec<u8> {
    let mut content = vec![(arcs[0] * 40 + arcs[1]).to_le_bytes()[0]];
    for arc in &arcs[2..] {
        let mut groups = vec![(arc & 0x7F).to_le_bytes()[0]];
        let mut rest = arc >> 7;
        while rest > 0 {
            groups.push((rest & 0x7F).to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        content.extend(groups.into_iter().rev());
    }
    tlv(0x06, &content)
}

/// A BIT STRING of whole bytes.
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

/// Unix seconds as RFC 5280 section 4.1.2.5 wants them: UTCTime until 2049, GeneralizedTime from 2050 on.
pub fn time(seconds: i64) -> Vec<u8> {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let (tag, format) = if seconds < YEAR_2050 { (0x17, "%y%m%d%H%M%SZ") } else { (0x18, "%Y%m%d%H%M%SZ") };
    tlv(tag, time.strftime(format).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_encodings() {
        assert_eq!(hex::encode(oid(&[1, 2, 840, 113_549, 1, 1, 10])), "06092a864886f70d01010a");
        assert_eq!(hex::encode(oid(&[1, 3, 6, 1, 4, 1, 3704, 1, 3, 8])), "060a2b060104019c78010308");
        assert_eq!(hex::encode(integer(0)), "020100");
        assert_eq!(hex::encode(integer(219)), "020200db");
        assert_eq!(hex::encode(&tlv(4, &[7; 200])[..4]), "0481c807");
        assert_eq!(time(1_735_689_600), b"\x17\x0d250101000000Z");
        assert_eq!(time(YEAR_2050 - 1), b"\x17\x0d491231235959Z");
        assert_eq!(time(YEAR_2050), b"\x18\x0f20500101000000Z");
    }
}
