//! Chance from a seed that can be given again: `CASEMATE_SEED=N` repeats what a run has chosen. (What the machine does
//! with it, and when, is not repeated.)

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// One of the numbers that belong to a seed.
    pub fn new(seed: u64, part: u64) -> Self {
        Self(seed ^ part.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(from.len()).expect("a length is a number");
        if count == 0 {
            return None;
        }
        usize::try_from(self.below(count)).ok().and_then(|at| from.get(at))
    }
}

/// The seed of this run, and a line that says which it is.
#[allow(clippy::print_stderr, reason = "without the seed a failure cannot be repeated")]
pub fn seed() -> u64 {
    let given =
        std::env::var("CASEMATE_SEED").ok().map(|text| text.parse().expect("CASEMATE_SEED is a number"));
    let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    eprintln!("CASEMATE_SEED={seed}");
    seed
}
