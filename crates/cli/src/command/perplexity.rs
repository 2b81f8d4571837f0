//! `bessemer perplexity`: how well a model predicts a text.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bessemer_text::SpecialTokens;
use clap::Args;
use serde_json::json;

use crate::model_arguments::{EngineArguments, Loaded};
use crate::{output, progress};

const AFTER_HELP: &str = "\
Examples:
  bessemer perplexity --text story.txt
  bessemer perplexity --tokens-file validation.bin --row-length 1024 --rows 16 --exact

The tokens are cut into rows of --row-length, each computed for itself; a last row of at least two tokens counts too.
In a row of n tokens the first one predicts the second, and so on: n - 1 predictions. The result is the mean over all
predictions of -ln(probability of the token that came), and its exponential.";

/// Measures the mean negative log-likelihood per predicted token, and the perplexity.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, group = clap::ArgGroup::new("source").required(true))]
pub struct Perplexity {
    /// File of token ids, 16 bits each, little endian.
    #[arg(long, value_name = "FILE", group = "source")]
    tokens_file: Option<PathBuf>,
    /// Text file, made into tokens by the model's tokenizer.
    #[arg(long, value_name = "FILE", group = "source")]
    text: Option<PathBuf>,
    /// Tokens of a row.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..))]
    row_length: u32,
    /// Rows at most [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rows: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

impl Perplexity {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        // Before the model is loaded: a wrong path should be known at once.
        let ids = self.tokens_file.as_deref().map(read_ids).transpose()?;
        let text = self.text.as_deref().map(read_text).transpose()?;
        let Loaded { engine, .. } = self.engine.load(1)?;
        let ids = match (ids, text) {
            (Some(ids), _) => ids,
            (None, Some(text)) => {
                let Some(tokenizer) = engine.tokenizer() else {
                    bail!("--text: needs a model with a tokenizer, but this one has none. Use --tokens-file");
                };
                tokenizer.encode(&text, SpecialTokens::Add)?
            }
            (None, None) => bail!("--text, --tokens-file: one must be given. Give one"),
        };
        let rows = self.cut(&ids)?;
        let bar = progress::steps(rows.len(), "rows");
        let (mut sum, mut predictions) = (0.0, 0);
        let vocab = engine.info().vocab;
        // One row at a time: memory is bounded by its logits, whatever the length of the text.
        for row in &rows {
            let logits = engine.logits(row)?;
            sum += logits.chunks_exact(vocab).zip(&row[1..]).map(|(l, next)| nll(l, *next)).sum::<f64>();
            predictions += row.len() - 1;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mean = sum / predictions as f64;
        if self.json {
            return output::print_json(&json!({
                "model": engine.info().model,
                "rows": rows.len(),
                "row_length": self.row_length,
                "predictions": predictions,
                "nll": mean,
                "perplexity": mean.exp(),
            }));
        }
        output::print_line(&format!(
            "mean NLL {mean:.6} nats per token, perplexity {:.4} ({predictions} predictions in {} rows)",
            mean.exp(),
            rows.len()
        ))
    }

    fn cut<'i>(&self, ids: &'i [u32]) -> anyhow::Result<Vec<&'i [u32]>> {
        let limit = self.rows.map_or(usize::MAX, |rows| rows as usize);
        let rows: Vec<_> =
            ids.chunks(self.row_length as usize).filter(|row| row.len() >= 2).take(limit).collect();
        if rows.is_empty() {
            bail!("the text must have at least 2 tokens, but it has {}. Give a longer one", ids.len());
        }
        Ok(rows)
    }
}

fn read_ids(path: &Path) -> anyhow::Result<Vec<u32>> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read it", path.display()))?;
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        bail!(
            "{}: must hold 16-bit tokens, but it has {} bytes, an odd number. Write every token as two bytes, little \
             endian",
            path.display(),
            bytes.len()
        );
    }
    Ok(pairs.iter().map(|pair| u16::from_le_bytes(*pair).into()).collect())
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{}: cannot read it as UTF-8 text", path.display()))
}

/// Negative log-likelihood of token `next` under `logits`, in nats. The engine has refused ids outside of these.
fn nll(logits: &[f32], next: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    sum.ln() + f64::from(largest) - logits.get(next as usize).map_or(f64::NAN, |logit| f64::from(*logit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_are_a_fair_die() {
        assert!((nll(&[1e4; 6], 3) - 6_f64.ln()).abs() < 1e-12);
        assert!((nll(&[0.0, (3_f32).ln()], 1) - (4_f64 / 3.0).ln()).abs() < 1e-6);
    }
}
