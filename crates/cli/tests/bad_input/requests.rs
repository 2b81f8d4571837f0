//! Requests that the server refuses.

use serde_json::{Value, json};

use crate::document::{Row, Section};
use crate::http::{Request, Server};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// Sends every request.
pub fn section() -> Section {
    let server = Server::start();
    let mut rows = Vec::new();
    let mut send = |input: String, request: &Request<'_>, param: Option<&str>| {
        let (status, error) = server.error(request);
        assert_eq!(error["param"].as_str(), param, "{input}: {error}");
        let answer = error["message"].as_str().unwrap_or_else(|| panic!("{input}: {error}")).to_owned();
        rows.push(Row { input, status, answer });
    };
    for (extra, param) in chats() {
        let body = with(json!({"messages": [{"role": "user", "content": "Hello"}]}), &extra).to_string();
        send(format!("`{CHAT}` with `{extra}`"), &Request::post(CHAT, body.as_bytes()), Some(param));
    }
    for (extra, param) in completions() {
        let body = with(json!({"prompt": "Hello"}), &extra).to_string();
        send(
            format!("`{COMPLETIONS}` with `{extra}`"),
            &Request::post(COMPLETIONS, body.as_bytes()),
            Some(param),
        );
    }
    let long = json!({"prompt": "word ".repeat(4000)}).to_string();
    send(
        format!("`{COMPLETIONS}` with a prompt of 4000 words, for a context of 2048"),
        &Request::post(COMPLETIONS, long.as_bytes()),
        Some("prompt"),
    );
    for (what, body) in
        [("`{\"messages\": [`", &b"{\"messages\": ["[..]), ("nothing", b""), ("`[1]`", b"[1]")]
    {
        let param = (what == "`[1]`").then_some("body");
        send(format!("`{CHAT}` with {what} as the body"), &Request::post(CHAT, body), param);
    }
    let hello = json!({"messages": [{"role": "user", "content": "Hello"}]}).to_string();
    let changed = |header: &str, value: Option<&str>| {
        let mut request = Request::post(CHAT, hello.as_bytes());
        request.headers.retain(|(name, _)| *name != header);
        if let Some(value) = value {
            let name = if header == "Authorization" { "Authorization" } else { "Content-Type" };
            request.headers.push((name, value.to_owned()));
        }
        request
    };
    send("no `Authorization`".into(), &changed("Authorization", None), None);
    send("`Authorization: Bearer guess`".into(), &changed("Authorization", Some("Bearer guess")), None);
    send("no `Content-Type`".into(), &changed("Content-Type", None), None);
    send("`Content-Type: text/plain`".into(), &changed("Content-Type", Some("text/plain")), None);
    let mut large = Request::post(CHAT, b"{");
    large.headers.retain(|(name, _)| *name != "Content-Length");
    large.headers.push(("Content-Length", "100000000".into()));
    send("a body of 100 MB".into(), &large, None);
    send("`POST /v1/chat/completion`".into(), &Request::post("/v1/chat/completion", hello.as_bytes()), None);
    send(
        "`DELETE /v1/models`".into(),
        &Request { method: "DELETE", ..Request::post("/v1/models", b"") },
        None,
    );
    Section {
        title: "Requests",
        intro: "To `bessemer serve --model ./model --model-name small --api-key …`; fields not shown are as they should be:",
        columns: ["input", "status", "message"],
        rows,
    }
}

/// `body` with the fields of `extra`; `null` removes a field.
fn with(mut body: Value, extra: &Value) -> Value {
    if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
        for (name, value) in extra {
            match value {
                Value::Null => drop(body.remove(name)),
                value => drop(body.insert(name.clone(), value.clone())),
            }
        }
    }
    body
}

/// Fields of a chat request and the `param` of the answer.
fn chats() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"messages": null}), "messages"),
        (json!({"messages": "Hello"}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": ["Hello"]}), "messages[0]"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "robot", "content": "Hello"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "tool", "content": "12 °C"}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]}),
            "messages[0].content[0].type",
        ),
        (json!({"model": "gpt-4o"}), "model"),
        (json!({"temprature": 0.5}), "temprature"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"temperature": "warm"}), "temperature"),
        (json!({"top_p": -0.1}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"presence_penalty": 2.5}), "presence_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"n": 0}), "n"),
        (json!({"n": 1000}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": 1.5}), "max_completion_tokens"),
        (json!({"seed": "lucky"}), "seed"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": 3}), "stop"),
        (json!({"stop_token_ids": [-1]}), "stop_token_ids[0]"),
        (json!({"logit_bias": {"yes": 5}}), "logit_bias"),
        (json!({"logit_bias": {"5": 1000}}), "logit_bias.5"),
        (json!({"logit_bias": {"99999": 5}}), "logit_bias"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 50}), "top_logprobs"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"tools": [{"type": "function", "function": {"name": "weather"}}]}), "tools"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs.messages"),
    ]
}

/// Fields of a completion request and the `param` of the answer.
fn completions() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [1, "two"]}), "prompt[1]"),
        (json!({"prompt": [99999]}), "prompt"),
        (json!({"suffix": " The end."}), "suffix"),
        (json!({"best_of": 3}), "best_of"),
        (json!({"logprobs": 21}), "logprobs"),
    ]
}
