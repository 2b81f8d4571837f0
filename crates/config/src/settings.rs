//! What a configuration means: typed, checked, and the same for whoever asks.

use std::fmt;

use bessemer_hal::DeviceSelect;
use bessemer_runtime::{Master, Optimizations};

/// Everything that can be set. The names are those of the file, as far as the groups allow.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of the preset.
    pub preset: Option<String>,
    /// Which model.
    pub model: ModelSettings,
    /// How it runs.
    pub engine: EngineSettings,
    /// The server of the public interface.
    pub server: ServerSettings,
    /// The listener for its operator.
    pub admin: AdminSettings,
    /// What it says of itself.
    pub log: LogSettings,
    /// Where traces go.
    pub tracing: TracingSettings,
    /// `metal_optimizations`, as the engine takes it.
    pub optimizations: Optimizations,
    /// Whether `/metrics` tells of the three optimisations.
    pub expose_metrics: bool,
    /// `metal_optimizations.auto_rollback`.
    pub auto_rollback: AutoRollback,
    /// `metal_optimizations.rollout`.
    pub rollout: Rollout,
    /// `metal_acceleration`.
    pub acceleration: Acceleration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            preset: None,
            model: ModelSettings::default(),
            engine: EngineSettings::default(),
            server: ServerSettings::default(),
            admin: AdminSettings::default(),
            log: LogSettings::default(),
            tracing: TracingSettings::default(),
            optimizations: Optimizations::default(),
            expose_metrics: true,
            auto_rollback: AutoRollback::default(),
            rollout: Rollout::default(),
            acceleration: Acceleration::default(),
        }
    }
}

/// A text that must not be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which model, and where it is from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// `default`, a folder, a Hugging Face id, or `synth:SHAPE[:FORMAT]`.
    pub model: String,
    /// Branch, tag or commit of a Hugging Face id.
    pub revision: Option<String>,
    /// Never download.
    pub offline: bool,
    /// Seed of the weights of `synth:` models.
    pub synth_seed: u64,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self { model: "default".to_owned(), revision: None, offline: false, synth_seed: 0 }
    }
}

/// How the model runs.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSettings {
    /// Which device.
    pub device: DeviceSelect,
    /// Check every call on the device.
    pub validation: bool,
    /// Threads of the CPU device; absent: one per core.
    pub threads: Option<u16>,
    /// `auto`, `f32` or `int8`.
    pub activations: String,
    /// `auto`, `f32` or `f16`.
    pub kv_dtype: String,
    /// As the reference computes.
    pub exact: bool,
    /// Tokens of a request at most; absent: the model's.
    pub context: Option<u32>,
    /// Bytes for the KV cache; absent: by the sequences.
    pub kv_memory: Option<u64>,
    /// Sequences that run at once.
    pub max_sequences: u16,
    /// Rows of a step that prompts may fill.
    pub max_batch_tokens: u32,
    /// Whether keys and values of one request serve the next that begins alike.
    pub prefix_cache: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            device: DeviceSelect::Auto,
            validation: false,
            threads: None,
            activations: "auto".to_owned(),
            kv_dtype: "auto".to_owned(),
            exact: false,
            context: None,
            kv_memory: None,
            max_sequences: 16,
            max_batch_tokens: 512,
            prefix_cache: true,
        }
    }
}

/// The server of the public interface.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Key that clients must send.
    pub api_key: Option<Secret>,
    /// Name under which the model is shown.
    pub model_name: Option<String>,
    /// Web origins that may use the server; `*` is all.
    pub cors: Vec<String>,
    /// Requests that may wait.
    pub max_queue: u16,
    /// Seconds that running requests may go on after the signal to end.
    pub drain_timeout: u32,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            api_key: None,
            model_name: None,
            cors: Vec::new(),
            max_queue: 256,
            drain_timeout: 30,
        }
    }
}

/// The listener for the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// Whether it is there.
    pub enabled: bool,
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Token that its clients must send.
    pub token: Option<Secret>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { enabled: true, host: "127.0.0.1".to_owned(), port: 9464, token: None }
    }
}

/// The log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// `text` or `json`.
    pub format: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: "text".to_owned() }
    }
}

/// Traces of requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TracingSettings {
    /// The OpenTelemetry collector that takes them, by OTLP over HTTP.
    pub otlp_endpoint: Option<String>,
}

/// Going back to the plain path by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoRollback {
    /// Whether it may.
    pub enabled: bool,
    /// Share of the plain path's throughput below which it does.
    pub threshold: f64,
}

impl Default for AutoRollback {
    fn default() -> Self {
        Self { enabled: true, threshold: 0.95 }
    }
}

/// Other settings in stages.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Percent of the steps that use the optimisations.
    pub percent: u64,
    /// Percents of a staged rollout.
    pub stages: Vec<u64>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { percent: 100, stages: vec![10, 50, 100] }
    }
}

/// Faster forms of operations.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // The names are a contract with users of the configuration file.
pub struct Acceleration {
    /// The switch above the features.
    pub enabled: Master,
    /// Whether what fails is done in the reference way.
    pub fallback_to_reference: bool,
    /// Whether the reference way is taken in any case.
    pub prefer_reference: bool,
    /// Attention in tiles.
    pub flash_attention: bool,
    /// Rotary embeddings in one pass with their neighbours.
    pub optimized_rope: bool,
    /// An 8-bit KV cache.
    pub kv_quantization: bool,
}

impl Default for Acceleration {
    fn default() -> Self {
        Self {
            enabled: Master::Auto,
            fallback_to_reference: true,
            prefer_reference: false,
            flash_attention: true,
            optimized_rope: true,
            kv_quantization: false,
        }
    }
}
