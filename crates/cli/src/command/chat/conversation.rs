//! What was said, and what of it still fits the context.

use anyhow::bail;
use bessemer_engine::Engine;
use bessemer_text::{ChatInput, ChatTemplate, SpecialTokens, Tokenizer};
use serde_json::{Map, Value, json};

/// The messages of a conversation: perhaps the system's, then the user's and the assistant's in turn.
#[derive(Debug)]
pub struct Conversation {
    system: Option<Value>,
    messages: Vec<Value>,
}

impl Conversation {
    /// Nothing said yet.
    pub fn new(system: Option<&str>) -> Self {
        Self { system: system.map(|text| message("system", text)), messages: Vec::new() }
    }

    /// Adds a message.
    pub fn say(&mut self, role: &str, text: &str) {
        self.messages.push(message(role, text));
    }

    /// Removes the last message.
    pub fn take_back(&mut self) {
        self.messages.pop();
    }

    /// All messages, as a template takes them.
    pub fn messages(&self) -> Value {
        self.system.iter().chain(&self.messages).cloned().collect()
    }

    /// Forgets the oldest exchanges until the rest leaves room for an answer; how many messages these were. Room is
    /// `max_tokens`, but a quarter of the context is enough.
    ///
    /// # Errors
    /// When the last message alone is too long, or the template refuses it.
    pub fn fit(&mut self, engine: &Engine, max_tokens: Option<usize>) -> anyhow::Result<usize> {
        let (Some(tokenizer), Some(template)) = (engine.tokenizer(), engine.chat_template()) else {
            return Ok(0);
        };
        let context = engine.info().context;
        let quarter = context / 4;
        let room = max_tokens.map_or(quarter, |tokens| tokens.min(quarter)).max(1);
        let mut dropped = 0;
        loop {
            let tokens = self.count(tokenizer, template)?;
            if tokens + room <= context {
                return Ok(dropped);
            }
            if self.messages.len() <= 2 {
                // One message is left, or one exchange that has just been cut off: the engine judges whether it fits.
                if tokens < context {
                    return Ok(dropped);
                }
                bail!(
                    "message: must leave room in the context of {context} tokens, but it makes {tokens} with what \
                     cannot be forgotten. Shorten it, or raise --context or --kv-memory"
                );
            }
            // A question goes with its answer: templates want user and assistant in turn.
            self.messages.drain(..2);
            dropped += 2;
        }
    }

    fn count(&self, tokenizer: &Tokenizer, template: &ChatTemplate) -> anyhow::Result<usize> {
        let input = ChatInput {
            messages: &self.messages(),
            tools: None,
            add_generation_prompt: true,
            variables: &Map::new(),
        };
        Ok(tokenizer.encode(&template.render(&input)?, SpecialTokens::Skip)?.len())
    }
}

fn message(role: &str, text: &str) -> Value {
    json!({"role": role, "content": text})
}
