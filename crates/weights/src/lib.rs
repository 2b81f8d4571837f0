//! Checkpoints: safetensors, quantised formats, where models come from.
