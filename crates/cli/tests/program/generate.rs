//! `generate` and `chat` with the embedded model.

use std::io::Read;

use crate::run::{bessemer, command, oracle_json, with_input};

/// The distribution itself, greedily: what the oracle computed.
const GREEDY: [&str; 6] = ["--exact", "--temperature", "0", "--repetition-penalty", "1", "-n48"];

fn greedy<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    ["generate"].iter().chain(&GREEDY).chain(rest).copied().collect()
}

#[test]
fn greedy_text_is_that_of_the_oracle() {
    let oracle = oracle_json("storyteller/oracle.json");
    let case = &oracle["storyteller-4bit"]["greedy_cases"][0];
    let outcome = bessemer(&greedy(&["--", case["prompt"].as_str().unwrap()]));
    assert_eq!(outcome.output(), format!("{}\n", case["text"].as_str().unwrap()));
    assert_eq!(outcome.stderr, "");
}

#[test]
fn json_tells_the_whole_outcome() {
    let oracle = oracle_json("storyteller/oracle.json");
    let case = &oracle["storyteller-4bit"]["greedy_cases"][0];
    let answer = bessemer(&greedy(&["--json", case["prompt"].as_str().unwrap()])).json();
    let tokens: Vec<_> =
        case["greedy"].as_array().unwrap().iter().map(|step| step["token"].clone()).collect();
    assert_eq!(answer["tokens"].as_array().unwrap(), &tokens);
    assert_eq!(answer["text"], case["text"]);
    assert_eq!(answer["usage"]["prompt_tokens"], case["prompt_ids"].as_array().unwrap().len());
    assert_eq!(answer["usage"]["completion_tokens"], 48);
    assert_eq!(answer["finish_reason"], "length");
    for figure in ["load_s", "ttft_ms", "decode_tok_s", "total_s"] {
        assert!(answer["timings"][figure].as_f64().unwrap() > 0.0, "{figure}");
    }
}

#[test]
fn a_prompt_may_come_through_a_pipe() {
    let argument = bessemer(&greedy(&["Once upon a time"]));
    assert_eq!(with_input(&greedy(&["-"]), "Once upon a time\n").output(), argument.output());
    assert_eq!(with_input(&greedy(&[]), "Once upon a time\n").output(), argument.output());
}

#[test]
fn a_stop_string_is_not_printed() {
    let outcome = bessemer(&greedy(&["--json", "--stop", "Sigurd", "Once upon a time"])).json();
    assert_eq!(outcome["text"], " there was a king who had a son who was called ");
    assert_eq!(outcome["finish_reason"], "stop");
    assert_eq!(outcome["matched_stop"], "Sigurd");
}

#[test]
fn a_seed_makes_the_draw_reproducible() {
    let draw = |seed| {
        bessemer(&["generate", "-n20", "--temperature", "1", "--seed", seed, "The"]).output().to_owned()
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn statistics_go_to_standard_error() {
    let outcome = bessemer(&greedy(&["--stats", "Once upon a time"]));
    assert!(outcome.output().starts_with(" there was a king"));
    assert!(
        outcome.stderr.contains("48 tokens at") && outcome.stderr.contains("ended by length"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child =
        command().args(["generate", "-n400", "--temperature", "0", "Once upon a time"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn chat_applies_the_template_and_keeps_the_history() {
    let oracle = oracle_json("storyteller/oracle.json");
    let case = &oracle["storyteller-4bit"]["greedy_cases"][3];
    assert!(case["prompt"].as_str().unwrap().contains("Hello!"));
    let expected = case["text"].as_str().unwrap().split("<|im_end|>").next().unwrap();
    let once = bessemer(&greedy(&["--chat", "Hello!"]));
    assert_eq!(once.output(), format!("{expected}\n"));

    let flags: Vec<_> = ["chat"].iter().chain(&GREEDY).copied().collect();
    let talk =
        |lines: &str| with_input(&flags, lines).output().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(talk("Hello!\n"), [expected]);
    assert_eq!(talk("Hello!\n/reset\n/help\n\nHello!\n/quit\nnever read\n"), [expected, expected]);

    let question = "Tell me a story about a dragon and a princess.\n";
    let (alone, after) = (talk(question), talk(&format!("Hello!\n{question}")));
    assert_eq!(after[0], expected);
    assert_ne!(after[1..], alone, "the second answer does not know of the first");
}

#[test]
fn chat_forgets_the_oldest_when_the_context_is_full() {
    let flags: Vec<_> = ["chat", "--context", "80"].iter().chain(&GREEDY).copied().collect();
    let outcome = with_input(&flags, &"Tell me a story about a dragon and a princess.\n".repeat(4));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("the context is full: the 2 oldest messages are forgotten"),
        "{}",
        outcome.stderr
    );

    let long = with_input(&flags, &"dragon ".repeat(100));
    assert_eq!(long.code, Some(1));
    assert!(long.stderr.contains("context of 80 tokens"), "{}", long.stderr);
}
