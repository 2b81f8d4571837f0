//! What packed weights mean: the plain reference that every kernel must agree with.
//!
//! - Codes are a **little-endian bit stream**: code `i` of a row takes bits `i·bits …` of the row's bytes, so codes of 3,
//!   5 and 6 bits cross byte and word boundaries. A row fills whole `u32` words.
//! - Arithmetic is **float32** whatever the scales are stored in; converting bfloat16 or float16 scales is exact.
//!
//! Source: `mx.quantize` (affine); OCP Microscaling Formats v1.0 (mxfp4: elements e2m1, scales e8m0).

use crate::quantisation::{SUPPORTED_BITS, SUPPORTED_GROUPS};
use crate::{Format, LinearWeight, Result, WeightsError};

/// The sixteen values of e2m1.
const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The weights as float32, row-major in the shape of the layer (`[out, in]` or `[experts, out, in]`).
pub fn dequantise(weight: &LinearWeight<'_>) -> Result<Vec<f32>> {
    let (format, inp, codes, scales, biases) = match weight {
        LinearWeight::Plain(tensor) => return tensor.to_f32(),
        LinearWeight::Quantised { format, inp, codes, scales, biases, .. } => {
            (*format, *inp, codes, scales, biases)
        }
    };
    if let Format::Affine { bits, group } = format
        && !(SUPPORTED_BITS.contains(&bits.into()) && SUPPORTED_GROUPS.contains(&(group as u64)))
    {
        return Err(WeightsError::Quantisation {
            field: codes.name.clone(),
            value: format!("{bits} bits, group {group}"),
            rule: format!("bits must be one of {SUPPORTED_BITS:?}, the group one of {SUPPORTED_GROUPS:?}"),
            cure: "Read the weight through `Weights`, which checks its format",
        });
    }
    let rows = codes.bytes.chunks_exact(format.words(inp).saturating_mul(4).max(1));
    let mut values = Vec::with_capacity(codes.bytes.len() * 8 / format.bits());
    match format {
        Format::Mxfp4 => {
            let scales = scales.bytes.chunks_exact((inp / format.group()).max(1));
            for (row, scales) in rows.zip(scales) {
                for (codes, scale) in row.chunks_exact(16).zip(scales) {
                    let scale = e8m0(*scale);
                    let nibbles = codes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
                    values.extend(nibbles.map(|code| scale * E2M1[usize::from(code & 15)]));
                }
            }
        }
        Format::Affine { bits, group } => {
            let scales = scales.to_f32()?;
            let biases = match biases {
                Some(biases) => biases.to_f32()?,
                None => vec![0.0; scales.len()],
            };
            let bits = usize::from(bits);
            let groups = rows.flat_map(|row| row.chunks_exact((group * bits / 8).max(1)));
            for ((codes, scale), bias) in groups.zip(scales).zip(biases) {
                values.extend((0..group).map(|i| scale * f32::from(code(codes, i * bits, bits)) + bias));
            }
        }
    }
    Ok(values)
}

/// `bits` (at most 8) bits from bit `at` of a little-endian stream.
fn code(stream: &[u8], at: usize, bits: usize) -> u8 {
    let byte = |i: usize| u16::from(stream.get(i).copied().unwrap_or(0));
    let pair = byte(at / 8) | byte(at / 8 + 1) << 8;
    ((pair >> (at % 8)) & ((1 << bits) - 1)) as u8
}

/// 2^(e − 127); e = 0 is the subnormal 2^−127.
fn e8m0(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(0x0040_0000),
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MLX packs eight codes of `bits` bits into `bits` bytes, the first lowest; checked against one wide integer.
    #[test]
    fn codes_of_every_width_are_found_across_byte_boundaries() {
        for bits in [2usize, 3, 4, 5, 6, 8] {
            let codes: Vec<u64> = (0..8).map(|i| (i * 37 + 11) % (1 << bits)).collect();
            let packed = codes.iter().enumerate().fold(0u64, |packed, (i, code)| packed | code << (i * bits));
            let stream = packed.to_le_bytes();
            for (i, expected) in codes.iter().enumerate() {
                assert_eq!(
                    u64::from(code(&stream[..bits], i * bits, bits)),
                    *expected,
                    "code {i} of {bits} bits"
                );
            }
        }
    }

    #[test]
    fn exponents_are_powers_of_two() {
        assert_eq!([e8m0(127), e8m0(128), e8m0(120)], [1.0, 2.0, 1.0 / 128.0]);
        assert_eq!(f64::from(e8m0(0)), 2f64.powi(-127));
    }
}
