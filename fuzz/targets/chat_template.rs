//! Chat templates: the template is hostile, the dialogue ordinary. Compiling and rendering end, within their bounds.
#![no_main]

mod caught;

use bessemer_text::{ChatInput, ChatTemplate, TokenStrings};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::json;

/// Longer templates say nothing new and only make rendering slow.
const LONGEST: usize = 4096;

fuzz_target!(
    init: caught::install(),
    |source: &str| -> Corpus {
        if source.len() > LONGEST {
            return Corpus::Reject;
        }
        caught::run(|| render(source));
        Corpus::Keep
    }
);

fn render(source: &str) {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let tokens: TokenStrings = tokens.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
    let Ok(template) = ChatTemplate::new(source, tokens) else { return };
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "<think>\nEasy.\n</think>\n4", "reasoning_content": "Easy."},
        {"role": "user", "content": "Grüße, 世界! 🦀"},
    ]);
    let tools = json!([{"type": "function", "function": {
        "name": "weather", "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }}]);
    let variables = json!({"enable_thinking": false, "date_string": "26 Jul 2024"});
    let variables = variables.as_object().cloned().unwrap_or_default();
    for tools in [None, Some(&tools)] {
        let input =
            ChatInput { messages: &messages, tools, add_generation_prompt: true, variables: &variables };
        let first = template.render(&input);
        if let Ok(text) = &first
            && !source.contains("now")
        {
            assert_eq!(template.render(&input).as_ref().ok(), Some(text), "rendering is not repeatable");
        }
    }
}
