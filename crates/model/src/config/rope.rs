//! The rope part of config.json, in the spelling of the hub (`rope_theta`, `rope_scaling`) and of transformers 5
//! (`rope_parameters`).

use bessemer_kernels::rope::RopeScaling;

use super::{Fields, RopeConfig, UNSUPPORTED};
use crate::error::{Result, config_error};

pub(super) fn rope(f: &Fields<'_>, head_dim: usize, context: usize) -> Result<RopeConfig> {
    let parameters = f.object("rope_parameters")?;
    let scaling = match &parameters {
        Some(p) => Some(p),
        None => None,
    };
    let old = f.object("rope_scaling")?;
    let scaling = scaling.or(old.as_ref());
    let theta = match &parameters {
        Some(p) => p.positive("rope_theta")?,
        None => None,
    };
    let theta = theta.or(f.positive("rope_theta")?).unwrap_or(10_000.0);
    let partial = match &parameters {
        Some(p) => p.positive("partial_rotary_factor")?,
        None => None,
    };
    let partial = partial.or(f.positive("partial_rotary_factor")?).unwrap_or(1.0);
    let rotated = (head_dim as f64 * partial) as usize;
    if partial > 1.0 || rotated == 0 || !rotated.is_multiple_of(2) {
        return Err(config_error(
            "partial_rotary_factor",
            &format!("must turn an even number of the {head_dim} elements of a head"),
            partial,
            "take the config.json that came with the weights",
        ));
    }
    let scaling = match scaling {
        Some(s) => scaling_of(s, context)?,
        None => RopeScaling::None,
    };
    Ok(RopeConfig { theta, scaling, rotated })
}

fn scaling_of(s: &Fields<'_>, context: usize) -> Result<RopeScaling> {
    let kind = match s.string("rope_type")? {
        Some(kind) => Some(kind),
        None => s.string("type")?,
    };
    let required = |key: &str| {
        s.positive(key)?.ok_or_else(|| {
            config_error(
                &s.name(key),
                "must be given for this rope_type",
                "nothing",
                "take the config.json that came with the weights",
            )
        })
    };
    let original = || Ok::<_, crate::ModelError>(s.positive("original_max_position_embeddings")?.unwrap_or(context as f64));
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
                original_max_position: original()?,
            })
        }
        "yarn" => Ok(RopeScaling::Yarn {
            factor: required("factor")?,
            original_max_position: original()?,
            beta_fast: s.positive("beta_fast")?,
            beta_slow: s.positive("beta_slow")?,
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
