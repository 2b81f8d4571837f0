//! How tokens are drawn: flags over what the model's own files recommend.
//!
//! Ranges are the engine's own; they stand here once more so that a wrong value is told before a large model is loaded.

use bessemer_engine::{GenerationDefaults, Sampling};
use clap::Args;

/// Flags for sampling. What is not given comes from the model's generation_config.json.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling (defaults: the model's generation_config.json)")]
pub struct SamplingArguments {
    /// 0 is greedy, 1 the model's own distribution; up to 2.
    #[arg(short, long, value_name = "T", value_parser = |text: &str| number(text, 0.0, 2.0))]
    pub temperature: Option<f32>,
    /// Keep the K most probable tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Keep the smallest set of most probable tokens that sums to P.
    #[arg(long, value_name = "P", value_parser = |text: &str| number(text, f32::MIN_POSITIVE, 1.0))]
    pub top_p: Option<f32>,
    /// Drop tokens less probable than P times the most probable one.
    #[arg(long, value_name = "P", value_parser = |text: &str| number(text, 0.0, 1.0))]
    pub min_p: Option<f32>,
    /// Makes tokens of prompt and output less likely; 1 is off.
    #[arg(long, value_name = "R", value_parser = |text: &str| number(text, f32::MIN_POSITIVE, f32::MAX))]
    pub repetition_penalty: Option<f32>,
    /// Subtracted once from tokens of the output, -2 to 2.
    #[arg(long, value_name = "P", allow_negative_numbers = true,
        value_parser = |text: &str| number(text, -2.0, 2.0))]
    pub presence_penalty: Option<f32>,
    /// Subtracted per occurrence from tokens of the output, -2 to 2.
    #[arg(long, value_name = "P", allow_negative_numbers = true,
        value_parser = |text: &str| number(text, -2.0, 2.0))]
    pub frequency_penalty: Option<f32>,
    /// Add VALUE (-100 to 100) to the logit of token ID; may be given several times.
    #[arg(long, value_name = "ID=VALUE", value_parser = bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the draw reproducible.
    #[arg(short, long)]
    pub seed: Option<u64>,
}

impl SamplingArguments {
    /// The flags over the model's `defaults`.
    pub fn over(&self, defaults: &GenerationDefaults) -> Sampling {
        let base = defaults.sampling();
        Sampling {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
            top_logprobs: 0,
        }
    }
}

fn number(text: &str, low: f32, high: f32) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ if low == f32::MIN_POSITIVE && high == f32::MAX => Err("must be a number above 0".into()),
        _ if low == f32::MIN_POSITIVE => Err(format!("must be a number above 0 and up to {high}")),
        _ => Err(format!("must be a number from {low} to {high}")),
    }
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let rule = || String::from("must be a token id and a value, such as 42=-5");
    let (id, value) = text.split_once('=').ok_or_else(rule)?;
    Ok((id.parse().map_err(|_| rule())?, number(value, -100.0, 100.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        sampling: SamplingArguments,
    }

    fn parse(flags: &[&str]) -> Result<SamplingArguments, clap::Error> {
        Only::try_parse_from(std::iter::once("test").chain(flags.iter().copied())).map(|only| only.sampling)
    }

    #[test]
    fn flags_beat_the_files_of_the_model() {
        let defaults =
            GenerationDefaults { temperature: Some(0.7), top_k: Some(20), ..GenerationDefaults::default() };
        let sampling = parse(&["--top-k", "5", "--logit-bias", "3=-100"]).unwrap().over(&defaults);
        assert_eq!((sampling.temperature, sampling.top_k), (0.7, 5));
        assert_eq!(sampling.logit_bias, [(3, -100.0)]);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (flag, value) in [
            ("--temperature", "2.1"),
            ("--temperature", "NaN"),
            ("--top-p", "0"),
            ("--min-p", "1.5"),
            ("--repetition-penalty", "0"),
            ("--repetition-penalty", "inf"),
            ("--presence-penalty", "-2.5"),
            ("--frequency-penalty", "3"),
            ("--logit-bias", "3"),
            ("--logit-bias", "3=101"),
            ("--seed", "-1"),
        ] {
            assert!(parse(&[flag, value]).is_err(), "{flag} {value}");
        }
        assert_eq!(parse(&["--presence-penalty", "-2"]).unwrap().presence_penalty, Some(-2.0));
    }
}
