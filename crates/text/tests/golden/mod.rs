//! Access to the oracle data in `tests/golden` of the repository.
#![allow(dead_code, reason = "every test program uses its part")]

use std::path::PathBuf;

use bessemer_text::Tokenizer;
use serde_json::Value;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Text of a file below `tests/golden`.
pub fn read(path: &str) -> String {
    let path = repository().join("tests/golden").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Tokenizer and recorded cases of a style.
pub fn style(name: &str) -> (Tokenizer, Value) {
    let tokenizer =
        Tokenizer::from_bytes(read(&format!("tokenizer/{name}/tokenizer.json")).as_bytes()).expect(name);
    (tokenizer, serde_json::from_str(&read(&format!("tokenizer/{name}/cases.json"))).expect(name))
}

/// The tokenizer of the model that comes with the repository.
pub fn storyteller() -> Tokenizer {
    let path = repository().join("models/storyteller-4bit/tokenizer.json");
    Tokenizer::from_bytes(&std::fs::read(path).expect("the file")).expect("a tokenizer")
}

/// A recorded list of ids.
pub fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

/// A recorded list of pieces.
pub fn pieces(value: &Value) -> Vec<Option<String>> {
    serde_json::from_value(value.clone()).expect("a list of pieces")
}

/// A recorded string.
pub fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}
