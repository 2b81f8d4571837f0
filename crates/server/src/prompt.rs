//! Prompts in every form, made into token ids.

use bessemer_engine::Engine;
use bessemer_text::{ChatInput, SpecialTokens, Tokenizer};

use crate::openai::chat_request::Dialogue;
use crate::openai::completion_request::PromptInput;
use crate::openai::error::ApiError;

/// Token ids of a dialogue.
pub fn dialogue_tokens(
    engine: &Engine,
    dialogue: &Dialogue,
    special: SpecialTokens,
) -> Result<Vec<u32>, ApiError> {
    let Some(template) = engine.chat_template() else {
        let message = "messages: this model has no chat template. Send the whole prompt to /v1/completions, or put a \
                       chat_template.jinja into the model's folder";
        return Err(ApiError::invalid("messages", message));
    };
    let text = template.render(&ChatInput {
        messages: &dialogue.messages,
        tools: None,
        add_generation_prompt: dialogue.add_generation_prompt,
        variables: &dialogue.variables,
    })?;
    text_tokens(engine, "messages", &text, special)
}

/// Token ids of a text.
pub fn text_tokens(
    engine: &Engine,
    param: &'static str,
    text: &str,
    special: SpecialTokens,
) -> Result<Vec<u32>, ApiError> {
    tokenizer(engine, param)?.encode(text, special).map_err(|error| ApiError::from(error).with_param(param))
}

/// The model's tokenizer, for a request whose field `param` needs it.
pub fn tokenizer<'a>(engine: &'a Engine, param: &'static str) -> Result<&'a Tokenizer, ApiError> {
    engine.tokenizer().ok_or_else(|| {
        let message =
            format!("{param}: this model has no tokenizer, so text is not possible. Load a model with one");
        ApiError::invalid(param, message)
    })
}

/// Token ids of a prompt of `/v1/completions`.
pub fn input_tokens(engine: &Engine, input: &PromptInput) -> Result<Vec<u32>, ApiError> {
    match input {
        PromptInput::Text(text) => text_tokens(engine, "prompt", text, SpecialTokens::Add),
        PromptInput::Tokens(ids) => Ok(ids.clone()),
    }
}

/// Refuses a prompt that leaves no room for `room` tokens of output.
pub fn check_length(
    engine: &Engine,
    param: &'static str,
    tokens: &[u32],
    room: usize,
) -> Result<(), ApiError> {
    let info = engine.info();
    if tokens.is_empty() {
        let message = format!("{param}: must have at least one token, but none was given. Write something");
        return Err(ApiError::invalid(param, message));
    }
    if let Some(id) = tokens.iter().find(|&&id| id as usize >= info.vocab) {
        let message = format!(
            "{param}: token ids must be below the vocabulary's {} entries, but {id} was given. Tokenize with this \
             model's own tokenizer",
            info.vocab
        );
        return Err(ApiError::invalid(param, message));
    }
    if tokens.len() + room > info.context {
        return Err(ApiError::context_length(param, tokens.len(), info.context));
    }
    Ok(())
}
