//! What the prefix cache had, in an answer's usage.

use serde_json::{Value, json};

use crate::client::Server;

const PATH: &str = "/v1/completions";

fn body(prompt: &[u32], more: Value) -> Value {
    let mut body = json!({"prompt": prompt, "max_tokens": 9, "temperature": 0, "ignore_eos": true});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn the_second_answer_has_most_of_its_prompt_for_nothing() {
    let server = Server::start().await;
    let prompt: Vec<u32> = (0..70).map(|at| at * 37 % 1000 + 3).collect();
    let first = server.post(PATH, &body(&prompt, json!({}))).await.ok();
    let second = server.post(PATH, &body(&prompt, json!({}))).await.ok();
    assert_eq!((cached(&first), cached(&second)), (0, 64));
    assert_eq!(first["choices"], second["choices"]);
    // Each prompt counts once, however many choices it has.
    let choices = server.post(PATH, &body(&prompt, json!({"n": 3, "temperature": 1}))).await.ok();
    assert_eq!(cached(&choices), 64);
    let streamed = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = server.post(PATH, &body(&prompt, streamed)).await.chunks();
    assert_eq!(cached(chunks.last().unwrap()), 64);
    // Cut by a stop string, too.
    let text = first["choices"][0]["text"].as_str().unwrap();
    let stop: String = text.chars().skip(2).take(3).collect();
    let stopped = server.post(PATH, &body(&prompt, json!({"stop": stop}))).await.ok();
    assert_eq!((cached(&stopped), &stopped["choices"][0]["finish_reason"]), (64, &json!("stop")));
}

#[tokio::test]
async fn a_salt_keeps_others_out() {
    let server = Server::start().await;
    let prompt: Vec<u32> = (0..40).map(|at| at * 41 % 1000 + 3).collect();
    let mut found = Vec::new();
    for salt in [json!("a"), json!("b"), json!("a"), Value::Null, Value::Null] {
        found.push(cached(&server.post(PATH, &body(&prompt, json!({"cache_salt": salt}))).await.ok()));
    }
    assert_eq!(found, [0, 0, 32, 0, 32]);
    for wrong in [json!(7), json!("s".repeat(1025))] {
        let refused = server.post(PATH, &body(&prompt, json!({"cache_salt": wrong}))).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["error"]["param"], "cache_salt");
    }
}
