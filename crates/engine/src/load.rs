//! From options to a running engine.

use bessemer_weights::{ModelFiles, OpenOptions};

use crate::{Engine, EngineError, EngineOptions, Result};

impl Engine {
    /// Opens, checks and loads a model, and starts the thread that runs it. Blocks until it is ready.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for an option out of range, [`EngineError::Weights`] for files that are not there or
    /// damaged, [`EngineError::Text`] for an unusable tokenizer or chat template, [`EngineError::Model`] for a network
    /// that does not fit its files, [`EngineError::Device`] when memory runs out.
    pub fn load(options: EngineOptions) -> Result<Self> {
        options.validate()?;
        let open = OpenOptions {
            seed: options.synth_seed,
            revision: options.revision.clone(),
            progress: options.progress.clone(),
            ..OpenOptions::default()
        };
        let files = ModelFiles::open(&options.model, &open)?;
        Err(EngineError::Model { name: files.name, reason: "this build has no network".into() })
    }
}
