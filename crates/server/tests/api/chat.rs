//! `/v1/chat/completions`, whole answers.

use serde_json::{Value, json};

use crate::client::Server;

const PATH: &str = "/v1/chat/completions";

pub fn request(change: Value) -> Value {
    let mut body = json!({
        "model": "default",
        "messages": [{"role": "user", "content": "Tell me a story about a cat."}],
        "max_tokens": 24,
        "temperature": 0,
    });
    let Value::Object(change) = change else { panic!("no object") };
    body.as_object_mut().unwrap().extend(change);
    body
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

#[tokio::test]
async fn an_answer_is_complete() {
    let server = Server::start().await;
    let answer = server.post(PATH, &request(json!({}))).await.ok();
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"), "{answer}");
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    let models = server.get("/v1/models").await.ok();
    assert_eq!(answer["model"], models["data"][0]["id"]);
    assert!(answer["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    let choice = &answer["choices"][0];
    assert_eq!((&choice["index"], &choice["logprobs"]), (&json!(0), &Value::Null));
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(choice["message"]["refusal"].is_null());
    assert!(content(&answer).split_whitespace().count() > 5, "{answer}");
    let usage = &answer["usage"];
    let count = |field: &str| usage[field].as_u64().unwrap();
    assert!(count("completion_tokens") <= 24);
    let expected = if count("completion_tokens") == 24 { "length" } else { "stop" };
    assert_eq!(choice["finish_reason"], expected);
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));

    let dialogue = json!({"messages": request(json!({}))["messages"]});
    let tokens = server.post("/tokenize", &dialogue).await.ok();
    assert_eq!(tokens["count"], usage["prompt_tokens"]);
}

#[tokio::test]
async fn n_choices_have_their_own_seeds() {
    let server = Server::start().await;
    let drawn = |n: usize, seed: u64| request(json!({"n": n, "seed": seed, "temperature": 1.0, "top_k": 0}));
    let three = server.post(PATH, &drawn(3, 5)).await.ok();
    let texts: Vec<&str> =
        (0..3).map(|index| three["choices"][index]["message"]["content"].as_str().unwrap()).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2], "{texts:?}");
    for (index, choice) in three["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], index);
    }
    let one = server.post(PATH, &drawn(1, 5)).await.ok();
    assert_eq!(content(&one), texts[0]);
    assert_eq!(one["usage"]["prompt_tokens"], three["usage"]["prompt_tokens"]);
    let again = server.post(PATH, &drawn(3, 5)).await.ok();
    assert_eq!(again["choices"], three["choices"]);
    let other = server.post(PATH, &drawn(1, 6)).await.ok();
    assert_ne!(content(&other), texts[0]);
}

#[tokio::test]
async fn logprobs_tell_every_token() {
    let server = Server::start().await;
    let answer = server.post(PATH, &request(json!({"logprobs": true, "top_logprobs": 3}))).await.ok();
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(answer["choices"][0]["logprobs"]["refusal"].is_null());
    let mut bytes = Vec::new();
    for token in tokens {
        let piece: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
        assert_eq!(token["token"].as_str().unwrap().as_bytes(), piece);
        bytes.extend(piece);
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        let logprobs: Vec<f64> = top.iter().map(|top| top["logprob"].as_f64().unwrap()).collect();
        assert!(logprobs.is_sorted_by(|a, b| a >= b) && logprobs[0] <= 0.0, "{token}");
        assert!(token["logprob"].as_f64().unwrap() <= logprobs[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with(content(&answer)), "{text:?} {answer}");

    let none = server.post(PATH, &request(json!({"logprobs": true}))).await.ok();
    assert_eq!(none["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
    assert_eq!(content(&none), content(&answer));
}

#[tokio::test]
async fn stops_end_the_text_before_them() {
    let server = Server::start().await;
    let whole = server.post(PATH, &request(json!({}))).await.ok();
    let words: Vec<&str> = content(&whole).split(' ').collect();
    // Across a token's border, since it spans two words.
    let stop = format!("{} {}", words[3], words[4]);
    let stopped = server.post(PATH, &request(json!({"stop": ["never to be seen", stop]}))).await.ok();
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let before = content(&whole).find(&stop).unwrap();
    assert_eq!(content(&stopped), &content(&whole)[..before]);
    let tokens = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(tokens(&stopped) < tokens(&whole));
}

#[tokio::test]
async fn sampling_fields_reach_the_sampler() {
    let server = Server::start().await;
    let answer = server.post(PATH, &request(json!({"logprobs": true, "max_tokens": 1}))).await.ok();
    let first = answer["choices"][0]["logprobs"]["content"][0]["token"].as_str().unwrap().to_owned();
    let ids = server.post("/tokenize", &json!({"prompt": first})).await.ok();
    let id = ids["tokens"][0].as_u64().unwrap();
    let banned = json!({"logprobs": true, "max_tokens": 1, "logit_bias": {id.to_string(): -100}});
    let other = server.post(PATH, &request(banned)).await.ok();
    assert_ne!(other["choices"][0]["logprobs"]["content"][0]["token"], first.as_str());
    let stopped = server.post(PATH, &request(json!({"stop_token_ids": [id]}))).await.ok();
    assert_eq!((content(&stopped), &stopped["choices"][0]["finish_reason"]), ("", &json!("stop")));
    let greedy = server.post(PATH, &request(json!({"temperature": 2, "top_k": 1}))).await.ok();
    let plain = server.post(PATH, &request(json!({}))).await.ok();
    assert_eq!(content(&greedy), content(&plain));
    let long = server.post(PATH, &request(json!({"ignore_eos": true, "max_tokens": 300}))).await.ok();
    assert_eq!(long["usage"]["completion_tokens"], 300);
}

#[tokio::test]
async fn parts_and_roles_reach_the_template() {
    let server = Server::start().await;
    let count = async |messages: Value| {
        let tokens = server.post("/tokenize", &json!({"messages": messages})).await.ok();
        tokens["tokens"].clone()
    };
    let plain =
        count(json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]))
            .await;
    let parts = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
    ]);
    assert_eq!(count(parts).await, plain);
}
