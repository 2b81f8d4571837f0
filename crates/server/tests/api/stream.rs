//! Streams carry what whole answers carry.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::chat::request;
use crate::client::{Reply, Server};

const CHAT: &str = "/v1/chat/completions";

/// The text of each choice.
fn texts(chunks: &[Value], text: impl Fn(&Value) -> Option<&str>) -> BTreeMap<u64, String> {
    let mut texts = BTreeMap::new();
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let all: &mut String = texts.entry(choice["index"].as_u64().unwrap()).or_default();
        all.push_str(text(choice).unwrap_or_default());
    }
    texts
}

#[tokio::test]
async fn a_stream_is_the_whole_answer_in_pieces() {
    let server = Server::start().await;
    let drawn = json!({"n": 2, "seed": 3, "temperature": 0.9, "logprobs": true, "top_logprobs": 1});
    let whole = server.post(CHAT, &request(drawn.clone())).await.ok();
    let mut streamed = request(drawn);
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let chunks = server.post(CHAT, &streamed).await.chunks();

    let (last, chunks) = chunks.split_last().unwrap();
    let mut usage = whole["usage"].clone();
    // The prompt was there by then.
    usage["prompt_tokens_details"] = last["usage"]["prompt_tokens_details"].clone();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &usage));
    for chunk in chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!((&chunk["id"], &chunk["created"]), (&last["id"], &last["created"]));
        assert_eq!(chunk["system_fingerprint"], whole["system_fingerprint"]);
        assert_eq!(chunk.get("usage"), Some(&Value::Null));
    }
    let texts = texts(chunks, |choice| choice["delta"]["content"].as_str());
    for index in 0..2_u64 {
        let choice = &whole["choices"][index as usize];
        assert_eq!(texts[&index], choice["message"]["content"].as_str().unwrap());
        let own: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|choice| choice["index"] == index)
            .collect();
        assert_eq!(own[0]["delta"], json!({"role": "assistant", "content": ""}));
        assert!(own[1..].iter().all(|piece| piece["delta"].get("role").is_none()));
        let (end, pieces) = own.split_last().unwrap();
        assert_eq!(end["finish_reason"], choice["finish_reason"]);
        assert!(pieces.iter().all(|piece| piece["finish_reason"].is_null()));
        let tokens: Vec<Value> = own
            .iter()
            .filter_map(|piece| piece["logprobs"]["content"].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(Value::Array(tokens), choice["logprobs"]["content"]);
    }
    assert!(chunks.len() > 10, "{} chunks are no stream", chunks.len());
}

#[tokio::test]
async fn usage_is_told_only_where_asked_for() {
    let server = Server::start().await;
    let chunks = server.post(CHAT, &request(json!({"stream": true}))).await.chunks();
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()), "{chunks:?}");
    assert!(!chunks.iter().any(|chunk| chunk["choices"].as_array().unwrap().is_empty()));
}

#[tokio::test]
async fn stop_strings_never_show_in_a_stream() {
    let server = Server::start().await;
    let whole = server.post(CHAT, &request(json!({}))).await.ok();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let stop = format!("{} {}", words[3], words[4]);
    let chunks = server.post(CHAT, &request(json!({"stream": true, "stop": stop}))).await.chunks();
    let streamed = &texts(&chunks, |choice| choice["delta"]["content"].as_str())[&0];
    assert_eq!(streamed, &text[..text.find(&stop).unwrap()]);
}

#[tokio::test]
async fn completions_stream_with_echo_and_offsets() {
    let server = Server::start().await;
    let body = json!({"prompt": ["Once upon a time", "The dog"], "max_tokens": 8, "temperature": 0, "echo": true,
                      "logprobs": 1});
    let whole = server.post("/v1/completions", &body).await.ok();
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let chunks = server.post("/v1/completions", &streamed).await.chunks();
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
    let texts = texts(&chunks, |choice| choice["text"].as_str());
    for index in 0..2_u64 {
        let choice = &whole["choices"][index as usize];
        assert_eq!(texts[&index], choice["text"].as_str().unwrap());
        for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let pieces =
                chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
            let all: Vec<Value> =
                pieces.filter_map(|piece| piece["logprobs"][list].as_array()).flatten().cloned().collect();
            assert_eq!(Value::Array(all), choice["logprobs"][list], "{list}");
        }
    }
}

#[tokio::test]
async fn errors_before_the_first_token_have_their_status() {
    let server = Server::start().await;
    let long = json!([{"role": "user", "content": "word ".repeat(3000)}]);
    let reply: Reply = server.post(CHAT, &request(json!({"stream": true, "messages": long}))).await;
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (400, Some("context_length_exceeded"))
    );
}
