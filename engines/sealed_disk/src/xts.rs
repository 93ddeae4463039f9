//! AES-256-XTS (IEEE 1619) over whole sectors, as Linux' dm-crypt uses it for `aes-xts-plain64`.
//!
//! The tweak counts units of 512 bytes whatever the sector size is (dm-crypt without `iv_large_sectors`): with sectors
//! of 4096 bytes it goes 0, 8, 16 and so on. `aws-lc-rs` has no XTS, the C library below it has; this is the only
//! module of the crate with `unsafe`.
#![allow(unsafe_code, reason = "aws-lc-rs offers no XTS; the EVP interface of aws-lc-sys is called directly")]

use std::ffi::c_int;
use std::ptr::{NonNull, null, null_mut};

use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_CipherInit_ex, EVP_CipherUpdate,
    EVP_aes_256_xts,
};

use crate::secret::VolumeKey;

/// Units in which the tweak counts.
pub const TWEAK_UNIT: usize = 512;

/// The two halves of an XTS key are equal, which the standard forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the two halves of the XTS key are equal")]
pub struct WeakKey;

/// A key ready for use. Calls are independent of each other, from any thread.
#[derive(Clone)]
pub struct Xts {
    key: VolumeKey,
}

#[derive(Clone, Copy)]
enum Direction {
    Encrypt = 1,
    Decrypt = 0,
}

impl Xts {
    /// Takes the 64 bytes of a volume key: data key, then tweak key.
    pub fn new(key: &[u8; 64]) -> Result<Self, WeakKey> {
        let (data, tweak) = key.split_at(32);
        if data == tweak {
            return Err(WeakKey);
        }
        Ok(Self { key: VolumeKey::from_bytes(*key) })
    }

    /// Encrypts whole sectors; `first_unit_512` is the position of the first byte, in units of 512 bytes.
    ///
    /// # Panics
    /// If `sector_size` is not a multiple of 512, or `buffer` not one of `sector_size`.
    pub fn encrypt_in_place(&self, buffer: &mut [u8], first_unit_512: u64, sector_size: usize) {
        self.run(Direction::Encrypt, buffer, first_unit_512, sector_size);
    }

    /// Reverses [`Xts::encrypt_in_place`].
    ///
    /// # Panics
    /// If `sector_size` is not a multiple of 512, or `buffer` not one of `sector_size`.
    pub fn decrypt_in_place(&self, buffer: &mut [u8], first_unit_512: u64, sector_size: usize) {
        self.run(Direction::Decrypt, buffer, first_unit_512, sector_size);
    }

    fn run(&self, direction: Direction, buffer: &mut [u8], first_unit_512: u64, sector_size: usize) {
        assert!(sector_size > 0 && sector_size.is_multiple_of(TWEAK_UNIT), "sector size {sector_size}");
        assert!(buffer.len().is_multiple_of(sector_size), "{} bytes are no whole sectors", buffer.len());
        let mut context = Context::new(self.key.expose(), direction);
        let step = (sector_size / TWEAK_UNIT) as u64;
        let mut unit = first_unit_512;
        for sector in buffer.chunks_exact_mut(sector_size) {
            context.sector(unit, sector);
            unit = unit.wrapping_add(step);
        }
    }
}

/// An EVP context with the key schedule of one direction; wiped and freed on drop.
struct Context(NonNull<EVP_CIPHER_CTX>);

impl Context {
    fn new(key: &[u8; 64], direction: Direction) -> Self {
        // SAFETY: no arguments; the result is checked for null.
        let context =
            Self(NonNull::new(unsafe { EVP_CIPHER_CTX_new() }).expect("memory for a cipher context"));
        // SAFETY: the context is valid and ours, the cipher is a static of the library, the key has the 64 bytes that
        // this cipher reads, and null asks for no engine and no tweak yet.
        let done = unsafe {
            EVP_CipherInit_ex(
                context.0.as_ptr(),
                EVP_aes_256_xts(),
                null_mut(),
                key.as_ptr(),
                null(),
                direction as c_int,
            )
        };
        assert_eq!(done, 1, "AES-256-XTS takes any key with two different halves");
        context
    }

