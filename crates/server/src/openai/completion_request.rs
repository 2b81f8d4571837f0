//! `/v1/completions`: what a request may say.

use bessemer_engine::GenerationDefaults;
use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, integer, token_ids, wrong};
use super::passive::{COMPLETION, GENERATION};
use super::settings::{MAX_CHOICES, Settings, limit, top_logprobs};

/// Output tokens where a request says nothing, as OpenAI documents it for this route.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A checked request.
#[derive(Debug)]
pub struct CompletionRequest {
    /// The model asked for.
    pub model: Option<String>,
    /// One or more prompts.
    pub prompts: Vec<PromptInput>,
    /// How choices are generated and delivered.
    pub settings: Settings,
    /// At most so many tokens for each choice; 0 with `echo` alone.
    pub max_tokens: usize,
    /// Whether each choice begins with its prompt.
    pub echo: bool,
    /// The number of alternatives to report with each token; `None` reports no log-probabilities.
    pub logprobs: Option<u32>,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptInput {
    /// To be tokenized.
    Text(String),
    /// As it is.
    Tokens(Vec<u32>),
}

impl CompletionRequest {
    /// Reads a body.
    pub fn new(body: Value, defaults: &GenerationDefaults) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body, "")?;
        let model = fields.string("model")?;
        let path = fields.path("prompt");
        let prompts = prompts(&path, fields.required("prompt")?)?;
        let mut settings = Settings::take(&mut fields, defaults)?;
        let echo = fields.boolean("echo")?.unwrap_or(false);
        let max_tokens = limit(&mut fields, "max_tokens", i64::from(!echo))?.unwrap_or(DEFAULT_MAX_TOKENS);
        let path = fields.path("logprobs");
        let logprobs = fields.take("logprobs").map(|value| top_logprobs(&path, &value)).transpose()?;
        settings.sampling.top_logprobs = logprobs.unwrap_or(0);
        let path = fields.path("best_of");
        if let Some(best_of) = fields.take("best_of")
            && integer(&path, &best_of, 1..=MAX_CHOICES as i64)? != settings.n as i64
        {
            let message = format!("{path}: is only supported as the value of `n`, but {best_of} was given");
            return Err(ApiError::unsupported(path, message));
        }
        fields.finish(&[GENERATION, COMPLETION])?;
        if prompts.len() * settings.n > MAX_CHOICES {
            let rule = format!("at most {MAX_CHOICES} prompts times `n`");
            return Err(wrong("prompt", &rule, &Value::from(prompts.len() * settings.n)));
        }
        Ok(Self { model, prompts, settings, max_tokens, echo, logprobs })
    }
}

/// A string, a list of strings, a list of tokens, or a list of lists of tokens.
fn prompts(path: &str, value: Value) -> Result<Vec<PromptInput>, ApiError> {
    const RULE: &str = "a string, a list of strings, a list of token ids or a list of such lists";
    let items = match value {
        Value::String(text) => return Ok(vec![PromptInput::Text(text)]),
        Value::Array(items) if !items.is_empty() => items,
        other => return Err(wrong(path, RULE, &other)),
    };
    if items.first().is_some_and(Value::is_number) {
        return Ok(vec![PromptInput::Tokens(token_ids(path, &items)?)]);
    }
    let lists = items.first().is_some_and(Value::is_array);
    let each = |(index, item): (usize, Value)| {
        let path = format!("{path}[{index}]");
        match item {
            Value::String(text) if !lists => Ok(PromptInput::Text(text)),
            Value::Array(ids) if lists => Ok(PromptInput::Tokens(token_ids(&path, &ids)?)),
            other => Err(wrong(&path, if lists { "a list of token ids" } else { "a string" }, &other)),
        }
    };
    items.into_iter().enumerate().map(each).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<CompletionRequest, ApiError> {
        CompletionRequest::new(body, &GenerationDefaults::default())
    }

    #[test]
    fn four_kinds_of_prompt() {
        let prompts = |value: Value| read(json!({"prompt": value})).map(|request| request.prompts).ok();
        let text = |text: &str| PromptInput::Text(text.to_owned());
        assert_eq!(prompts(json!("a")), Some(vec![text("a")]));
        assert_eq!(prompts(json!(["a", "b"])), Some(vec![text("a"), text("b")]));
        assert_eq!(prompts(json!([1, 2])), Some(vec![PromptInput::Tokens(vec![1, 2])]));
        let lists = vec![PromptInput::Tokens(vec![1]), PromptInput::Tokens(vec![2, 3])];
        assert_eq!(prompts(json!([[1], [2, 3]])), Some(lists));
        for bad in
            [json!([]), json!({}), json!(4), json!(["a", 1]), json!([1, "a"]), json!([[1], "a"]), json!([-1])]
        {
            assert_eq!(prompts(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn zero_tokens_only_with_echo() {
        assert!(read(json!({"prompt": "a", "max_tokens": 0})).is_err());
        assert_eq!(read(json!({"prompt": "a", "max_tokens": 0, "echo": true})).unwrap().max_tokens, 0);
        assert_eq!(read(json!({"prompt": "a"})).unwrap().max_tokens, DEFAULT_MAX_TOKENS);
    }

    #[test]
    fn suffix_best_of_and_too_many_choices() {
        assert!(
            read(json!({"prompt": "a", "suffix": "b"})).unwrap_err().message().starts_with("suffix: is not")
        );
        assert!(read(json!({"prompt": "a", "suffix": null})).is_ok());
        assert!(read(json!({"prompt": "a", "n": 2, "best_of": 2})).is_ok());
        assert!(read(json!({"prompt": "a", "best_of": 2})).is_err());
        assert!(read(json!({"prompt": ["a", "b"], "n": 65})).is_err());
    }
}
