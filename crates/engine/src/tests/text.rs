//! Text streams over the embedded model's tokenizer, with the engine's end of the channel in the test's hand.

use bessemer_text::{ChatTemplate, Detokenizer, SpecialTokens, Specials, Tokenizer};
use bessemer_weights::{ModelFiles, OpenOptions};
use proptest::prelude::*;
use serde_json::json;

use crate::gate::Gate;
use crate::reply_stream::{Outlet, reply_channel};
use crate::serving::ServingMeter;
use crate::text_request::check_stops;
use crate::{
    ChatPrompt, EngineError, FinishReason, Prompt, Reply, TextReply, TextRequest, TextStream, Token, Usage,
};

const TEXT: &str = "Once upon a time, there was a little 🦊 named Zoë. She liked to play in the garden.";

fn files() -> ModelFiles {
    ModelFiles::open("default", &OpenOptions::default()).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(&files().tokenizer_json.unwrap()).unwrap()
}

fn stream(tokenizer: &Tokenizer, stops: &[&str]) -> (Outlet, TextStream) {
    let (outlet, replies) =
        reply_channel(1000, Gate::new(1).enter().unwrap(), ServingMeter::new(None).request(7));
    let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
    (outlet, TextStream::new(replies, Detokenizer::new(tokenizer.clone()), stops, 7))
}

/// What came out of a stream.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    tokens: Vec<u32>,
    end: Option<(FinishReason, Usage, Option<String>)>,
}

fn listen(mut stream: TextStream) -> Heard {
    let mut heard = Heard::default();
    while let Some(reply) = stream.blocking_next() {
        assert!(heard.end.is_none(), "nothing follows the end");
        match reply {
            TextReply::Delta { text, tokens } => {
                heard.text += &text;
                heard.tokens.extend(tokens.iter().map(|token| token.id));
            }
            TextReply::Finished { reason, usage, matched_stop } => {
                heard.end = Some((reason, usage, matched_stop))
            }
            TextReply::Failed(error) => panic!("{error}"),
        }
    }
    heard
}

/// Streams `text` token by token; afterwards the engine ends it for length.
fn say(text: &str, stops: &[&str]) -> (Vec<u32>, Heard) {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode(text, SpecialTokens::Skip).unwrap();
    let (outlet, stream) = stream(&tokenizer, stops);
    for id in &ids {
        outlet.token(Token { id: *id, logprob: -1.0, top: Vec::new() });
    }
    let usage = Usage { prompt_tokens: 7, completion_tokens: ids.len(), ..Usage::default() };
    outlet.end(Reply::Finished { reason: FinishReason::Length, usage });
    (ids, listen(stream))
}

#[test]
fn the_whole_text_with_every_token() {
    let (ids, heard) = say(TEXT, &["\nUser:", "never"]);
    assert_eq!(heard.text, TEXT);
    assert_eq!(heard.tokens, ids);
    let usage = Usage { prompt_tokens: 7, completion_tokens: ids.len(), ..Usage::default() };
    assert_eq!(heard.end, Some((FinishReason::Length, usage, None)));
}

#[test]
fn held_back_text_is_sent_at_the_end() {
    let (ids, heard) = say("Hello the", &["the end"]);
    assert_eq!((heard.text.as_str(), heard.tokens), ("Hello the", ids));
}

#[test]
fn a_stop_string_cancels_and_counts_what_was_read() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode(TEXT, SpecialTokens::Skip).unwrap();
    let (outlet, mut stream) = stream(&tokenizer, &["e was a l"]);
    for id in &ids {
        outlet.token(Token { id: *id, logprob: -1.0, top: Vec::new() });
    }
    let mut text = String::new();
    let end = loop {
        match stream.blocking_next().unwrap() {
            TextReply::Delta { text: piece, .. } => text += &piece,
            TextReply::Finished { reason, usage, matched_stop } => break (reason, usage, matched_stop),
            TextReply::Failed(error) => panic!("{error}"),
        }
    };
    assert_eq!(text, "Once upon a time, ther");
    assert!(outlet.is_cancelled());
    let read = (1..).find(|n| tokenizer.decode(&ids[..*n], Specials::Skip).contains("e was a l")).unwrap();
    assert!(read < ids.len());
    let usage = Usage { prompt_tokens: 7, completion_tokens: read, ..Usage::default() };
    assert_eq!(end, (FinishReason::Stop, usage, Some("e was a l".into())));
    assert!(stream.blocking_next().is_none());
}

#[test]
fn a_failure_is_the_end() {
    let (outlet, mut stream) = stream(&tokenizer(), &[]);
    drop(outlet);
    assert!(matches!(stream.blocking_next(), Some(TextReply::Failed(EngineError::ShuttingDown))));
    assert!(stream.blocking_next().is_none());
}

#[test]
fn prompts_of_every_form() {
    let (files, tokenizer) = (files(), tokenizer());
    let template =
        ChatTemplate::of_model(files.chat_template.as_deref(), files.tokenizer_config.as_ref()).unwrap();
    let text = Prompt::Text("Once upon a time".into()).tokenize(&tokenizer, None).unwrap();
    assert_eq!(tokenizer.decode(&text, Specials::Skip), "Once upon a time");
    assert_eq!(Prompt::Tokens(vec![5, 6]).tokenize(&tokenizer, None).unwrap(), [5, 6]);

    let chat = Prompt::Chat(ChatPrompt::new(json!([{"role": "user", "content": "Tell me about a fox"}])));
    let ids = chat.tokenize(&tokenizer, template.as_ref()).unwrap();
    assert!(tokenizer.decode(&ids, Specials::Skip).contains("Tell me about a fox"));
    let error = chat.tokenize(&tokenizer, None).unwrap_err();
    assert!(matches!(error, EngineError::Invalid { field: "messages", .. }), "{error}");
}

#[test]
fn stop_strings_are_checked() {
    assert!(check_stops(&TextRequest::default().stop).is_ok());
    assert!(check_stops(&["a".into(), String::new()]).is_err());
    assert!(check_stops(&vec!["a".to_owned(); 2000]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cut_exactly_where_the_first_stop_string_begins(start in 0_usize..80, len in 1_usize..12) {
        let stop: String = TEXT.chars().skip(start).take(len).collect();
        prop_assume!(!stop.is_empty());
        let (ids, heard) = say(TEXT, &[&stop]);
        let cut = TEXT.find(&stop).unwrap();
        prop_assert_eq!(&heard.text, &TEXT[..cut]);
        prop_assert!(ids.starts_with(&heard.tokens));
        let (reason, usage, matched) = heard.end.unwrap();
        prop_assert_eq!((reason, matched), (FinishReason::Stop, Some(stop)));
        prop_assert!(usage.completion_tokens >= heard.tokens.len());
    }
}
