//! The numbers that a call draws.
//!
//! *SplitMix64* (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), written out: a seed in a
//! report must give the same schedule years later, which generators of crates promise for one version only.

use super::plan::Call;

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    /// The numbers of call `number` of its kind.
    pub(crate) fn new(seed: u64, call: Call, number: u64) -> Self {
        Self(mix(mix(seed ^ mix(call as u64 + 1)).wrapping_add(number)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// In `[0, 1)`.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In `0..bound`; zero when that is empty.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // Bounds are bytes and nanoseconds, so the remainder's bias is far below what any test could see.
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs for seed 1234567 of the authors' reference code.
        let mut draws = Draws(1_234_567);
        let first = [(); 3].map(|()| draws.next());
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn calls_draw_apart_from_one_another() {
        let first = |seed, call, number| Draws::new(seed, call, number).next();
        let drawn = [
            first(1, Call::Read, 0),
            first(1, Call::Read, 1),
            first(1, Call::Write, 0),
            first(2, Call::Read, 0),
            first(0, Call::CreateHeap, 0),
        ];
        for (i, a) in drawn.iter().enumerate() {
            assert_eq!(drawn.iter().position(|b| a == b), Some(i), "{drawn:?}");
        }
        let mut draws = Draws::new(7, Call::Read, 0);
        assert_eq!(draws.below(0), 0);
        assert!((0..1000).all(|_| draws.below(3) < 3 && (0.0..1.0).contains(&draws.fraction())));
    }
}
