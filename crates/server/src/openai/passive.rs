//! Fields that are known but ask for nothing: accepted with the values that do not change the answer.
//!
//! Clients send defaults explicitly, and tools built for other servers send their extensions; refusing
//! `"tools": []` helps nobody, and ignoring `"tools": [..]` would give a wrong answer without a word. The tables
//! below name each field and the values that mean "nothing".

use serde_json::Value;

/// A field that this server reads only to see that it asks for nothing.
#[derive(Debug)]
pub struct Passive {
    /// The field.
    pub name: &'static str,
    allows: Allows,
}

/// The values that ask for nothing; `null` always does.
#[derive(Debug)]
enum Allows {
    /// Metadata and hints, which never change an answer.
    Anything,
    /// `false`, `0`, `""`, `[]` and `{}`.
    Empty,
    /// These strings, or a list of them alone.
    Words(&'static [&'static str]),
    /// This boolean.
    Only(bool),
    /// This number.
    Number(f64),
    /// `{"type": WORD}`.
    Type(&'static str),
}

const fn anything(name: &'static str) -> Passive {
    Passive { name, allows: Allows::Anything }
}

const fn empty(name: &'static str) -> Passive {
    Passive { name, allows: Allows::Empty }
}

const fn words(name: &'static str, words: &'static [&'static str]) -> Passive {
    Passive { name, allows: Allows::Words(words) }
}

/// Both generation routes: OpenAI's own fields, then those of vLLM and its kin.
pub const GENERATION: &[Passive] = &[
    anything("metadata"),
    anything("prompt_cache_key"),
    anything("prompt_cache_options"),
    anything("prompt_cache_retention"),
    anything("safety_identifier"),
    anything("user"),
    words("service_tier", &["auto", "default"]),
    Passive { name: "store", allows: Allows::Only(false) },
    // Of llama.cpp: whether earlier prompts may be used again.
    anything("cache_prompt"),
    anything("priority"),
    anything("request_id"),
    empty("allowed_token_ids"),
    empty("bad_words"),
    empty("guided_choice"),
    empty("guided_grammar"),
    empty("guided_json"),
    empty("guided_regex"),
    empty("include_stop_str_in_output"),
    empty("logits_processors"),
    empty("min_tokens"),
    empty("prompt_logprobs"),
    empty("return_token_ids"),
    empty("structured_outputs"),
    empty("truncate_prompt_tokens"),
    empty("use_beam_search"),
    Passive { name: "length_penalty", allows: Allows::Number(1.0) },
    Passive { name: "skip_special_tokens", allows: Allows::Only(true) },
    // Only matters where special tokens are printed.
    anything("spaces_between_special_tokens"),
    Passive { name: "response_format", allows: Allows::Type("text") },
];

/// `/v1/chat/completions` beside [`GENERATION`].
pub const CHAT: &[Passive] = &[
    empty("audio"),
    empty("best_of"),
    words("function_call", &["none", "auto"]),
    empty("functions"),
    words("modalities", &["text"]),
    empty("moderation"),
    // Without tools there are no calls to make in parallel.
    anything("parallel_tool_calls"),
    empty("prediction"),
    empty("reasoning_effort"),
    words("tool_choice", &["none", "auto"]),
    empty("tools"),
    words("verbosity", &["medium"]),
    empty("web_search_options"),
    empty("add_special_tokens"),
    empty("chat_template"),
    empty("continue_final_message"),
    empty("documents"),
    empty("echo"),
    empty("mm_processor_kwargs"),
];

/// `/v1/completions` beside [`GENERATION`].
pub const COMPLETION: &[Passive] =
    &[empty("suffix"), Passive { name: "add_special_tokens", allows: Allows::Only(true) }];

/// `stream_options`.
pub const STREAM_OPTIONS: &[Passive] = &[empty("include_obfuscation"), empty("continuous_usage_stats")];

/// `/tokenize`.
pub const TOKENIZE: &[Passive] = &[
    empty("chat_template"),
    empty("continue_final_message"),
    empty("tools"),
    empty("mm_processor_kwargs"),
    anything("user"),
];

/// One message.
pub const MESSAGE: &[Passive] = &[
    empty("annotations"),
    empty("audio"),
    empty("function_call"),
    empty("refusal"),
    empty("tool_calls"),
    empty("tool_call_id"),
    empty("reasoning"),
    anything("id"),
];

impl Passive {
    /// Whether the value asks for nothing.
    pub fn allows(&self, value: &Value) -> bool {
        match (&self.allows, value) {
            (_, Value::Null) | (Allows::Anything, _) => true,
            (Allows::Empty, value) => is_empty(value),
            (Allows::Words(words), Value::String(given)) => words.contains(&given.as_str()),
            (Allows::Words(words), Value::Array(items)) => {
                items.iter().all(|item| item.as_str().is_some_and(|given| words.contains(&given)))
            }
            (Allows::Only(only), Value::Bool(given)) => only == given,
            (Allows::Number(only), Value::Number(given)) => given.as_f64() == Some(*only),
            (Allows::Type(word), Value::Object(map)) => {
                map.len() == 1 && map.get("type").and_then(Value::as_str) == Some(word)
            }
            _ => false,
        }
    }

    /// What is allowed, for a message.
    pub fn rule(&self) -> String {
        match &self.allows {
            Allows::Anything => "is accepted with any value".to_owned(),
            Allows::Empty => "is not supported by this server".to_owned(),
            Allows::Words(words) => format!("is only supported as `{}`", words.join("` or `")),
            Allows::Only(only) => format!("is only supported as {only}"),
            Allows::Number(only) => format!("is only supported as {only}"),
            Allows::Type(word) => format!("is only supported as {{\"type\": \"{word}\"}}"),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(name: &str) -> &'static Passive {
        let all = [GENERATION, CHAT, COMPLETION, STREAM_OPTIONS, TOKENIZE, MESSAGE];
        all.into_iter().flatten().find(|field| field.name == name).unwrap()
    }

    #[test]
    fn neutral_values_pass_and_others_do_not() {
        let table = [
            ("tools", json!([]), json!([{"type": "function"}])),
            ("tool_choice", json!("auto"), json!("required")),
            ("response_format", json!({"type": "text"}), json!({"type": "json_object"})),
            ("modalities", json!(["text"]), json!(["text", "audio"])),
            ("store", json!(false), json!(true)),
            ("service_tier", json!("auto"), json!("priority")),
            ("suffix", json!(""), json!("the end")),
            ("min_tokens", json!(0), json!(5)),
            ("skip_special_tokens", json!(true), json!(false)),
            ("length_penalty", json!(1), json!(0.5)),
            ("reasoning_effort", json!(null), json!("high")),
            ("web_search_options", json!({}), json!({"search_context_size": "low"})),
        ];
        for (name, neutral, asking) in table {
            let field = find(name);
            assert!(field.allows(&neutral), "{name} {neutral}");
            assert!(field.allows(&Value::Null), "{name} null");
            assert!(!field.allows(&asking), "{name} {asking}");
        }
        assert!(find("metadata").allows(&json!({"a": "b"})));
    }
}
