//! What the routes tell of the running server, each in its own form.

use bessemer_engine::{Engine, EngineStats, OptimizationStats};
use serde_json::{Value, json};

use crate::control::{Control, Phase};

/// Everything that is counted, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `loading`, `running`, `draining` or `device_lost`.
    pub status: &'static str,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Whether the optimisations are to be told of in metrics.
    pub expose_metrics: bool,
    /// Absent while loading.
    pub engine: Option<EngineStats>,
    /// Absent while loading.
    pub optimizations: Option<OptimizationStats>,
}

impl Snapshot {
    /// As it is now.
    pub fn take(control: &Control) -> Self {
        let (status, engine) = match control.phase() {
            Phase::Loading => ("loading", None),
            Phase::Running(engine) => ("running", Some(engine)),
            Phase::Draining(engine) => ("draining", Some(engine)),
        };
        let lost = engine.as_ref().is_some_and(|engine| engine.health().is_err());
        Self {
            status: if lost { "device_lost" } else { status },
            uptime_seconds: control.uptime_seconds(),
            expose_metrics: control.configuration().settings().expose_metrics,
            engine: engine.as_ref().map(Engine::stats),
            optimizations: engine.as_ref().and_then(Engine::optimization_stats),
        }
    }
}

/// The statistics of the optimisations, with the settings that the engine says are in force.
pub fn metal_stats(control: &Control) -> Value {
    let engine = match control.phase() {
        Phase::Loading => return Value::Null,
        Phase::Running(engine) | Phase::Draining(engine) => engine,
    };
    let Some(stats) = engine.optimization_stats() else { return Value::Null };
    let mut document = serde_json::to_value(stats).unwrap_or_default();
    if let Some(optimizations) = engine.optimizations() {
        document["settings"] = control.configuration().json_with(optimizations)["metal_optimizations"].take();
    }
    document
}

/// What the program, the model and the device are.
pub fn info(control: &Control) -> Value {
    let (status, engine) = (Snapshot::take(control).status, control.phase());
    let model = match engine {
        Phase::Loading => Value::Null,
        Phase::Running(engine) | Phase::Draining(engine) => {
            serde_json::to_value(engine.info()).unwrap_or_default()
        }
    };
    json!({
        "name": "bessemer",
        "version": env!("CARGO_PKG_VERSION"),
        "status": status,
        "uptime_seconds": control.uptime_seconds(),
        "methods": super::rpc::METHODS,
        "model": model,
    })
}
