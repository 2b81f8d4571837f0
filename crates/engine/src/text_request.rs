//! Requests at the level of text: a prompt in any form, made into tokens before it enters the engine.

use bessemer_text::{ChatInput, ChatTemplate, SpecialTokens, Specials, TemplateError, Tokenizer};
use serde_json::{Map, Value};

use crate::validate::MAX_ENTRIES;
use crate::{EngineError, Result, Sampling};

/// A request at the level of text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextRequest {
    /// What the output continues.
    pub prompt: Prompt,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most so many tokens; absent: until the context is full.
    pub max_tokens: Option<usize>,
    /// Strings that end the output, none of them part of it.
    pub stop: Vec<String>,
    /// Tokens that end the output, beside the model's own end tokens.
    pub stop_tokens: Vec<u32>,
    /// Go on through the model's own end tokens.
    pub ignore_end: bool,
    /// Requests share what the prefix cache holds only with those of the same salt; absent: with all that have none.
    /// At most 1024 bytes.
    pub cache_salt: Option<String>,
    /// Whether special tokens appear in the text.
    pub specials: Specials,
}

impl Default for TextRequest {
    fn default() -> Self {
        Self {
            prompt: Prompt::Text(String::new()),
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_end: false,
            cache_salt: None,
            specials: Specials::Skip,
        }
    }
}

/// What an output continues.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A text; the tokenizer puts its beginning-of-sequence token in front where it has one.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
    /// A dialogue, rendered by the model's chat template.
    Chat(ChatPrompt),
}

/// A dialogue.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatPrompt {
    /// Array of messages in OpenAI's form.
    pub messages: Value,
    /// Array of tools in OpenAI's form.
    pub tools: Option<Value>,
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Further variables of the template (`enable_thinking`, …).
    pub variables: Map<String, Value>,
}

impl ChatPrompt {
    /// A dialogue without tools, to be answered by the assistant.
    pub fn new(messages: Value) -> Self {
        Self { messages, tools: None, add_generation_prompt: true, variables: Map::new() }
    }
}

impl Prompt {
    /// Token ids of the prompt.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when the model has no tokenizer or chat template for it, or these reject it.
    pub(crate) fn tokenize(
        &self,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
    ) -> Result<Vec<u32>> {
        let encode = |field, text: &str, special| {
            tokenizer.encode(text, special).map_err(|error| {
                let given = format!("{} bytes long", text.len());
                EngineError::invalid(
                    field,
                    "must be a text that the tokenizer takes",
                    given,
                    error.to_string(),
                )
            })
        };
        match self {
            Self::Tokens(ids) => Ok(ids.clone()),
            Self::Text(text) => encode("prompt", text, SpecialTokens::Add),
            Self::Chat(chat) => {
                let text = chat.render(template)?;
                encode("messages", &text, SpecialTokens::Skip)
            }
        }
    }
}

impl ChatPrompt {
    fn render(&self, template: Option<&ChatTemplate>) -> Result<String> {
        let Some(template) = template else {
            let cure = "Send a plain prompt, or put a chat_template.jinja into the model's folder";
            return Err(EngineError::invalid(
                "messages",
                "need a model with a chat template",
                "a dialogue",
                cure,
            ));
        };
        let input = ChatInput {
            messages: &self.messages,
            tools: self.tools.as_ref(),
            add_generation_prompt: self.add_generation_prompt,
            variables: &self.variables,
        };
        template.render(&input).map_err(|error| {
            let cure = match &error {
                TemplateError::Raised(_) => "Send the dialogue in the form that this model was trained on",
                _ => "Check the messages' fields against what the template reads",
            };
            let given = format!("refused: {error}");
            EngineError::invalid("messages", "must fit the model's chat template", given, cure)
        })
    }
}

/// Checks the stop strings of a request.
pub(crate) fn check_stops(stops: &[String]) -> Result<()> {
    if stops.len() > MAX_ENTRIES {
        let rule = format!("must have at most {MAX_ENTRIES} entries");
        return Err(EngineError::invalid("stop", rule, stops.len(), "Give fewer"));
    }
    if stops.iter().any(String::is_empty) {
        let cure = "Leave the empty string out";
        return Err(EngineError::invalid(
            "stop",
            "stop strings must have at least one character",
            "\"\"",
            cure,
        ));
    }
    Ok(())
}
