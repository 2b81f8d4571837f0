//! Random shapes and contents.

use half::f16;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

/// `n` numbers, uniform in −1 to 1.
pub fn floats(rng: &mut SmallRng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..=1.0)).collect()
}

/// `n` halves, uniform in −1 to 1.
pub fn halves(rng: &mut SmallRng, n: usize) -> Vec<f16> {
    floats(rng, n).into_iter().map(f16::from_f32).collect()
}

/// `n` bytes, all values alike.
pub fn bytes(rng: &mut SmallRng, n: usize) -> Vec<u8> {
    let mut data = vec![0; n];
    rng.fill_bytes(&mut data);
    data
}

/// One of `choices`.
///
/// # Panics
/// When there is none.
pub fn one_of<T: Copy>(rng: &mut SmallRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

/// The numbers from 0 to `n`, shuffled.
pub fn permutation(rng: &mut SmallRng, n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for last in (1..n).rev() {
        order.swap(last, rng.random_range(0..=last));
    }
    order
}
