//! Tokenizer, chat templates, incremental detokenizer.
