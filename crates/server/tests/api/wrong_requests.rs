//! A table of wrong requests: status, code, field and words of the answer.

use serde_json::{Map, Value, json};

use crate::client::Server;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A chat request with `change` in it.
fn chat(change: Value) -> Value {
    with(
        json!({"model": "default", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}),
        change,
    )
}

/// A completion request with `change` in it.
fn completion(change: Value) -> Value {
    with(json!({"model": "default", "max_tokens": 2, "prompt": "Hi"}), change)
}

fn with(base: Value, change: Value) -> Value {
    let (Value::Object(mut base), Value::Object(change)) = (base, change) else { panic!("no objects") };
    base.extend(change);
    // A field can be taken away by naming it with this word.
    base.retain(|_, value| value != "<absent>");
    Value::Object(base)
}

struct Case(&'static str, Value, u16, Option<&'static str>, &'static str, &'static str);

fn cases() -> Vec<Case> {
    let long = "word ".repeat(3000);
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]);
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let many: Map<String, Value> = (0..1025).map(|id| (id.to_string(), json!(1))).collect();
    vec![
        // The body as a whole.
        Case(
            CHAT,
            json!([1, 2]),
            400,
            Some("body"),
            "invalid_value",
            "body: must be an object, but a list of 2",
        ),
        Case(CHAT, json!({}), 400, Some("messages"), "missing_required_parameter", "messages: is required"),
        Case(
            COMPLETIONS,
            json!({}),
            400,
            Some("prompt"),
            "missing_required_parameter",
            "prompt: is required",
        ),
        Case("/v1/nothing", json!({}), 404, None, "unknown_url", "POST /v1/nothing: no such route"),
        // The model.
        Case(
            CHAT,
            chat(json!({"model": "gpt-4o"})),
            404,
            Some("model"),
            "model_not_found",
            "`gpt-4o` was asked for",
        ),
        Case(
            CHAT,
            chat(json!({"model": 4})),
            400,
            Some("model"),
            "invalid_value",
            "model: must be a string, but 4",
        ),
        // Unknown fields.
        Case(
            CHAT,
            chat(json!({"temprature": 1})),
            400,
            Some("temprature"),
            "unknown_parameter",
            "Did you mean `temperature`?",
        ),
        Case(
            CHAT,
            chat(json!({"maxtokens": 1})),
            400,
            Some("maxtokens"),
            "unknown_parameter",
            "Did you mean `max_tokens`?",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"wholly_made_up_thing": 1})),
            400,
            Some("wholly_made_up_thing"),
            "unknown_parameter",
            "Remove it",
        ),
        Case(
            CHAT,
            chat(json!({"stream": true, "stream_options": {"include_usag": true}})),
            400,
            Some("stream_options.include_usag"),
            "unknown_parameter",
            "Did you mean `include_usage`?",
        ),
        // Values out of range or of another type.
        Case(
            CHAT,
            chat(json!({"temperature": 2.5})),
            400,
            Some("temperature"),
            "invalid_value",
            "a number from 0 to 2, but 2.5",
        ),
        Case(
            CHAT,
            chat(json!({"temperature": "hot"})),
            400,
            Some("temperature"),
            "invalid_value",
            "\"hot\" was given",
        ),
        Case(CHAT, chat(json!({"top_p": -0.1})), 400, Some("top_p"), "invalid_value", "from 0 to 1"),
        Case(CHAT, chat(json!({"top_k": -2})), 400, Some("top_k"), "invalid_value", "a whole number from -1"),
        Case(CHAT, chat(json!({"min_p": 1.5})), 400, Some("min_p"), "invalid_value", "from 0 to 1"),
        Case(
            CHAT,
            chat(json!({"presence_penalty": 3})),
            400,
            Some("presence_penalty"),
            "invalid_value",
            "from -2 to 2",
        ),
        Case(
            CHAT,
            chat(json!({"frequency_penalty": -3})),
            400,
            Some("frequency_penalty"),
            "invalid_value",
            "-2 to 2",
        ),
        Case(
            CHAT,
            chat(json!({"repetition_penalty": 0})),
            400,
            Some("repetition_penalty"),
            "invalid_value",
            "above 0",
        ),
        Case(CHAT, chat(json!({"n": 0})), 400, Some("n"), "invalid_value", "from 1 to 128"),
        Case(CHAT, chat(json!({"n": 1.5})), 400, Some("n"), "invalid_value", "a whole number"),
        Case(CHAT, chat(json!({"max_tokens": 0})), 400, Some("max_tokens"), "invalid_value", "at least 1"),
        Case(
            CHAT,
            chat(json!({"max_completion_tokens": -1})),
            400,
            Some("max_completion_tokens"),
            "invalid_value",
            "at least 1",
        ),
        Case(
            CHAT,
            chat(json!({"seed": 0.5})),
            400,
            Some("seed"),
            "invalid_value",
            "a whole number of 64 bits",
        ),
        Case(CHAT, chat(json!({"stream": "yes"})), 400, Some("stream"), "invalid_value", "true or false"),
        Case(
            CHAT,
            chat(json!({"stream_options": {"include_usage": true}})),
            400,
            Some("stream_options"),
            "invalid_value",
            "only allowed with `stream`",
        ),
        Case(CHAT, chat(json!({"stop": [""]})), 400, Some("stop"), "invalid_value", "strings of 1 to"),
        Case(CHAT, chat(json!({"stop": vec!["a"; 17]})), 400, Some("stop"), "invalid_value", "at most 16"),
        Case(
            CHAT,
            chat(json!({"stop_token_ids": [1, -1]})),
            400,
            Some("stop_token_ids[1]"),
            "invalid_value",
            "-1",
        ),
        Case(
            CHAT,
            chat(json!({"stop_token_ids": [1_000_000]})),
            400,
            Some("stop_token_ids"),
            "invalid_value",
            "below the vocabulary",
        ),
        Case(
            CHAT,
            chat(json!({"logit_bias": {"hello": 1}})),
            400,
            Some("logit_bias"),
            "invalid_value",
            "token ids",
        ),
        Case(
            CHAT,
            chat(json!({"logit_bias": {"5": 101}})),
            400,
            Some("logit_bias.5"),
            "invalid_value",
            "-100 to 100",
        ),
        Case(
            CHAT,
            chat(json!({"logit_bias": {"1000000": 1}})),
            400,
            Some("logit_bias"),
            "invalid_value",
            "vocabulary",
        ),
        Case(
            CHAT,
            chat(json!({"logit_bias": many})),
            400,
            Some("logit_bias"),
            "invalid_value",
            "at most 1024",
        ),
        Case(
            CHAT,
            chat(json!({"top_logprobs": 2})),
            400,
            Some("top_logprobs"),
            "invalid_value",
            "`logprobs`: true",
        ),
        Case(
            CHAT,
            chat(json!({"logprobs": true, "top_logprobs": 21})),
            400,
            Some("top_logprobs"),
            "invalid_value",
            "from 0 to 20",
        ),
        Case(
            CHAT,
            chat(json!({"chat_template_kwargs": {"messages": []}})),
            400,
            Some("chat_template_kwargs.messages"),
            "invalid_value",
            "the request's own field",
        ),
        // Known, but not here.
        Case(
            CHAT,
            chat(json!({"tools": tool})),
            400,
            Some("tools"),
            "unsupported_parameter",
            "is not supported",
        ),
        Case(
            CHAT,
            chat(json!({"tool_choice": "required"})),
            400,
            Some("tool_choice"),
            "unsupported_parameter",
            "only supported as `none` or `auto`",
        ),
        Case(
            CHAT,
            chat(json!({"response_format": {"type": "json_object"}})),
            400,
            Some("response_format"),
            "unsupported_parameter",
            "{\"type\": \"text\"}",
        ),
        Case(
            CHAT,
            chat(json!({"modalities": ["text", "audio"]})),
            400,
            Some("modalities"),
            "unsupported_parameter",
            "`text`",
        ),
        Case(
            CHAT,
            chat(json!({"reasoning_effort": "high"})),
            400,
            Some("reasoning_effort"),
            "unsupported_parameter",
            "\"high\" was given",
        ),
        Case(
            CHAT,
            chat(json!({"store": true})),
            400,
            Some("store"),
            "unsupported_parameter",
            "only supported as false",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"suffix": "end"})),
            400,
            Some("suffix"),
            "unsupported_parameter",
            "is not supported",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"best_of": 3})),
            400,
            Some("best_of"),
            "unsupported_parameter",
            "the value of `n`",
        ),
        // Messages.
        Case(
            CHAT,
            chat(json!({"messages": []})),
            400,
            Some("messages"),
            "invalid_value",
            "at least one message",
        ),
        Case(
            CHAT,
            chat(json!({"messages": "Hi"})),
            400,
            Some("messages"),
            "invalid_value",
            "a list of messages",
        ),
        Case(
            CHAT,
            chat(json!({"messages": [{"role": "king", "content": "Hi"}]})),
            400,
            Some("messages[0].role"),
            "invalid_value",
            "\"king\" was given",
        ),
        Case(
            CHAT,
            chat(json!({"messages": [{"role": "user"}]})),
            400,
            Some("messages[0].content"),
            "missing_required_parameter",
            "is required",
        ),
        Case(
            CHAT,
            chat(json!({"messages": image})),
            400,
            Some("messages[0].content[0].type"),
            "unsupported_parameter",
            "only `text` parts",
        ),
        Case(
            CHAT,
            chat(json!({"messages": [{"role": "user", "content": long}]})),
            400,
            Some("messages"),
            "context_length_exceeded",
            "context is 1024 tokens",
        ),
        // Prompts.
        Case(
            COMPLETIONS,
            completion(json!({"prompt": ""})),
            400,
            Some("prompt"),
            "invalid_value",
            "at least one token",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"prompt": []})),
            400,
            Some("prompt"),
            "invalid_value",
            "a list of token ids",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"prompt": ["a", 1]})),
            400,
            Some("prompt[1]"),
            "invalid_value",
            "a string",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"prompt": [1, 4096]})),
            400,
            Some("prompt"),
            "invalid_value",
            "below the vocabulary's 4096 entries, but 4096",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"prompt": ["a", "b"], "n": 65})),
            400,
            Some("prompt"),
            "invalid_value",
            "at most 128",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"max_tokens": 0})),
            400,
            Some("max_tokens"),
            "invalid_value",
            "at least 1",
        ),
        Case(
            COMPLETIONS,
            completion(json!({"logprobs": true})),
            400,
            Some("logprobs"),
            "invalid_value",
            "0 to 20",
        ),
        // Tokens.
        Case("/tokenize", json!({}), 400, Some("messages"), "missing_required_parameter", "is required"),
        Case(
            "/detokenize",
            json!({"tokens": ["a"]}),
            400,
            Some("tokens[0]"),
            "invalid_value",
            "\"a\" was given",
        ),
        Case("/detokenize", json!({"tokens": [999_999]}), 400, Some("tokens"), "invalid_value", "vocabulary"),
    ]
}

