//! The frequencies of a model, with the ways of stretching them to longer contexts.

use std::f64::consts::TAU;

/// How frequencies are changed for contexts longer than those of the first training; names as in Hugging Face's
/// `rope_scaling`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// They are not.
    None,
    /// All divided by `factor`.
    Linear {
        /// How much longer.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided by `factor`, short ones stay, between them a ramp.
    Llama3 {
        /// How much longer.
        factor: f64,
        /// Wavelengths above `original_max_position / low_freq_factor` are stretched.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position / high_freq_factor` stay.
        high_freq_factor: f64,
        /// Context of the first training.
        original_max_position: usize,
    },
    /// YaRN (Peng et al., 2023): a ramp between dimensions, and sharper attention.
    Yarn {
        /// How much longer.
        factor: f64,
        /// Context of the first training; the model's `max_position` where the configuration names none.
        original_max_position: Option<usize>,
        /// Rotations within the first context above which a dimension stays (usually 32).
        beta_fast: f64,
        /// Rotations below which a dimension is stretched by all of `factor` (usually 1).
        beta_slow: f64,
        /// What cosines and sines are multiplied by; computed where the configuration names none.
        attention_factor: Option<f64>,
        /// Weighs the computed factor, together with `mscale_all_dim`.
        mscale: Option<f64>,
        /// See `mscale`.
        mscale_all_dim: Option<f64>,
        /// Whether the ends of the ramp are whole dimensions.
        truncate: bool,
    },
}

/// Frequencies of the `dim / 2` pairs of `dim` rotated columns, in radians per position, and the factor that cosines
/// and sines are multiplied by.
///
/// `base` is `rope_theta`; `max_position` the longest context of the model.
pub fn inv_freq(scaling: &RopeScaling, base: f64, dim: usize, max_position: usize) -> (Vec<f32>, f32) {
    // In f32 and rounded where transformers rounds: a position multiplies whatever a frequency is off by.
    let powers = (0..dim / 2).map(|i| base.powf(f64::from((2 * i) as f32 / dim as f32)) as f32);
    match *scaling {
        RopeScaling::None => (powers.map(|power| 1.0 / power).collect(), 1.0),
        RopeScaling::Linear { factor } => (powers.map(|power| 1.0 / power / factor as f32).collect(), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
            let original = original_max_position as f64;
            let [longest, shortest] =
                [low_freq_factor, high_freq_factor].map(|factor| (original / factor) as f32);
            let (low, range) = (low_freq_factor as f32, (high_freq_factor - low_freq_factor) as f32);
            let stretch = |power: f32| {
                let freq = 1.0 / power;
                let wavelength = 1.0 / freq * TAU as f32;
                if wavelength > longest {
                    freq / factor as f32
                } else if wavelength < shortest {
                    freq
                } else {
                    let smooth = (1.0 / wavelength * original as f32 - low) / range;
                    (1.0 - smooth) * freq / factor as f32 + smooth * freq
                }
            };
            (powers.map(stretch).collect(), 1.0)
        }
        RopeScaling::Yarn {
            factor,
            original_max_position,
            beta_fast,
            beta_slow,
            attention_factor,
            mscale,
            mscale_all_dim,
            truncate,
        } => {
            let original = original_max_position.unwrap_or(max_position) as f64;
            // The dimension that makes so many rotations within the original context.
            let dimension =
                |rotations: f64| dim as f64 * (original / (rotations * TAU)).ln() / (2.0 * base.ln());
            let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
            if low == high {
                high += 0.001; // A step instead of a division by zero.
            }
            let (start, width) = (low as f32, (high - low) as f32);
            let blend = |(i, power): (usize, f32)| {
                let kept = 1.0 - ((i as f32 - start) / width).clamp(0.0, 1.0);
                1.0 / (factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
            };
            let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
            let computed = match (mscale, mscale_all_dim) {
                (Some(over), Some(under)) if over != 0.0 && under != 0.0 => scale(over) / scale(under),
                _ => scale(1.0),
            };
            (powers.enumerate().map(blend).collect(), attention_factor.unwrap_or(computed) as f32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yarn_weighs_the_attention_factor() {
        let yarn = |attention_factor, mscale, mscale_all_dim| RopeScaling::Yarn {
            factor: 40.0,
            original_max_position: Some(4096),
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor,
            mscale,
            mscale_all_dim,
            truncate: true,
        };
        let factor = |scaling| inv_freq(&scaling, 10000.0, 64, 163_840).1;
        assert_eq!(factor(yarn(None, Some(0.707), Some(0.707))), 1.0);
        assert!((factor(yarn(None, None, None)) - (0.1 * 40f32.ln() + 1.0)).abs() < 1e-6);
        assert_eq!(factor(yarn(Some(1.25), Some(0.707), Some(1.0))), 1.25);
    }

    /// Frequencies of transformers 5.17; a computation in f64 is off by up to 4 and 2 units in the last place.
    #[test]
    fn frequencies_are_rounded_as_in_transformers() {
        let llama3 = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 256,
        };
        let expected = [
            1.0,
            0.19392276,
            0.0076381094,
            0.00022789578,
            4.419417e-05,
            8.570256e-06,
            1.6619674e-06,
            3.222933e-07,
        ];
        assert_eq!(inv_freq(&llama3, 500_000.0, 16, 1024).0, expected);

        let yarn = RopeScaling::Yarn {
            factor: 4.0,
            original_max_position: Some(256),
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
            mscale: None,
            mscale_all_dim: None,
            truncate: false,
        };
        let expected = [
            1.0,
            0.13522401,
            0.012874116,
            0.0018231663,
            0.00035355336,
            6.856205e-05,
            1.3295739e-05,
            2.5783463e-06,
        ];
        assert_eq!(inv_freq(&yarn, 500_000.0, 16, 1024).0, expected);
    }
}
