//! Randomness, as a value that is passed in.

use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

/// A shared, seeded generator (xoshiro256**, Blackman and Vigna 2018). Clones draw from the same sequence. Not for
/// secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    // Held for a few instructions and never over an await, so a plain mutex is enough.
    state: Arc<Mutex<[u64; 4]>>,
}

impl Rng {
    /// A generator whose sequence is a function of `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut mix = seed;
        let state = [(); 4].map(|()| split_mix(&mut mix));
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A generator seeded by the operating system.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the seam itself")]
    pub fn from_entropy() -> Self {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        Self::seeded(high ^ low.rotate_left(32))
    }

    /// The next 64 bits.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        let mut s = self.state.lock();
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in `[0, bound)`; 0 when `bound` is 0. The bias is below 2^-64 * bound.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a 128-bit product fits 64 bits")
    }

    /// True once in `n` draws on average; never for 0.
    #[must_use]
    pub fn one_in(&self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// A random (version 4) UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let bits = (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// A generator of its own whose seed is drawn from this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::seeded(self.next_u64())
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_sequence() {
        let (a, b) = (Rng::seeded(42), Rng::seeded(42));
        for _ in 0..100 {
            assert_eq!(a.next_u64(), b.next_u64());
        }
        assert_ne!(Rng::seeded(1).next_u64(), Rng::seeded(2).next_u64());
    }

    #[test]
    fn below_stays_below() {
        let rng = Rng::seeded(7);
        for bound in [1, 2, 3, 1000, u64::MAX] {
            for _ in 0..100 {
                assert!(rng.below(bound) < bound);
            }
        }
        assert_eq!(rng.below(0), 0);
    }
}
