//! Streams a story from the embedded model: `cargo run --release -p bessemer-engine --example stream -- "The fox"`.

use std::io::Write;

use bessemer_engine::{Engine, EngineOptions, Prompt, TextReply, TextRequest};
use futures::StreamExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "Once upon a time".into());
    let engine = Engine::load(EngineOptions::default())?;
    let sampling = engine.generation_defaults().sampling();
    print!("{prompt}");
    let mut stream = engine.generate_text(TextRequest {
        prompt: Prompt::Text(prompt),
        sampling,
        max_tokens: Some(200),
        ..TextRequest::default()
    })?;
    while let Some(reply) = stream.next().await {
        match reply {
            TextReply::Delta { text, .. } => {
                print!("{text}");
                std::io::stdout().flush()?;
            }
            TextReply::Finished { reason, usage, .. } => {
                println!("\n[{reason:?}: {} + {} tokens]", usage.prompt_tokens, usage.completion_tokens);
            }
            TextReply::Failed(error) => return Err(error.into()),
        }
    }
    Ok(())
}
