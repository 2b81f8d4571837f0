//! Bodies of requests: each is refused with a short message about a field, or within the ranges that the engine takes.
#![no_main]

use bessemer_engine::GenerationDefaults;
use bessemer_server::openai::chat_request::ChatRequest;
use bessemer_server::openai::completion_request::CompletionRequest;
use bessemer_server::openai::error::ApiError;
use bessemer_server::openai::settings::{MAX_CHOICES, Settings};
use bessemer_server::openai::tokenize_request::{DetokenizeRequest, TokenizeRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let defaults = GenerationDefaults::default();
    // One body for every route: most fields have the same names.
    if let Some(chat) = checked(ChatRequest::new(body.clone(), &defaults)) {
        check(&chat.settings);
        assert!(chat.max_tokens != Some(0) && chat.logprobs.unwrap_or(0) <= 20);
        assert!(chat.dialogue.messages.as_array().is_some_and(|messages| !messages.is_empty()));
    }
    if let Some(completion) = checked(CompletionRequest::new(body.clone(), &defaults)) {
        check(&completion.settings);
        assert!((1..=MAX_CHOICES).contains(&(completion.prompts.len() * completion.settings.n)));
        assert!(completion.max_tokens > 0 || completion.echo);
    }
    checked(TokenizeRequest::new(body.clone()));
    checked(DetokenizeRequest::new(body));
});

fn checked<T>(request: Result<T, ApiError>) -> Option<T> {
    match request {
        Ok(request) => Some(request),
        Err(error) => {
            assert_eq!(error.status().as_u16(), 400);
            let document = serde_json::to_value(error.document()).expect("an error is JSON");
            let message = document["error"]["message"].as_str().expect("an error has a message");
            assert!(message.contains(':') && message.len() < 1500, "{message}");
            None
        }
    }
}

fn check(settings: &Settings) {
    assert!((1..=MAX_CHOICES).contains(&settings.n));
    let sampling = settings.sampling_of(settings.n - 1);
    assert!((0.0..=2.0).contains(&sampling.temperature));
    assert!(sampling.top_p > 0.0 && sampling.top_p <= 1.0 && (0.0..=1.0).contains(&sampling.min_p));
    assert!(sampling.repetition_penalty > 0.0 && sampling.repetition_penalty.is_finite());
    assert!(
        (-2.0..=2.0).contains(&sampling.presence_penalty)
            && (-2.0..=2.0).contains(&sampling.frequency_penalty)
    );
    assert!(sampling.logit_bias.iter().all(|(_, bias)| (-100.0..=100.0).contains(bias)));
    assert!(settings.stop.iter().all(|stop| !stop.is_empty()));
}
