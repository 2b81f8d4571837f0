//! Random numbers without a state: Philox 4×32 with 10 rounds (Salmon et al., *Parallel Random Numbers: As Easy as
//! 1, 2, 3*, 2011).

/// Four random words: a function of `counter` and `key`.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b] = [(counter[0], 0xd251_1f53), (counter[2], 0xcd9e_8d57)].map(|(x, m)| u64::from(x) * m);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// The number in `0..1` that a draw with this seed and step is made by, from 53 random bits.
pub fn uniform(seed: u64, step: u32) -> f64 {
    let [low, high, ..] = philox([step, 0, 0, 0], [seed as u32, (seed >> 32) as u32]);
    ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_words() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn is_uniform_over_steps_and_seeds() {
        for fixed in [0, 7, u64::MAX] {
            let mut bins = [0u32; 64];
            for i in 0..64_000 {
                let x =
                    if i % 2 == 0 { uniform(fixed, i) } else { uniform(u64::from(i) << 20, fixed as u32) };
                bins[(x * 64.0) as usize] += 1;
            }
            let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
            assert!((25.0..120.0).contains(&chi), "{chi} for 63 degrees of freedom");
        }
    }
}
