//! SipHash-2-4 with 128 bits, keyed at random for each pass: two keys of clients are never taken for one, neither by
//! chance (2^-128 a pair) nor on purpose, because nobody can compute it outside.

use common::Rng;

/// A keyed hash.
#[derive(Clone, Copy, Debug)]
pub struct KeyHash {
    k0: u64,
    k1: u64,
}

struct State {
    v: [u64; 4],
}

impl State {
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.v;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    fn squeeze(&mut self) -> u64 {
        (0..4).for_each(|_| self.round());
        self.v.iter().fold(0, |all, v| all ^ v)
    }
}

impl KeyHash {
    /// A hash under a random key.
    #[must_use]
    pub fn random(rng: &Rng) -> Self {
        Self { k0: rng.next_u64(), k1: rng.next_u64() }
    }

    /// The hash of `bytes`.
    #[must_use]
    pub fn of(&self, bytes: &[u8]) -> [u64; 2] {
        let mut state = State {
            v: [
                self.k0 ^ 0x736f_6d65_7073_6575,
                self.k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
                self.k0 ^ 0x6c79_6765_6e65_7261,
                self.k1 ^ 0x7465_6462_7974_6573,
            ],
        };
        let (words, tail) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| state.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        last[7] = u8::try_from(bytes.len() & 0xff).expect("masked");
        state.word(u64::from_le_bytes(last));
        state.v[2] ^= 0xee;
        let low = state.squeeze();
        state.v[1] ^= 0xdd;
        [low, state.squeeze()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_vectors() {
        let hash = KeyHash { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };
        let bytes = |words: [u64; 2]| words.map(u64::to_le_bytes).concat();
        let empty = [
            0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55,
            0x02, 0x93,
        ];
        assert_eq!(bytes(hash.of(&[])), empty);
        let one = [
            0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22,
            0xfc, 0x45,
        ];
        assert_eq!(bytes(hash.of(&[0])), one);
    }
}
