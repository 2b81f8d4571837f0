//! Clients that read streams for as long as a test changes settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bessemer_engine::Engine;
use bessemer_server::ServerOptions;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::{Client, Server};

/// Clients, each with a request of its own that it sends again and again.
pub struct Streams {
    done: Arc<AtomicBool>,
    clients: Vec<JoinHandle<usize>>,
    _server: Server,
}

impl Streams {
    /// Three of them: greedy, drawn by a seed, and a dialogue.
    pub async fn start(engine: &Engine) -> Self {
        let server = Server::with(engine.clone(), ServerOptions::default()).await;
        let done = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for (path, mut body) in [
            ("/v1/completions", json!({"prompt": "Once upon a time", "temperature": 0, "max_tokens": 24})),
            (
                "/v1/completions",
                json!({"prompt": "The old king", "seed": 7, "temperature": 0.9, "max_tokens": 17}),
            ),
            (
                "/v1/chat/completions",
                json!({"messages": [{"role": "user", "content": "A fox."}], "temperature": 0, "max_tokens": 30}),
            ),
        ] {
            body["stream"] = json!(true);
            let expected = text(server.client(), path, &body).await;
            clients.push(tokio::spawn(ask(server.client(), path, body, expected, done.clone())));
        }
        Self { done, clients, _server: server }
    }

    /// Stops; how many answers there were. All of them were whole and the same.
    pub async fn stop(self) -> usize {
        self.done.store(true, Ordering::Release);
        let mut answers = 0;
        for client in self.clients {
            let own = client.await.expect("no client met anything else than it expected");
            assert!(own > 0, "a client had no answer while settings changed");
            answers += own;
        }
        answers
    }
}

async fn ask(
    client: Client,
    path: &'static str,
    body: Value,
    expected: String,
    done: Arc<AtomicBool>,
) -> usize {
    let mut answers = 0;
    while !done.load(Ordering::Acquire) {
        assert_eq!(text(client, path, &body).await, expected, "{body}");
        answers += 1;
    }
    answers
}

/// What the chunks of a stream say together.
async fn text(client: Client, path: &str, body: &Value) -> String {
    let chunks = client.post(path, body).await.chunks();
    let piece = |chunk: &Value| {
        let choice = &chunk["choices"][0];
        choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or_default().to_owned()
    };
    chunks.iter().map(piece).collect()
}
