//! `POST /rng`: random bytes of the operating system, as Managed HSM gives them.

use aws_lc_rs::rand;
use public_api::key_operations::{GetRandomBytesRequest, RandomBytes};

use super::AppError;

/// Most bytes in one answer (Managed HSM's limit).
const MOST: u32 = 128;

/// So many random bytes.
pub fn bytes(request: GetRandomBytesRequest) -> Result<RandomBytes, AppError> {
    if !(1..=MOST).contains(&request.count) {
        return Err(AppError::bad("count", format!("expected 1 to {MOST}")));
    }
    let mut value = vec![0; request.count as usize];
    rand::fill(&mut value).expect("the system has random numbers");
    Ok(RandomBytes { value })
}
