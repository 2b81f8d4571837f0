//! What the routes tell of the running server, each in its own form.

use std::sync::Arc;

use bessemer_engine::{
    Engine, EngineStats, OptimizationStats, OptimizationTimes, Optimizations, ServingStatistics,
};
use serde_json::{Value, json};

use crate::ServerMeter;
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
    /// What the public server has answered.
    pub meter: Arc<ServerMeter>,
    /// Absent while loading.
    pub engine: Option<EngineStats>,
    /// Absent while loading.
    pub optimizations: Option<OptimizationStats>,
    /// Absent while loading.
    pub optimization_times: Option<OptimizationTimes>,
    /// The name that the model is shown by, and what its requests went through; absent while loading.
    pub serving: Option<(String, ServingStatistics)>,
    /// The settings that the engine says are in force; absent while loading.
    in_force: Option<Optimizations>,
}

impl Snapshot {
    /// As it is now.
    pub fn take(control: &Control) -> Self {
        let phase = control.phase();
        let engine = phase.engine();
        Self {
            status: status(&phase),
            uptime_seconds: control.uptime_seconds(),
            expose_metrics: control.configuration().settings().expose_metrics,
            meter: control.meter().clone(),
            engine: engine.map(Engine::stats),
            optimizations: engine.and_then(Engine::optimization_stats),
            optimization_times: engine.and_then(Engine::optimization_times),
            serving: engine.map(|engine| (model_name(control, engine), engine.serving())),
            in_force: engine.and_then(Engine::optimizations),
        }
    }

    /// The statistics of the optimisations with the settings in force, spelled as the configuration does; `null` while
    /// loading.
    pub fn metal_stats(&self, control: &Control) -> Value {
        let Some(stats) = &self.optimizations else { return Value::Null };
        let mut document = serde_json::to_value(stats).unwrap_or_default();
        if let Some(optimizations) = &self.in_force {
            let settings = &mut control.configuration().json_with(optimizations.clone());
            document["settings"] = settings["metal_optimizations"].take();
        }
        document
    }
}

/// The name that the model is shown by.
fn model_name(control: &Control, engine: &Engine) -> String {
    let configuration = control.configuration();
    configuration.settings().server.model_name.as_ref().unwrap_or(&engine.info().model).clone()
}

/// How far the server is, or that its device is lost.
fn status(phase: &Phase) -> &'static str {
    let lost = phase.engine().is_some_and(|engine| engine.health().is_err());
    match phase {
        _ if lost => "device_lost",
        Phase::Loading => "loading",
        Phase::Running(_) => "running",
        Phase::Draining(_) => "draining",
    }
}

/// What the program, the model and the device are.
pub fn info(control: &Control) -> Value {
    let phase = control.phase();
    let model = phase.engine().map(|engine| serde_json::to_value(engine.info()).unwrap_or_default());
    json!({
        "name": "bessemer",
        "version": env!("CARGO_PKG_VERSION"),
        "status": status(&phase),
        "uptime_seconds": control.uptime_seconds(),
        "methods": super::rpc::METHODS,
        "model": model,
    })
}
