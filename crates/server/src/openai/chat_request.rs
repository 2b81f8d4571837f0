//! `/v1/chat/completions`: what a request may say.

use bessemer_engine::GenerationDefaults;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::message::messages;
use super::passive::{CHAT, GENERATION};
use super::settings::{Settings, limit, top_logprobs};

/// A checked request.
#[derive(Debug)]
pub struct ChatRequest {
    /// The model asked for.
    pub model: Option<String>,
    /// What the template renders.
    pub dialogue: Dialogue,
    /// How choices are generated and delivered.
    pub settings: Settings,
    /// At most so many tokens for each choice.
    pub max_tokens: Option<usize>,
    /// The number of alternatives to report with each token; `None` reports no log-probabilities.
    pub logprobs: Option<u32>,
}

/// What a chat template renders.
#[derive(Debug)]
pub struct Dialogue {
    /// An array of messages.
    pub messages: Value,
    /// Whether the assistant's turn is opened at the end.
    pub add_generation_prompt: bool,
    /// Further variables of the template.
    pub variables: Map<String, Value>,
}

impl ChatRequest {
    /// Reads a body.
    pub fn new(body: Value, defaults: &GenerationDefaults) -> Result<Self, ApiError> {
        let mut fields = Fields::new(body, "")?;
        let model = fields.string("model")?;
        let dialogue = Dialogue::take(&mut fields)?;
        let mut settings = Settings::take(&mut fields, defaults)?;
        let old = limit(&mut fields, "max_tokens", 1)?;
        let new = limit(&mut fields, "max_completion_tokens", 1)?;
        let logprobs = logprobs(&mut fields)?;
        settings.sampling.top_logprobs = logprobs.unwrap_or(0);
        fields.finish(&[GENERATION, CHAT])?;
        let max_tokens = new.or(old).or(defaults.max_new_tokens);
        Ok(Self { model, dialogue, settings, max_tokens, logprobs })
    }
}

impl Dialogue {
    /// Takes the fields that a template sees.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let path = fields.path("messages");
        let items = match fields.required("messages")? {
            Value::Array(items) => items,
            other => return Err(wrong(&path, "a list of messages", &other)),
        };
        let messages = messages(&path, items)?;
        let add_generation_prompt = fields.boolean("add_generation_prompt")?.unwrap_or(true);
        let path = fields.path("chat_template_kwargs");
        let variables = fields.object("chat_template_kwargs")?.unwrap_or_default();
        for name in ["messages", "tools", "documents", "add_generation_prompt"] {
            if variables.contains_key(name) {
                let path = format!("{path}.{name}");
                let message =
                    format!("{path}: is set by the request's own field. Use `{name}` of the request");
                return Err(ApiError::invalid(path, message));
            }
        }
        Ok(Self { messages, add_generation_prompt, variables })
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let path = fields.path("top_logprobs");
    let top = fields.take("top_logprobs").map(|value| top_logprobs(&path, &value)).transpose()?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message =
                format!("{path}: is only allowed with `logprobs`: true, but `logprobs` is not set. Set it");
            Err(ApiError::invalid(path, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(mut body: Value) -> Result<ChatRequest, ApiError> {
        let messages = json!([{"role": "user", "content": "Hello"}]);
        if let Some(map) = body.as_object_mut() {
            map.entry("messages").or_insert(messages);
        }
        ChatRequest::new(
            body,
            &GenerationDefaults { max_new_tokens: Some(400), ..GenerationDefaults::default() },
        )
    }

    #[test]
    fn limits() {
        assert_eq!(read(json!({})).unwrap().max_tokens, Some(400));
        assert_eq!(read(json!({"max_tokens": 5})).unwrap().max_tokens, Some(5));
        assert_eq!(read(json!({"max_tokens": 5, "max_completion_tokens": 6})).unwrap().max_tokens, Some(6));
        assert!(read(json!({"max_tokens": 0})).is_err());
    }

    #[test]
    fn logprobs_and_their_number() {
        assert_eq!(read(json!({})).unwrap().logprobs, None);
        assert_eq!(read(json!({"logprobs": true})).unwrap().logprobs, Some(0));
        let request = read(json!({"logprobs": true, "top_logprobs": 4})).unwrap();
        assert_eq!((request.logprobs, request.settings.sampling.top_logprobs), (Some(4), 4));
        assert!(read(json!({"top_logprobs": 4})).is_err());
        assert!(read(json!({"logprobs": true, "top_logprobs": 21})).is_err());
    }

    #[test]
    fn template_variables() {
        let request = read(json!({"chat_template_kwargs": {"enable_thinking": false}})).unwrap();
        assert_eq!(request.dialogue.variables.get("enable_thinking"), Some(&json!(false)));
        assert!(request.dialogue.add_generation_prompt);
        assert!(read(json!({"chat_template_kwargs": {"messages": []}})).is_err());
    }
}
