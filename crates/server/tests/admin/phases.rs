//! What is told while the model is loaded, while it runs, at the end, and once the device is lost.

use bessemer_engine::{Engine, EngineOptions};
use bessemer_hal::cpu::{CpuDevice, CpuOptions};
use bessemer_hal::fault::FaultDevice;
use serde_json::{Value, json};

use crate::client::Server;
use crate::operator::{Operator, engine};

async fn states(operator: &Operator) -> [(u16, String); 2] {
    let mut states = Vec::new();
    for path in ["/health", "/ready"] {
        let reply = operator.get(path).await;
        let body = reply.json();
        let word = body["status"].as_str().or(body["error"]["code"].as_str()).unwrap().to_owned();
        states.push((reply.status, word));
    }
    states.try_into().unwrap()
}

fn pair(health: (u16, &str), ready: (u16, &str)) -> [(u16, String); 2] {
    [health, ready].map(|(status, word)| (status, word.to_owned()))
}

#[tokio::test]
async fn a_server_is_alive_before_it_is_ready() {
    let operator = Operator::loading("", None).await;
    assert_eq!(states(&operator).await, pair((200, "loading"), (503, "loading")));
    let refused = operator.patch(&json!({"metal_optimizations": {"enabled": false}})).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("loading")));
    assert_eq!(operator.get("/api/v1/config").await.ok()["config"]["metal_optimizations"]["enabled"], "auto");
    let stats = operator.get("/api/v1/stats").await.ok();
    assert_eq!((&stats["status"], &stats["engine"]), (&json!("loading"), &Value::Null));
    assert!(operator.get("/metrics").await.body.contains("bessemer_status{status=\"loading\"} 1\n"));
    let answer = operator.call("runtime.get_metal_stats", json!({})).await;
    assert_eq!(answer["error"]["code"], -32_000, "{answer}");
    assert_eq!(operator.call("runtime/info", json!({})).await["result"]["status"], "loading");

    operator.control.loaded(engine());
    assert_eq!(states(&operator).await, pair((200, "ok"), (200, "ready")));
    operator.patch(&json!({"metal_optimizations": {"enabled": false}})).await.ok();

    operator.control.start_draining();
    assert_eq!(states(&operator).await, pair((200, "draining"), (503, "shutting_down")));
    assert_eq!(operator.get("/api/v1/stats").await.ok()["status"], "draining");
    operator.patch(&json!({"metal_optimizations": {"enabled": true}})).await.ok();
}

#[tokio::test]
async fn a_lost_device_is_told_and_nothing_changes_any_more() {
    let device = FaultDevice::new(CpuDevice::new(&CpuOptions::default()));
    let engine = Engine::load_on(device.clone(), EngineOptions::default()).unwrap();
    let operator = Operator::start(&engine, "").await;
    let server = Server::with(engine, Default::default()).await;
    device.lose("as ordered by the test");
    let request = json!({"prompt": "Once", "max_tokens": 4});
    assert_eq!(server.post("/v1/completions", &request).await.status, 503);
    assert_eq!(states(&operator).await, pair((503, "device_lost"), (503, "device_lost")));
    let before = operator.get("/api/v1/config").await.ok();
    let refused = operator.patch(&json!({"metal_optimizations": {"enabled": false}})).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("device_lost")));
    assert_eq!(operator.get("/api/v1/config").await.ok(), before);
    assert!(operator.get("/metrics").await.body.contains("bessemer_status{status=\"device_lost\"} 1\n"));
}
