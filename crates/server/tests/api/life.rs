//! Clients that leave, servers that end, engines that are full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_engine::{Engine, EngineOptions, Optimizations};
use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use bessemer_server::ServerOptions;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Reply, Server, read_until};

const PATH: &str = "/v1/chat/completions";

/// Runs for as long as the context allows. A stream's first chunk comes as soon as the engine has it.
fn endless(stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "Tell me a story."}]);
    json!({"messages": messages, "max_tokens": 1000, "ignore_eos": true, "stream": stream, "temperature": 0})
}

/// Two tokens.
fn short() -> Value {
    let mut body = endless(false);
    body["max_tokens"] = json!(2);
    body
}

fn own_engine(options: EngineOptions) -> Engine {
    Engine::load(options).unwrap()
}

/// One on which an endless request takes seconds, and its device.
fn slow_engine(options: EngineOptions) -> (Engine, Arc<FaultDevice>) {
    let device = FaultDevice::new(CpuDevice::new(&CpuOptions::default()));
    let plan = FaultPlan::new(0).with(Fault::SubmissionTimeout, 1.0);
    device.arm(plan.with_timeout(Duration::from_millis(10)));
    let options = EngineOptions { optimizations: Optimizations::on(), ..options };
    (Engine::load_on(device.clone(), options).unwrap(), device)
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_blocks() {
    let (engine, _) = slow_engine(EngineOptions::default());
    let server = Server::with(engine.clone(), ServerOptions::default()).await;
    for stream in [true, false] {
        let mut body = endless(stream);
        body["n"] = json!(3);
        let before = engine.stats();
        let mut connection = server.open_post(PATH, &body).await;
        if stream {
            read_until(&mut connection, "data: ").await;
        }
        until("three run", || engine.stats().running == 3).await;
        drop(connection);
        until("blocks are free", || engine.stats().kv_blocks_used == 0).await;
        let after = engine.stats();
        assert_eq!(after.cancelled - before.cancelled, 3, "stream: {stream}");
        assert_eq!(after.finished, before.finished, "stream: {stream}");
    }
}

#[tokio::test]
async fn a_full_engine_answers_429() {
    let (engine, _) =
        slow_engine(EngineOptions { max_sequences: 1, max_queue: 0, ..EngineOptions::default() });
    let server = Server::with(engine.clone(), ServerOptions::default()).await;
    let mut first = server.open_post(PATH, &endless(true)).await;
    read_until(&mut first, "data: ").await;
    let second = server.post(PATH, &endless(false)).await;
    assert_eq!(second.status, 429, "{second:?}");
    assert_eq!(second.headers["retry-after"], "1");
    let error = &second.json()["error"];
    assert_eq!(
        (error["type"].as_str(), error["code"].as_str()),
        (Some("rate_limit_error"), Some("rate_limit_exceeded"))
    );
    drop(first);
    until("the first is gone", || engine.stats().running + engine.stats().waiting == 0).await;
    server.post(PATH, &short()).await.ok();
}

#[tokio::test]
async fn choices_are_all_or_none() {
    let (engine, _) =
        slow_engine(EngineOptions { max_sequences: 1, max_queue: 1, ..EngineOptions::default() });
    let server = Server::with(engine.clone(), ServerOptions::default()).await;
    let mut body = endless(false);
    body["n"] = json!(3);
    assert_eq!(server.post(PATH, &body).await.status, 429);
    until("the others are cancelled", || engine.stats().cancelled == 2).await;
}

#[tokio::test]
async fn running_requests_finish_at_the_end() {
    let engine = own_engine(EngineOptions::default());
    let mut server = Server::with(engine, ServerOptions::default()).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut body = endless(true);
    body["max_tokens"] = json!(200);
    let mut stream = server.open_post(PATH, &body).await;
    let mut text = read_until(&mut stream, "data: ").await;
    server.signal();
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0, "an idle connection closes at once");
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("data: [DONE]") && text.contains("\"finish_reason\":\"length\""), "{text}");
    let address = server.address;
    server.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_drain_timeout_breaks_off_what_is_left() {
    let (engine, _) = slow_engine(EngineOptions::default());
    let options = ServerOptions { drain_timeout: Duration::from_millis(100), ..ServerOptions::default() };
    let mut server = Server::with(engine.clone(), options).await;
    let mut body = endless(true);
    body["n"] = json!(16);
    let mut stream = server.open_post(PATH, &body).await;
    read_until(&mut stream, "data: ").await;
    server.signal();
    server.ended().await;
    until("blocks are free", || engine.stats().kv_blocks_used == 0).await;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.ok();
    assert!(!rest.contains("[DONE]"));
}

#[tokio::test]
async fn new_requests_on_an_open_connection_get_503_while_draining() {
    let (engine, _) = slow_engine(EngineOptions::default());
    let mut server = Server::with(engine, ServerOptions::default()).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut running = server.open_post(PATH, &endless(true)).await;
    read_until(&mut running, "data: ").await;
    // The head of this request arrives before the signal, its body after it.
    let mut late = TcpStream::connect(server.address).await.unwrap();
    let body = endless(false).to_string();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    late.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut late, "100 Continue\r\n\r\n").await;
    server.signal();
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0, "idle connections close while it drains");
    late.write_all(body.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    late.read_to_end(&mut bytes).await.unwrap();
    let reply = Reply::parse(&bytes);
    assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    drop(running);
    server.ended().await;
}

#[tokio::test]
async fn an_engine_that_fails_in_a_stream_is_an_error_event() {
    let (engine, _) = slow_engine(EngineOptions::default());
    let server = Server::with(engine.clone(), ServerOptions::default()).await;
    let mut stream = server.open_post(PATH, &endless(true)).await;
    let mut text = read_until(&mut stream, "data: ").await;
    let ended = tokio::task::spawn_blocking(move || engine.shutdown());
    stream.read_to_string(&mut text).await.unwrap();
    ended.await.unwrap();
    let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
    let error = serde_json::from_str::<Value>(last).unwrap()["error"].clone();
    assert_eq!(error["code"], "shutting_down", "{text}");
    assert!(!text.contains("[DONE]"));
    assert_eq!(server.post(PATH, &endless(false)).await.status, 503);
}

#[tokio::test]
async fn a_lost_device_is_told_to_clients_and_to_who_watches() {
    let (engine, device) = slow_engine(EngineOptions::default());
    let server = Server::with(engine, ServerOptions::default()).await;
    let mut stream = server.open_post(PATH, &endless(true)).await;
    let mut text = read_until(&mut stream, "data: ").await;
    assert_eq!(server.get("/health").await.status, 200);
    device.lose("as ordered by the test");
    stream.read_to_string(&mut text).await.unwrap();
    let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["error"]["code"], "device_lost", "{text}");
    for reply in [server.post(PATH, &short()).await, server.get("/health").await] {
        assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (503, Some("device_lost")));
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("as ordered by the test") && message.contains("restart"), "{message}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let engine = own_engine(EngineOptions::default());
    let server = Server::with(engine.clone(), ServerOptions::default()).await;
    let mut body = endless(true);
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(20);
    let unread = server.open_post(PATH, &body).await;
    until("it has started", || engine.stats().generated_tokens > 0).await;
    server.post(PATH, &short()).await.ok();
    until("the unread one has ended too", || engine.stats().finished == 2).await;
    drop(unread);
}
