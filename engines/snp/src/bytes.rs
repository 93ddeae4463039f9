//! Reading and writing at fixed offsets without a way to panic.

/// `N` bytes of `raw` from `AT`. The compiler checks that they lie inside.
pub(crate) fn field<const AT: usize, const N: usize, const LEN: usize>(raw: &[u8; LEN]) -> [u8; N] {
    const { assert!(AT + N <= LEN) };
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(raw.iter().skip(AT)) {
        *to = *from;
    }
    out
}

/// Writes `value` into `raw` from `AT`. The compiler checks that it fits.
pub(crate) fn put<const AT: usize, const N: usize, const LEN: usize>(raw: &mut [u8; LEN], value: [u8; N]) {
    const { assert!(AT + N <= LEN) };
    for (to, from) in raw.iter_mut().skip(AT).zip(value) {
        *to = from;
    }
}

/// `N` bytes of `bytes` from `at`, when there are that many.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A little-endian u32 from `at`.
pub(crate) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// A little-endian u16 from `at`.
pub(crate) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}
