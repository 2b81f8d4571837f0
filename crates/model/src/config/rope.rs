//! The rope part of config.json, in the spelling of the hub (`rope_theta`, `rope_scaling`) and of transformers 5
//! (`rope_parameters`).

use bessemer_kernels::rope::RopeScaling;

use super::{Fields, LARGEST, RopeConfig, UNSUPPORTED};
use crate::error::{Result, config_error};

pub(super) fn rope(f: &Fields<'_>, head_dim: usize) -> Result<RopeConfig> {
    let parameters = f.object("rope_parameters")?;
    let scaling = match f.object("rope_scaling")? {
        Some(scaling) if parameters.is_none() => Some(scaling),
        _ => None,
    };
    // transformers 5 keeps all of it in one object; before, only the scaling had one.
    let number = |key: &str| match parameters.as_ref().map(|p| p.positive(key)).transpose()?.flatten() {
        Some(value) => Ok(Some(value)),
        None => f.positive(key),
    };
    let theta = number("rope_theta")?.unwrap_or(10_000.0);
    let partial = number("partial_rotary_factor")?.unwrap_or(1.0);
    let rotated = (head_dim as f64 * partial) as usize;
    if partial > 1.0 || rotated == 0 || !rotated.is_multiple_of(2) {
        return Err(config_error(
            "partial_rotary_factor",
            &format!("must turn an even number of the {head_dim} elements of a head"),
            partial,
            "take the config.json that came with the weights",
        ));
    }
    let scaling = parameters.or(scaling).map(|s| scaling_of(&s)).transpose()?.unwrap_or(RopeScaling::None);
    Ok(RopeConfig { theta, scaling, rotated })
}

fn scaling_of(s: &Fields<'_>) -> Result<RopeScaling> {
    let kind = match s.string("rope_type")? {
        Some(kind) => Some(kind),
        None => s.string("type")?,
    };
    let missing = |key: &str| {
        let rule = "must be given for this rope_type";
        config_error(&s.name(key), rule, "nothing", "take the config.json that came with the weights")
    };
    let required = |key: &str| s.positive(key)?.ok_or_else(|| missing(key));
    let original = "original_max_position_embeddings";
    match kind.unwrap_or("default") {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: required("factor")? }),
        "llama3" => {
            let (low, high) = (required("low_freq_factor")?, required("high_freq_factor")?);
            if low >= high {
                return Err(config_error(
                    &s.name("low_freq_factor"),
                    &format!("must be below high_freq_factor ({high})"),
                    low,
                    "take the config.json that came with the weights",
                ));
            }
            Ok(RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position: s
                    .optional_size(original, LARGEST)?
                    .ok_or_else(|| missing(original))?,
            })
        }
        "yarn" => Ok(RopeScaling::Yarn {
            factor: required("factor")?,
            original_max_position: s.optional_size(original, LARGEST)?,
            beta_fast: s.positive("beta_fast")?.unwrap_or(32.0),
            beta_slow: s.positive("beta_slow")?.unwrap_or(1.0),
            attention_factor: s.positive("attention_factor")?,
            mscale: s.positive("mscale")?,
            mscale_all_dim: s.positive("mscale_all_dim")?,
            truncate: s.flag("truncate")?.unwrap_or(true),
        }),
        other => Err(config_error(
            &s.name("rope_type"),
            "must be one of default, linear, llama3, yarn",
            other,
            UNSUPPORTED,
        )),
    }
}