#[tokio::test]
async fn each_is_told_what_is_wrong() {
    let server = Server::start().await;
    for Case(path, body, status, param, code, words) in cases() {
        let reply = server.post(path, &body).await;
        let shown = format!("{path} {:.200} → {} {}", body.to_string(), reply.status, reply.body);
        assert_eq!(reply.status, status, "{shown}");
        let error = &reply.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{shown}");
        assert_eq!(error["param"].as_str(), param, "{shown}");
        assert_eq!(error["code"], code, "{shown}");
        assert!(
            error["message"].as_str().is_some_and(|message| message.contains(words)),
            "{words:?} in {shown}"
        );
    }
}

#[tokio::test]
async fn bodies_that_are_no_json() {
    let server = Server::start().await;
    let json = ("content-type", "application/json");
    let bodies: [&[u8]; 6] = [
        b"",
        b"{",
        b"{\"model\": \"\xff\"}",
        b"{\"stop\": \"\\ud800\"}",
        b"{} {}",
        b"{\"temperature\": 1e999}",
    ];
    for body in bodies {
        let reply = server.send("POST", CHAT, &[json], body).await;
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, error["code"].as_str()),
            (400, Some("invalid_json")),
            "{body:?}: {reply:?}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(server.send("POST", CHAT, &[json], deep.as_bytes()).await.status, 400);
}

#[tokio::test]
async fn what_asks_for_nothing_is_accepted() {
    let server = Server::start().await;
    let neutral = json!({
        "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "audio": null, "modalities": ["text"],
        "functions": [], "prediction": null, "web_search_options": null, "parallel_tool_calls": true,
        "reasoning_effort": null, "user": "ann", "metadata": {"a": "b"}, "store": false, "service_tier": "auto",
        "logit_bias": {}, "stop": null, "n": null, "verbosity": "medium", "top_logprobs": null, "min_tokens": 0,
        "prompt_cache_key": "k", "safety_identifier": "s", "skip_special_tokens": true,
    });
    server.post(CHAT, &chat(neutral)).await.ok();
    let neutral = json!({"suffix": null, "best_of": 1, "echo": false, "user": "ann", "model": "<absent>"});
    server.post(COMPLETIONS, &completion(neutral)).await.ok();
}
