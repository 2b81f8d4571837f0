//! Requests that the operator's listener refuses.

use serde_json::Value;

use crate::document::{Row, Section};
use crate::http::{Request, Server};

const CONFIG: &str = "/api/v1/config";

/// Changes that cannot be made.
const PATCHES: &[&str] = &[
    r#"{"metal_optimizations": {"enabled": "on"}}"#,
    r#"{"metal_optimizations": {"enabled": "false"}}"#,
    r#"{"metal_optimizations": {"memory_pool": {"heap_size_mb": 32}}}"#,
    r#"{"metal_optimizations": {"memory_pool": {"num_heap": 3, "heap_size_mb": 4096}}}"#,
    r#"{"metal_optimizations": {"memory_pool": {"max_heap_size_mb": 128}}}"#,
    r#"{"metal_optimizations": {"memory_pool": {"num_heaps": 3, "pool_count": 4}}}"#,
    r#"{"metal_optimizations": {"command_buffer_ring": {"ring_size": "4"}}}"#,
    r#"{"metal_optimizations": {"blit_queue": false}}"#,
    r#"{"metal_optimisations": {"enabled": false}}"#,
    r#"{"port": 80}"#,
    r#"{"api_key": "another"}"#,
    r#"{"preset": "fast"}"#,
    "[1]",
    "false",
    r#"{"metal_optimizations": "#,
    "",
];

/// Calls that have no result.
const CALLS: &[&str] = &[
    "{",
    "[]",
    "7",
    r#"{"method": "runtime/info", "id": 1}"#,
    r#"{"jsonrpc": "2.0", "id": 1}"#,
    r#"{"jsonrpc": "2.0", "method": "runtime/info", "params": 1, "id": 1}"#,
    r#"{"jsonrpc": "2.0", "method": "runtime/info", "id": [1]}"#,
    r#"{"jsonrpc": "2.0", "method": "runtime/inf", "id": 1}"#,
    r#"{"jsonrpc": "2.0", "method": "shutdown", "id": 1}"#,
    r#"{"jsonrpc": "2.0", "method": "runtime/info", "params": [1], "id": 1}"#,
    r#"{"jsonrpc": "2.0", "method": "runtime.update_metal_config", "id": 1}"#,
    r#"{"jsonrpc": "2.0", "method": "runtime.update_metal_config", "params": {"enabled": false}, "id": 1}"#,
    r#"{"jsonrpc": "2.0", "method": "runtime.update_metal_config", "params": {"config": {"enabled": 1}}, "id": 1}"#,
    r#"{"jsonrpc": "2.0", "method": "runtime.update_metal_config", "params": [{"blit_queue": {"timeout_ms": 1}}], "id": 1}"#,
];

/// Sends every request; none of them changes anything.
pub fn section() -> Section {
    let server = Server::start();
    let look = Request { method: "GET", ..Request::post(CONFIG, b"") };
    let before = server.operate(&look);
    assert_eq!(before.0, 200, "{before:?}");
    let mut rows = Vec::new();
    let mut send = |input: String, request: &Request<'_>| {
        let (status, body) = server.operate(request);
        let error = &body["error"];
        let message = error["message"].as_str().unwrap_or_else(|| panic!("{input}: {body}"));
        let answer = match error["code"].as_i64() {
            Some(code) => format!("{code}: {message}"),
            None => message.to_owned(),
        };
        rows.push(Row { input, status, answer });
    };
    for patch in PATCHES {
        let shown = if patch.is_empty() { "nothing".to_owned() } else { format!("`{patch}`") };
        send(format!("`{CONFIG}` with {shown}"), &Request::post(CONFIG, patch.as_bytes()));
    }
    for call in CALLS {
        send(format!("`/rpc` with `{call}`"), &Request::post("/rpc", call.as_bytes()));
    }
    let off = br#"{"metal_optimizations": {"enabled": false}}"#;
    let with = |name: &'static str, value: Option<&str>| {
        let mut request = Request::post(CONFIG, off);
        request.headers.retain(|(header, _)| *header != name);
        request.headers.extend(value.map(|value| (name, value.to_owned())));
        request
    };
    send("no `Authorization`".into(), &with("Authorization", None));
    send("`Authorization: Bearer guess`".into(), &with("Authorization", Some("Bearer guess")));
    send("`Content-Type: text/plain`".into(), &with("Content-Type", Some("text/plain")));
    send("`Origin: https://evil.example`".into(), &with("Origin", Some("https://evil.example")));
    send("`Sec-Fetch-Site: cross-site`".into(), &with("Sec-Fetch-Site", Some("cross-site")));
    send("`Host: evil.example`".into(), &with("Host", Some("evil.example")));
    send("a body of 100 MB".into(), &with("Content-Length", Some("100000000")));
    send("`POST /metrics`".into(), &Request::post("/metrics", b"{}"));
    send("`GET /api/v1/configs`".into(), &Request { method: "GET", ..Request::post("/api/v1/configs", b"") });
    for line in ["top --once", "top --once --token guess", "top --once --token schlüssel"] {
        let (status, answer) = server.failure(&line.split(' ').collect::<Vec<_>>());
        rows.push(Row { input: format!("`bessemer {line}`"), status, answer });
    }
    let after: (u16, Value) = server.operate(&look);
    assert_eq!(after, before, "something has changed");
    Section {
        title: "The operator's listener",
        intro: "To the listener of `bessemer serve --admin-token …` (`docs/admin.md`); answers of `/rpc` begin with their code, and of \
                `bessemer top` the status is the exit code:",
        columns: ["input", "status", "message"],
        rows,
    }
}
