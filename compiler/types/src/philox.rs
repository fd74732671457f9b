//! Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Four random words for one counter under one key.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// The key of one stream of random numbers: a hash of the plan's seed and the stream's name, so that adding a
/// stream moves no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub [u32; 2]);

impl Key {
    pub fn new(seed: u64, name: &str) -> Self {
        // Philox itself is the mixing function: each 16-byte piece of the name is a counter under the running key.
        let mut key = [seed as u32, (seed >> 32) as u32];
        let bytes = name.as_bytes();
        let pieces = bytes.len() / 16 + 1;
        for piece in 0..pieces {
            let mut block = [0u8; 16];
            let part = &bytes[piece * 16..bytes.len().min(piece * 16 + 16)];
            block[..part.len()].copy_from_slice(part);
            let word =
                |i: usize| u32::from_le_bytes([block[4 * i], block[4 * i + 1], block[4 * i + 2], block[4 * i + 3]]);
            let out = philox4x32_10([word(0), word(1), word(2), word(3)], key);
            key = [out[0] ^ out[2] ^ bytes.len() as u32, out[1] ^ out[3]];
        }
        Self(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        // kat_vectors of the Random123 distribution, philox4x32 10 rounds.
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn names_separate_streams() {
        assert_ne!(Key::new(0, "noise"), Key::new(0, "t"));
        assert_ne!(Key::new(0, "noise"), Key::new(1, "noise"));
        assert_ne!(Key::new(0, "abcdefghijklmnop"), Key::new(0, "abcdefghijklmnopq"));
    }
}
