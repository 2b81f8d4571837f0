//! OpenAI's formats: what requests may say, what responses look like, how errors are told.

pub mod chat_request;
pub mod completion_request;
pub mod error;
pub mod fields;
pub mod logprobs;
pub mod message;
pub mod passive;
pub mod response;
pub mod settings;
pub mod tokenize_request;
