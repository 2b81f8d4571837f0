//! Test data: what other implementations computed, and reproducible random numbers.

use std::path::PathBuf;

use safetensors::SafeTensors;
use serde_json::Value;

/// One operator's oracle data.
pub(crate) struct Golden {
    arrays: Vec<u8>,
    description: Value,
}

impl Golden {
    /// `tests/golden/ops/NAME.json`, with its arrays where it has any.
    pub(crate) fn open(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ops");
        let json = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        Self {
            arrays: std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap_or_default(),
            description: serde_json::from_slice(&json).unwrap(),
        }
    }

    /// The cases.
    pub(crate) fn cases(&self) -> &[Value] {
        self.description["cases"].as_array().unwrap()
    }

    /// An array of f32.
    pub(crate) fn f32(&self, key: &str) -> Vec<f32> {
        self.words(key).into_iter().map(f32::from_bits).collect()
    }

    /// An array of 32-bit words.
    pub(crate) fn words(&self, key: &str) -> Vec<u32> {
        let tensors = SafeTensors::deserialize(&self.arrays).unwrap();
        let bytes = tensors.tensor(key).unwrap().data();
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// `n` numbers, about normal with standard deviation 1.
    pub(crate) fn normal(&mut self, n: usize) -> Vec<f32> {
        let mut uniform = || (self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        (0..n).map(|_| 2.0 * (uniform() + uniform() + uniform())).collect()
    }
}
