//! Numbers that no stranger can guess, from a key that the caller drew: SipHash-2-4 (Aumasson,
//! Bernstein 2012) as a keyed function, for tokens and tables, and over a counter, for transaction
//! ids and random bytes.

/// A key of 128 bits, and what is derived from it.
#[derive(Clone)]
pub(super) struct Secret {
    key: (u64, u64),
}

impl Secret {
    pub(super) fn new(key: [u8; 16]) -> Secret {
        let word = |half: &[u8]| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(half);
            u64::from_le_bytes(bytes)
        };
        Secret {
            key: (word(&key[..8]), word(&key[8..])),
        }
    }

    /// A number that only who knows the key can tell for this text.
    pub(super) fn tag(&self, text: &[u8]) -> u64 {
        let (k0, k1) = self.key;
        let mut state = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        let words = text.chunks_exact(8);
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        last[7] = (text.len() & 0xff) as u8;
        for word in words.chain([&last[..]]) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            let word = u64::from_le_bytes(bytes);
            state[3] ^= word;
            round(&mut state);
            round(&mut state);
            state[0] ^= word;
        }
        state[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

fn round(state: &mut [u64; 4]) {
    let [v0, v1, v2, v3] = state;
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

/// A stream of numbers that cannot be told from those that came before.
pub(super) struct SecretRandom {
    secret: Secret,
    drawn: u64,
}

impl SecretRandom {
    pub(super) fn new(secret: Secret) -> SecretRandom {
        SecretRandom { secret, drawn: 0 }
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.secret.tag(&self.drawn.to_le_bytes())
    }

    /// A number below `bound`, or 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.next_u64()) * (bound as u128);
        (product >> 64) as usize
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the paper's reference code: the key 00 01 … 0f and texts 00 01 … of growing length.
    #[test]
    fn the_tags_are_those_of_siphash_2_4() {
        let key: [u8; 16] = std::array::from_fn(|index| index as u8);
        let text: [u8; 63] = std::array::from_fn(|index| index as u8);
        let secret = Secret::new(key);
        assert_eq!(secret.tag(&text[..0]), 0x726f_db47_dd0e_0e31);
        assert_eq!(secret.tag(&text[..1]), 0x74f8_39c5_93dc_67fd);
        assert_eq!(secret.tag(&text[..15]), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn two_keys_have_nothing_in_common() {
        let mut one = SecretRandom::new(Secret::new([1; 16]));
        let mut other = SecretRandom::new(Secret::new([2; 16]));
        let mut same = SecretRandom::new(Secret::new([1; 16]));
        let (a, b, c): ([u8; 20], [u8; 20], [u8; 20]) = (one.bytes(), other.bytes(), same.bytes());
        assert_ne!(a, b);
        assert_eq!(a, c);
        assert!((0..100).all(|_| one.below(7) < 7));
        assert_eq!(one.below(0), 0);
    }
}
