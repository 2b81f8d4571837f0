//! `/v1/completions`, whole answers, and the token routes.

use serde_json::{Value, json};

use crate::client::Server;

const PATH: &str = "/v1/completions";

fn text(answer: &Value, index: usize) -> &str {
    answer["choices"][index]["text"].as_str().unwrap()
}

#[tokio::test]
async fn all_kinds_of_prompt_agree() {
    let server = Server::start().await;
    let greedy = async |prompt: &Value| {
        server
            .post(PATH, &json!({"model": "default", "prompt": prompt, "max_tokens": 12, "temperature": 0}))
            .await
            .ok()
    };
    let one = greedy(&json!("Once upon a time")).await;
    assert_eq!(one["object"], "text_completion");
    assert!(one["id"].as_str().unwrap().starts_with("cmpl-"));
    assert!(text(&one, 0).len() > 10, "{one}");
    let tokens =
        server.post("/tokenize", &json!({"prompt": "Once upon a time"})).await.ok()["tokens"].clone();
    assert_eq!(one["usage"]["prompt_tokens"], tokens.as_array().unwrap().len());
    let by_tokens = greedy(&tokens).await;
    assert_eq!(text(&by_tokens, 0), text(&one, 0));
    let two = greedy(&json!(["The dog", "Once upon a time"])).await;
    assert_eq!(text(&two, 1), text(&one, 0));
    assert_eq!(two["choices"][1]["index"], 1);
    let lists = greedy(&json!([[5, 6], tokens])).await;
    assert_eq!(text(&lists, 1), text(&one, 0));
}

#[tokio::test]
async fn sixteen_tokens_unless_told_otherwise() {
    let server = Server::start().await;
    let answer = server.post(PATH, &json!({"prompt": "Once", "ignore_eos": true})).await.ok();
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_limit_beyond_the_context_ends_with_it() {
    let server = Server::start().await;
    let body = json!({"prompt": [5, 6, 7], "ignore_eos": true, "max_tokens": 1_000_000, "temperature": 0});
    let answer = server.post(PATH, &body).await.ok();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let total = answer["usage"]["total_tokens"].as_u64().unwrap();
    assert!((1023..=1024).contains(&total), "{total}");
}

#[tokio::test]
async fn prompts_times_n() {
    let server = Server::start().await;
    let body =
        json!({"prompt": ["The dog", "The cat"], "n": 2, "max_tokens": 6, "seed": 1, "temperature": 1.0});
    let answer = server.post(PATH, &body).await.ok();
    let indices: Vec<_> =
        answer["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    let alone = json!({"prompt": "The cat", "max_tokens": 6, "seed": 1, "temperature": 1.0});
    let alone = server.post(PATH, &alone).await.ok();
    assert_eq!(text(&alone, 0), text(&answer, 2));
}

#[tokio::test]
async fn echo_repeats_the_prompt_with_its_logprobs() {
    let server = Server::start().await;
    let prompt = "Once upon a time";
    let body = |tokens: usize| {
        json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "repetition_penalty": 1, "echo": true,
               "logprobs": 2})
    };
    let answer = server.post(PATH, &body(6)).await.ok();
    assert!(text(&answer, 0).starts_with(prompt));
    let logprobs = &answer["choices"][0]["logprobs"];
    let list = |name: &str| logprobs[name].as_array().unwrap().clone();
    let (tokens, values, top, offsets) =
        (list("tokens"), list("token_logprobs"), list("top_logprobs"), list("text_offset"));
    let used = answer["usage"]["total_tokens"].as_u64().unwrap() as usize;
    let ended = usize::from(answer["choices"][0]["finish_reason"] == "stop");
    assert!(tokens.len() + ended >= used, "{answer}");
    assert_eq!((tokens.len(), values.len(), top.len()), (values.len(), top.len(), offsets.len()));
    assert!(values[0].is_null() && top[0].is_null());
    let joined: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(joined, text(&answer, 0));
    for (token, offset) in tokens.iter().zip(&offsets) {
        let rest: String = joined.chars().skip(offset.as_u64().unwrap() as usize).collect();
        assert!(rest.starts_with(token.as_str().unwrap()));
    }
    // The prompt's path and the generation's give the same numbers: score the whole text as a prompt.
    let mut again = body(0);
    again["prompt"] = json!(text(&answer, 0));
    let scored = server.post(PATH, &again).await.ok();
    assert_eq!(
        (text(&scored, 0), scored["usage"]["completion_tokens"].as_u64()),
        (text(&answer, 0), Some(0))
    );
    let scored = &scored["choices"][0]["logprobs"];
    if scored["tokens"] == logprobs["tokens"] {
        for (a, b) in values.iter().zip(scored["token_logprobs"].as_array().unwrap()).skip(1) {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() < 0.05, "{a} {b}");
        }
    }
}

#[tokio::test]
async fn tokens_there_and_back() {
    let server = Server::start().await;
    let text = "Once upon a time there was a café. 🙂";
    let tokens = server.post("/tokenize", &json!({"prompt": text, "return_token_strs": true})).await.ok();
    let ids = tokens["tokens"].as_array().unwrap();
    assert_eq!(tokens["count"], ids.len());
    assert_eq!(tokens["token_strs"].as_array().unwrap().len(), ids.len());
    assert_eq!(tokens["max_model_len"], 1024);
    let back = server.post("/detokenize", &json!({"tokens": ids})).await.ok();
    assert_eq!(back, json!({"prompt": text}));
}