    fn sector(&mut self, unit: u64, sector: &mut [u8]) {
        let mut tweak = [0u8; 16];
        tweak[..8].copy_from_slice(&unit.to_le_bytes());
        let length = c_int::try_from(sector.len()).expect("a sector is far below 2 GiB");
        let mut written: c_int = 0;
        // SAFETY: the context was initialised with cipher and key; null keeps both, -1 keeps the direction, and the
        // tweak has the 16 bytes that are read.
        let set =
            unsafe { EVP_CipherInit_ex(self.0.as_ptr(), null(), null_mut(), null(), tweak.as_ptr(), -1) };
        // SAFETY: input and output are the same `length` bytes, which EVP allows for equal (not overlapping) buffers,
        // and XTS writes exactly as many bytes as it reads.
        let done = unsafe {
            EVP_CipherUpdate(self.0.as_ptr(), sector.as_mut_ptr(), &raw mut written, sector.as_ptr(), length)
        };
        assert!(set == 1 && done == 1 && written == length, "AES-XTS takes any sector of 16 bytes or more");
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context came from EVP_CIPHER_CTX_new and is freed once; the library wipes its key schedule.
        unsafe { EVP_CIPHER_CTX_free(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IEEE 1619-2007, annex B, vectors 10 to 14: XTS-AES-256 with a data unit of 512 bytes holding 00 01 .. ff twice.
    #[test]
    fn vectors_of_ieee_1619() {
        let key: [u8; 64] = hex::decode(concat!(
            "2718281828459045235360287471352662497757247093699959574966967627",
            "3141592653589793238462643383279502884197169399375105820974944592"
        ))
        .unwrap()
        .try_into()
        .unwrap();
        let plain: Vec<u8> = (0..512u32).map(|i| (i & 0xff) as u8).collect();
        for (unit, first) in [
            (0xff, "1c3b3a102f770386e4836c99e370cf9b"),
            (0xffff, "77a31251618a15e6b92d1d66dffe7b50"),
            (0x00ff_ffff, "e387aaa58ba483afa7e8eb469778317e"),
            (0xffff_ffff, "bf53d2dade78e822a4d949a9bc6766b0"),
            (0xff_ffff_ffff, "64497e5a831e4a932c09be3e5393376d"),
        ] {
            let mut data = plain.clone();
            let xts = Xts::new(&key).unwrap();
            xts.encrypt_in_place(&mut data, unit, 512);
            assert_eq!(hex::encode(&data[..16]), first, "unit {unit:#x}");
            xts.decrypt_in_place(&mut data, unit, 512);
            assert_eq!(data, plain);
        }
    }

    #[test]
    fn the_tweak_counts_512_byte_units_for_larger_sectors() {
        let xts = Xts::new(VolumeKey::random().expose()).unwrap();
        let mut whole = vec![0x5a; 4 * 4096];
        xts.encrypt_in_place(&mut whole, 16, 4096);
        for (index, sector) in whole.chunks(4096).enumerate() {
            let mut alone = vec![0x5a; 4096];
            xts.encrypt_in_place(&mut alone, 16 + 8 * index as u64, 4096);
            assert_eq!(alone, sector);
        }
    }

    #[test]
    fn equal_halves_are_refused() {
        assert_eq!(Xts::new(&[9; 64]).err(), Some(WeakKey));
    }

    #[test]
    #[should_panic(expected = "no whole sectors")]
    fn a_part_of_a_sector_is_a_bug_of_the_caller() {
        Xts::new(VolumeKey::random().expose()).unwrap().encrypt_in_place(&mut [0; 1000], 0, 512);
    }
}
