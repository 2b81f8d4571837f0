//! `bessemer generate`: continue a prompt.

use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bessemer_engine::{ChatPrompt, FinishReason, Prompt, TextReply, TextRequest, TextStream, Usage};
use clap::Args;
use serde_json::json;

use crate::model_arguments::{EngineArguments, Loaded};
use crate::output;
use crate::sampling_arguments::SamplingArguments;

const AFTER_HELP: &str = "\
Examples:
  bessemer generate \"Once upon a time\"
  bessemer generate --temperature 0 --max-tokens 40 --stats \"The fox said to the wolf,\"
  bessemer generate --chat --model ./my-model \"Tell me about dragons.\"
  cat prompt.txt | bessemer generate - --stop \"END\" --json";

/// Continues a prompt and prints the text as it comes.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Generate {
    /// What to continue; - reads standard input, and so does no prompt in a pipe.
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
    /// Tokens to generate at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// End the text before this string; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Put the prompt as a user's message through the model's chat template.
    #[arg(long)]
    chat: bool,
    /// Print one JSON object at the end: text, tokens, usage, finish_reason, timings.
    #[arg(long)]
    json: bool,
    /// Print a line of statistics on standard error; -v does too.
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// What came out.
struct Outcome {
    text: String,
    tokens: Vec<u32>,
    usage: Usage,
    reason: FinishReason,
    matched_stop: Option<String>,
    timings: Timings,
}

/// When it came out.
struct Timings {
    load: Duration,
    /// From the request to the first piece of text.
    first: Duration,
    /// From the first to the last piece of text.
    rest: Duration,
}

impl Generate {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let prompt = self.read_prompt()?;
        let Loaded { engine, load_time } = self.engine.load(1)?;
        let request = TextRequest {
            prompt: match self.chat {
                true => Prompt::Chat(ChatPrompt::new(json!([{"role": "user", "content": prompt}]))),
                false => Prompt::Text(prompt),
            },
            sampling: self.sampling.over(engine.generation_defaults()),
            max_tokens: Some(self.max_tokens as usize),
            stop: self.stop.clone(),
            ..TextRequest::default()
        };
        let start = Instant::now();
        let stream = engine.generate_text(request)?;
        let outcome = self.follow(stream, start, load_time)?;
        if self.json {
            output::print_json(&outcome.json(&engine.info().model))?;
        } else {
            output::print("\n")?;
        }
        if self.stats {
            output::note(&outcome.line());
        } else {
            tracing::info!("{}", outcome.line());
        }
        Ok(())
    }

    fn read_prompt(&self) -> anyhow::Result<String> {
        match self.prompt.as_deref() {
            Some("-") => {}
            Some(prompt) => return Ok(prompt.to_owned()),
            None if std::io::stdin().is_terminal() => {
                bail!(
                    "PROMPT: must be given, but there is none. Give a text, or - to type it on standard input"
                )
            }
            None => {}
        }
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("PROMPT: cannot be read from standard input as UTF-8 text")?;
        // The line end that `echo` and editors put there is not meant as part of the prompt.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }

    fn follow(&self, mut stream: TextStream, start: Instant, load: Duration) -> anyhow::Result<Outcome> {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let (mut first, mut last) = (None, start);
        while let Some(reply) = stream.blocking_next() {
            match reply {
                TextReply::Delta { text: piece, tokens: new } => {
                    last = Instant::now();
                    first.get_or_insert(last);
                    if !self.json {
                        output::print(&piece)?;
                    }
                    text.push_str(&piece);
                    tokens.extend(new.iter().map(|token| token.id));
                }
                TextReply::Finished { reason, usage, matched_stop } => {
                    let first = first.unwrap_or_else(Instant::now);
                    let rest = last.saturating_duration_since(first);
                    let timings = Timings { load, first: first - start, rest };
                    return Ok(Outcome { text, tokens, usage, reason, matched_stop, timings });
                }
                TextReply::Failed(error) => return Err(error.into()),
            }
        }
        bail!("the engine ended without an answer. This is a bug: please report it")
    }
}

impl Outcome {
    /// Tokens per second after the first one; absent for a single token.
    fn decode_rate(&self) -> Option<f64> {
        let seconds = self.timings.rest.as_secs_f64();
        let tokens = self.usage.completion_tokens.checked_sub(1)?;
        (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
    }

    fn json(&self, model: &str) -> serde_json::Value {
        json!({
            "model": model,
            "text": self.text,
            "tokens": self.tokens,
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "completion_tokens": self.usage.completion_tokens,
            },
            "finish_reason": self.reason,
            "matched_stop": self.matched_stop,
            "timings": {
                "load_s": self.timings.load.as_secs_f64(),
                "ttft_ms": self.timings.first.as_secs_f64() * 1e3,
                "decode_tok_s": self.decode_rate(),
                "total_s": (self.timings.first + self.timings.rest).as_secs_f64(),
            },
        })
    }

    fn line(&self) -> String {
        let reason = match (&self.matched_stop, self.reason) {
            (Some(stop), _) => format!("stop string {stop:?}"),
            (None, FinishReason::Stop) => "end token".into(),
            (None, FinishReason::Length) => "length".into(),
            (None, FinishReason::Cancelled) => "cancelled".into(),
        };
        let rate = self.decode_rate().map_or(String::new(), |rate| format!(" at {rate:.1} tok/s"));
        format!(
            "loaded in {:.2} s · prompt {} tokens, first text after {:.1} ms · {} tokens{rate} · ended by {reason}",
            self.timings.load.as_secs_f64(),
            self.usage.prompt_tokens,
            self.timings.first.as_secs_f64() * 1e3,
            self.usage.completion_tokens,
        )
    }
}
