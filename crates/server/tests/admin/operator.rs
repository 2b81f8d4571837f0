//! A listener under test.

use std::ops::Deref;

use bessemer_config::{ConfigFile, Sources};
use bessemer_engine::{Engine, EngineOptions};
use bessemer_server::{AdminOptions, Control, bind_admin, serve_admin};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::client::{Client, Reply};

/// A running listener; it ends with the test.
pub struct Operator {
    pub control: Control,
    client: Client,
    _stop: oneshot::Sender<()>,
}

impl Deref for Operator {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A configuration file.
pub fn file(text: &str) -> ConfigFile {
    ConfigFile { path: "runtime.yaml".into(), text: text.to_owned() }
}

/// The state of a server whose model is being loaded.
pub fn control(text: &str) -> Control {
    let sources = Sources { file: Some(file(text)), ..Sources::default() };
    Control::new(sources.resolve().unwrap()).unwrap()
}

impl Operator {
    /// For an engine, which goes by the configuration.
    pub async fn start(engine: &Engine, text: &str) -> Self {
        let operator = Self::loading(text, None).await;
        let optimizations = operator.control.configuration().settings().optimizations.clone();
        engine.update_optimizations(optimizations).unwrap();
        operator.control.loaded(engine.clone());
        operator
    }

    /// While the model is being loaded.
    pub async fn loading(text: &str, token: Option<&str>) -> Self {
        let control = control(text);
        let options = AdminOptions { host: "127.0.0.1".into(), port: 0, token: token.map(str::to_owned) };
        let listener = bind_admin(&options).await.unwrap();
        let client = Client(listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        tokio::spawn(serve_admin(listener, control.clone(), options, stopped));
        Self { control, client, _stop: stop }
    }

    /// Changes settings.
    pub async fn patch(&self, patch: &Value) -> Reply {
        self.post("/api/v1/config", patch).await
    }

    /// Calls a method; the whole answer.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        let call = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        self.post("/rpc", &call).await.ok()
    }

    /// The settings of the optimisations that the engine says are in force.
    pub async fn in_force(&self) -> Value {
        self.get("/api/v1/stats").await.ok()["metal_optimizations"]["settings"].take()
    }
}

/// An engine of a test's own: nobody else may see its settings change.
pub fn engine() -> Engine {
    Engine::load(EngineOptions::default()).unwrap()
}
