//! `config.json`: a configuration is refused, or its numbers hold together.
#![no_main]

use bessemer_model::ModelConfig;
use bessemer_weights::Quantisation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = serde_json::from_slice(bytes) else { return };
    if let Ok(quantisation) = Quantisation::from_config(&config)
        && let Some(format) = quantisation.format("model.layers.0.self_attn.q_proj")
    {
        assert!(format.group() % 32 == 0 && (1..=8).contains(&format.bits()));
    }
    let Ok(config) = ModelConfig::from_hf(&config) else { return };
    assert!(config.layers > 0 && config.vocab_size > 0 && config.hidden_size > 0 && config.context > 0);
    assert!(config.heads % config.kv_heads == 0 && config.head_dim % 8 == 0);
    assert!(config.rope.rotated <= config.head_dim && config.rope.rotated % 2 == 0);
    assert!(config.norm_eps.is_normal() && config.rope.theta.is_finite());
    assert_eq!(config.windows.len(), config.layers);
    assert!(config.kv_bytes_per_token(4) >= 8);
    if let Some(moe) = &config.moe {
        assert!(moe.top_k > 0 && moe.top_k <= moe.experts && moe.sparse.len() == config.layers);
    }
});
