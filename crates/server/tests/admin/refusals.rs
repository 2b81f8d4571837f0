//! Who is refused, before anything is read.

use bessemer_server::{AdminOptions, ServerError, bind_admin, serve_admin};
use serde_json::json;

use crate::operator::{Operator, control, engine};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn web_pages_of_other_origins_are_refused() {
    let operator = Operator::start(&engine(), "").await;
    let body = json!({"metal_optimizations": {"enabled": false}}).to_string();
    for headers in [
        vec![JSON, ("origin", "https://evil.example")],
        vec![JSON, ("origin", "null")],
        vec![JSON, ("sec-fetch-site", "cross-site")],
        vec![JSON, ("host", "evil.example:9464"), ("origin", "http://evil.example:9464")],
    ] {
        for path in ["/api/v1/config", "/rpc"] {
            let reply = operator.send("POST", path, &headers, body.as_bytes()).await;
            assert_eq!(reply.status, 403, "{headers:?}: {reply:?}");
        }
        for path in ["/api/v1/config", "/metrics", "/health"] {
            assert_eq!(
                operator.send("GET", path, &headers[1..], b"").await.status,
                403,
                "{path} {headers:?}"
            );
        }
    }
    // What a form of any page may send without asking the browser first.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let reply = operator.send("POST", "/api/v1/config", &[("content-type", kind)], body.as_bytes()).await;
        assert_eq!(reply.status, 415, "{kind}");
    }
    assert_eq!(operator.in_force().await["enabled"], "auto", "nothing has changed");
}

#[tokio::test]
async fn a_token_is_asked_for_everywhere_but_for_health() {
    let operator = Operator::loading("", Some("secret")).await;
    operator.control.loaded(engine());
    for (method, path) in [
        ("GET", "/api/v1/config"),
        ("POST", "/api/v1/config"),
        ("GET", "/api/v1/stats"),
        ("POST", "/rpc"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
    ] {
        for headers in [
            vec![JSON],
            vec![JSON, ("authorization", "Bearer guess")],
            vec![JSON, ("authorization", "secret")],
        ] {
            let reply = operator.send(method, path, &headers, b"{}").await;
            assert_eq!((reply.status, reply.headers["www-authenticate"].as_str()), (401, "Bearer"), "{path}");
        }
        let reply = operator.send(method, path, &[JSON, ("authorization", "Bearer secret")], b"{}").await;
        assert_eq!(reply.status, if path == "/nowhere" { 404 } else { 200 }, "{path}: {reply:?}");
    }
    for path in ["/health", "/ready"] {
        assert_eq!(operator.get(path).await.status, 200);
    }
}

#[tokio::test]
async fn other_machines_are_served_only_with_a_token() {
    let options = AdminOptions { host: "0.0.0.0".into(), port: 0, token: None };
    let listener = bind_admin(&options).await.unwrap();
    let refused = serve_admin(listener, control(""), options, std::future::pending()).await;
    assert!(matches!(refused, Err(ServerError::OpenAdmin(_))));
}

#[tokio::test]
async fn bodies_are_bounded_and_routes_are_named() {
    let operator = Operator::start(&engine(), "").await;
    let long = format!("{{\"preset\": \"{}\"}}", "x".repeat(300_000));
    for path in ["/api/v1/config", "/rpc"] {
        assert_eq!(operator.send("POST", path, &[JSON], long.as_bytes()).await.status, 413);
        let declared = [JSON, ("content-length", "100000000")];
        assert_eq!(operator.send("POST", path, &declared, b"{").await.status, 413);
    }
    let missing = operator.get("/api/v1/configuration").await;
    assert_eq!(missing.status, 404);
    assert!(
        missing.json()["error"]["message"].as_str().unwrap().contains("/api/v1/config, /api/v1/stats, /rpc")
    );
    assert_eq!(operator.send("PUT", "/api/v1/config", &[JSON], b"{}").await.status, 405);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(operator.send("POST", "/api/v1/config", &[JSON], deep.as_bytes()).await.status, 400);
}
