//! Reproducible random bytes, fast enough that making up a model takes no longer than reading it.
//!
//! Word `i` of a stream is a hash of `seed + i` (splitmix64's finaliser, Steele et al., "Fast splittable pseudorandom
//! number generators", 2014): no state runs through it, so any part can be made by any thread with the same result.

use std::num::NonZero;
use std::thread;

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Bytes below which a second thread costs more than it gains.
const SHARE: usize = 8 << 20;

/// A stream of random words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream(u64);

impl Stream {
    /// The stream of `name` under `seed`: FNV-1a over the name, so that tensors differ.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self(finalise(hash ^ finalise(seed.wrapping_add(STEP))))
    }

    /// Word `index`.
    pub(crate) fn word(self, index: usize) -> u64 {
        finalise(self.0.wrapping_add((index as u64).wrapping_mul(STEP)))
    }

    /// `len` random bytes.
    pub(crate) fn bytes(self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.next_multiple_of(8)];
        parallel(&mut bytes, 8, |first, part| {
            for (i, slot) in part.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *slot = self.word(first + i).to_le_bytes();
            }
        });
        bytes.truncate(len);
        bytes
    }

    /// `elements` entries of `table`, picked evenly, one random byte each. `table` holds 256 values of `N` bytes.
    pub(crate) fn picks<const N: usize>(self, elements: usize, table: &[[u8; N]; 256]) -> Vec<u8> {
        let mut bytes = vec![0; elements * N];
        parallel(&mut bytes, 8 * N, |first, part| {
            for (i, slots) in part.chunks_mut(8 * N).enumerate() {
                let word = self.word(first + i).to_le_bytes();
                for (slot, pick) in slots.as_chunks_mut::<N>().0.iter_mut().zip(word) {
                    *slot = table[usize::from(pick)];
                }
            }
        });
        bytes
    }
}

fn finalise(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Calls `fill(index of the first unit, bytes)` over parts of `bytes` that are whole `unit`s, on all cores if it pays.
fn parallel(bytes: &mut [u8], unit: usize, fill: impl Fn(usize, &mut [u8]) + Sync) {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(bytes.len() / SHARE);
    if threads < 2 {
        return fill(0, bytes);
    }
    let units = bytes.len().div_ceil(unit).div_ceil(threads);
    thread::scope(|scope| {
        for (i, part) in bytes.chunks_mut(units * unit).enumerate() {
            let fill = &fill;
            scope.spawn(move || fill(i * units, part));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_the_whole_is() {
        let stream = Stream::new(7, "model.norm");
        let large = stream.bytes(3 * SHARE + 5);
        assert_eq!(large.len(), 3 * SHARE + 5);
        for word in [0, 1, SHARE / 8, SHARE / 4 + 3, 3 * SHARE / 8 - 1] {
            assert_eq!(large[word * 8..word * 8 + 8], stream.word(word).to_le_bytes(), "word {word}");
        }
        let table: [[u8; 2]; 256] = std::array::from_fn(|i| [i as u8, 1]);
        let picks = stream.picks(2 * SHARE + 3, &table);
        assert_eq!(picks.len(), 4 * SHARE + 6);
        for element in [0, 9, SHARE, 2 * SHARE + 2] {
            assert_eq!(picks[2 * element..2 * element + 2], [large[element], 1], "element {element}");
        }
    }

    #[test]
    fn bytes_are_even_and_names_and_seeds_differ() {
        let bytes = Stream::new(1, "a").bytes(1 << 20);
        let mean = bytes.iter().map(|&b| f64::from(b)).sum::<f64>() / bytes.len() as f64;
        assert!((mean - 127.5).abs() < 0.5, "{mean}");
        assert_ne!(Stream::new(1, "a").word(0), Stream::new(1, "b").word(0));
        assert_ne!(Stream::new(1, "a").word(0), Stream::new(2, "a").word(0));
    }
}
