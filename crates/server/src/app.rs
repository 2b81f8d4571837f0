//! What all routes share: the engine, the options, and how the model is called.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bessemer_engine::{Engine, EngineInfo};

use crate::openai::error::ApiError;
use crate::options::ServerOptions;

/// The shared state of a server.
pub struct App {
    /// What generates.
    pub engine: Engine,
    /// What the operator decided.
    pub options: ServerOptions,
    /// The name the model is shown by.
    pub model: Arc<str>,
    /// Changes when answers to the same seed may change.
    pub fingerprint: Arc<str>,
    /// Seconds since 1970 at the start.
    pub started: u64,
    draining: AtomicBool,
}

impl App {
    /// The state of a server over `engine`.
    pub fn new(engine: Engine, options: ServerOptions) -> Self {
        let info = engine.info();
        let model = options.model_name.as_deref().unwrap_or(&info.model).into();
        let fingerprint = fingerprint(info).into();
        Self { model, fingerprint, started: now(), draining: AtomicBool::new(false), engine, options }
    }

    /// Checks the name of the model that a request asks for; a request may leave it out.
    pub fn check_model(&self, asked: Option<&str>) -> Result<(), ApiError> {
        match asked {
            Some(asked) if !is_name_of(&self.model, asked) => {
                Err(ApiError::model_not_found(asked, &self.model))
            }
            _ => Ok(()),
        }
    }

    /// Refuses new requests from now on.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether new requests are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// Whether `asked` means the model `served`: its name, the last part of a path or repository, or `default`.
fn is_name_of(served: &str, asked: &str) -> bool {
    let last = served.trim_end_matches('/').rsplit('/').next();
    asked == served || asked == "default" || (!asked.is_empty() && last == Some(asked))
}

/// A digest of the program's version and of everything that decides about the numbers.
fn fingerprint(info: &EngineInfo) -> String {
    let parts = (
        env!("CARGO_PKG_VERSION"),
        (&info.model, &info.architecture, info.parameters, info.weight_bytes),
        (&info.weight_format, &info.activations, &info.kv_type),
        (&info.device, &info.device_features),
    );
    let digest = BuildHasherDefault::<DefaultHasher>::default().hash_one(parts);
    format!("fp_{:010x}", digest & 0xFF_FFFF_FFFF)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_model() {
        for asked in ["Qwen/Qwen3-0.6B", "Qwen3-0.6B", "default"] {
            assert!(is_name_of("Qwen/Qwen3-0.6B", asked), "{asked}");
        }
        for asked in ["", "Qwen", "Qwen3", "gpt-4o", "/Qwen3-0.6B"] {
            assert!(!is_name_of("Qwen/Qwen3-0.6B", asked), "{asked}");
        }
        assert!(is_name_of("/models/story/", "story"));
        assert!(!is_name_of("/", ""));
    }
}
