//! HTTP around the routes: methods, keys, ids, origins, limits.

use std::time::Duration;

use bessemer_server::{Cors, ServerOptions};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::client::{Reply, Server, engine};

const CHAT: &str = "/v1/chat/completions";

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.headers.get(name).map_or("", String::as_str)
}

#[tokio::test]
async fn models_and_health() {
    let options =
        ServerOptions { model_name: Some("house/storyteller".to_owned()), ..ServerOptions::default() };
    let server = Server::with(engine(), options).await;
    assert_eq!(server.get("/health").await.ok(), json!({"status": "ok"}));
    let list = server.get("/v1/models").await.ok();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("house/storyteller")));
    assert_eq!(
        (&list["data"][0]["object"], &list["data"][0]["max_model_len"]),
        (&json!("model"), &json!(1024))
    );
    for id in ["house/storyteller", "house%2Fstoryteller", "storyteller", "default"] {
        assert_eq!(server.get(&format!("/v1/models/{id}")).await.ok(), list["data"][0]);
    }
    let missing = server.get("/v1/models/gpt-4o").await;
    assert_eq!((missing.status, missing.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
}

#[tokio::test]
async fn methods() {
    let server = Server::start().await;
    let wrong = server.get(CHAT).await;
    assert_eq!((wrong.status, header(&wrong, "allow")), (405, "POST"));
    assert_eq!(wrong.json()["error"]["code"], "method_not_allowed");
    let options = server.send("OPTIONS", CHAT, &[], b"").await;
    assert_eq!((options.status, header(&options, "allow"), options.body.as_str()), (204, "POST", ""));
    let head = server.send("HEAD", "/v1/models", &[], b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let nowhere = server.get("/nowhere").await;
    assert_eq!((nowhere.status, nowhere.json()["error"]["code"].as_str()), (404, Some("unknown_url")));
}

#[tokio::test]
async fn keys() {
    let options = ServerOptions { api_key: Some("secret".to_owned()), ..ServerOptions::default() };
    let server = Server::with(engine(), options).await;
    for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "secret")]] {
        for path in ["/v1/models", "/nowhere"] {
            let reply = server.send("GET", path, headers, b"").await;
            assert_eq!((reply.status, header(&reply, "www-authenticate")), (401, "Bearer"), "{reply:?}");
            assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
        }
    }
    assert_eq!(server.send("POST", CHAT, &[], b"{}").await.status, 401);
    assert_eq!(
        server.send("GET", "/v1/models", &[("authorization", "Bearer secret")], b"").await.status,
        200
    );
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn request_ids() {
    let server = Server::start().await;
    let own = server.send("GET", "/health", &[("x-request-id", "mine-1")], b"").await;
    assert_eq!(header(&own, "x-request-id"), "mine-1");
    let (a, b) = (server.get("/health").await, server.get("/nowhere").await);
    assert!(header(&a, "x-request-id").starts_with("req-") && header(&b, "x-request-id").starts_with("req-"));
    assert_ne!(header(&a, "x-request-id"), header(&b, "x-request-id"));
}

#[tokio::test]
async fn origins() {
    let origin = ("origin", "https://chat.example.org");
    let preflight = [origin, ("access-control-request-method", "POST")];
    let closed = Server::start().await;
    let reply = closed.send("OPTIONS", CHAT, &preflight, b"").await;
    assert_eq!(header(&reply, "access-control-allow-origin"), "");

    let options =
        |cors| ServerOptions { cors, api_key: Some("secret".to_owned()), ..ServerOptions::default() };
    let origins = Cors::Origins(vec!["https://chat.example.org".to_owned()]);
    let server = Server::with(engine(), options(origins)).await;
    let reply = server.send("OPTIONS", CHAT, &preflight, b"").await;
    assert_eq!(
        (reply.status, header(&reply, "access-control-allow-origin")),
        (204, "https://chat.example.org")
    );
    assert!(header(&reply, "access-control-allow-headers").contains("authorization"));
    let reply = server.send("GET", "/v1/models", &[origin, ("authorization", "Bearer secret")], b"").await;
    assert_eq!(
        (reply.status, header(&reply, "access-control-allow-origin")),
        (200, "https://chat.example.org")
    );
    let reply = server.send("GET", "/health", &[("origin", "https://evil.example.org")], b"").await;
    assert_eq!(header(&reply, "access-control-allow-origin"), "");

    let server = Server::with(engine(), options(Cors::Any)).await;
    assert_eq!(
        header(&server.send("GET", "/health", &[origin], b"").await, "access-control-allow-origin"),
        "*"
    );
}

#[tokio::test]
async fn bodies() {
    let options = ServerOptions { max_body_bytes: 1000, ..ServerOptions::default() };
    let hasty = ServerOptions { body_timeout: Duration::from_millis(300), ..options.clone() };
    let (server, hasty) = (Server::with(engine(), options).await, Server::with(engine(), hasty).await);
    let json = ("content-type", "application/json");
    let code = |reply: &Reply| reply.json()["error"]["code"].as_str().unwrap().to_owned();

    let large = server.send("POST", CHAT, &[json], &[b' '; 1001]).await;
    assert_eq!((large.status, code(&large)), (413, "body_too_large".to_owned()));
    let chunked: Vec<u8> = [b"400\r\n", &[b' '; 0x400][..], b"\r\n0\r\n\r\n"].concat();
    let headers = [json, ("transfer-encoding", "chunked"), ("content-length", "")];
    let large = hasty.send("POST", CHAT, &headers[..2], &[]).await;
    assert_eq!(large.status, 408, "no chunk was sent: {large:?}");
    let mut stream = server.open("POST", CHAT, &headers[..2], &[]).await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, &chunked).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(Reply::parse(&bytes).status, 413);

    let slow = hasty.send("POST", CHAT, &[json, ("content-length", "900")], b"{").await;
    assert_eq!((slow.status, code(&slow)), (408, "request_timeout".to_owned()));
    for headers in [&[][..], &[("content-type", "text/plain")]] {
        let plain = server.send("POST", CHAT, headers, b"{}").await;
        assert_eq!((plain.status, code(&plain)), (415, "unsupported_media_type".to_owned()));
    }
}
