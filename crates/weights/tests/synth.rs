//! `synth:` models: the loader takes them, they are reproducible, and their weights have the promised size.

use bessemer_weights::{
    DType, Format, LinearWeight, ModelFiles, OpenOptions, Weights, dequantise, synth_shapes,
};
use std::time::Instant;

fn open(name: &str, seed: u64) -> ModelFiles {
    let options = OpenOptions { seed, ..OpenOptions::default() };
    ModelFiles::open(name, &options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn parameter_counts_are_the_published_ones() {
    // In millions, from the model cards and the totals of the published index files.
    let published = [
        ("qwen3-0.6b", 596.0),
        ("qwen3-1.7b", 1720.6),
        ("qwen3-4b", 4022.5),
        ("qwen3-8b", 8190.7),
        ("qwen3-30b-a3b", 30532.1),
        ("qwen2.5-0.5b", 494.0),
        ("qwen2.5-7b", 7615.6),
        ("llama-3.1-8b", 8030.3),
        ("llama-3.2-1b", 1235.8),
        ("mistral-7b", 7248.0),
    ];
    let shapes = synth_shapes();
    for (name, millions) in published {
        let shape = shapes.iter().find(|shape| shape.name == name).unwrap();
        let ours = shape.parameters as f64 / 1e6;
        assert!((ours - millions).abs() < 0.1, "{name}: {ours} instead of {millions}");
    }
    assert_eq!(shapes.len(), published.len() + 1);
    assert!(shapes.iter().any(|shape| shape.name == "qwen3moe-small"));
}

#[test]
fn every_format_has_mean_zero_and_variance_one_over_inputs() {
    for format in ["2", "3", "4", "5", "6", "8", "4g32", "8g128", "mxfp4", "bf16", "f16", "f32"] {
        let files = open(&format!("synth:qwen3-0.6b:{format}"), 1);
        let weights = Weights::new(&files).unwrap();
        for (prefix, out, inp) in
            [("model.layers.3.self_attn.k_proj", 1024, 1024), ("model.layers.27.mlp.down_proj", 1024, 3072)]
        {
            let values = dequantise(&weights.linear(prefix, out, inp).unwrap()).unwrap();
            assert_eq!(values.len(), out * inp);
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
            let relative = square * inp as f64;
            assert!((0.95..1.1).contains(&relative), "{format} {prefix}: variance {relative} / in");
            assert!(mean.abs() < 0.02 * square.sqrt(), "{format} {prefix}: mean {mean}");
        }
        assert!(weights.vector("model.norm.weight", 1024).unwrap().iter().all(|&v| v == 1.0));
    }
}

#[test]
fn experts_are_stacked_and_the_router_keeps_eight_bits() {
    let files = open("synth:qwen3moe-small:mxfp4", 0);
    assert_eq!(files.config["model_type"], "qwen3_moe");
    let weights = Weights::new(&files).unwrap();
    match weights.experts("model.layers.11.mlp.switch_mlp.down_proj", 64, 1024, 384).unwrap() {
        LinearWeight::Quantised {
            format: Format::Mxfp4,
            experts: Some(64),
            codes,
            scales,
            biases: None,
            ..
        } => {
            assert_eq!(codes.shape, [64, 1024, 48]);
            assert_eq!((scales.dtype, &scales.shape[..]), (DType::U8, &[64, 1024, 12][..]));
        }
        other => panic!("{other:?}"),
    }
    match weights.linear("model.layers.0.mlp.gate", 64, 1024).unwrap() {
        LinearWeight::Quantised { format, .. } => assert_eq!(format, Format::Affine { bits: 8, group: 64 }),
        other => panic!("{other:?}"),
    }
    assert!(!weights.contains("lm_head.weight"), "embeddings are tied");
}

#[test]
fn seed_and_name_decide_the_bytes() {
    let name = "model.layers.0.mlp.up_proj.weight";
    let read = |seed| open("synth:llama-3.2-1b", seed).tensors.read(name).unwrap().bytes.into_owned();
    assert_eq!(read(1), read(1));
    assert_ne!(read(1), read(2));
    let files = open("synth:llama-3.2-1b", 1);
    let other = files.tensors.read("model.layers.1.mlp.up_proj.weight").unwrap();
    assert_ne!(other.bytes, read(1));
    assert!(
        files.bytes_on_disk > 600_000_000 && files.bytes_on_disk < 750_000_000,
        "{}",
        files.bytes_on_disk
    );
}

#[test]
fn unknown_shapes_and_formats_are_named() {
    let fail = |name: &str| ModelFiles::open(name, &OpenOptions::default()).unwrap_err().to_string();
    let shape = fail("synth:qwen9");
    assert!(
        shape.contains("qwen9") && shape.contains("qwen3-30b-a3b") && shape.contains("mistral-7b"),
        "{shape}"
    );
    for format in ["7", "4g48", "int4", "", "4g", "g32", "4g32g"] {
        let message = fail(&format!("synth:qwen3-0.6b:{format}"));
        assert!(message.contains(&format!("{format:?}")) && message.contains("4g32"), "{message}");
    }
}

/// Not a bound on speed (machines differ), but a slow generator would make every benchmark wait for it.
#[test]
fn generating_takes_no_longer_than_reading_a_slow_disk() {
    let files = open("synth:qwen3-8b", 0);
    // The fastest of several: what else the machine does meanwhile is not meant.
    let fast = (0..20).any(|layer| {
        let started = Instant::now();
        let tensor = files.tensors.read(&format!("model.layers.{layer}.mlp.up_proj.weight")).unwrap();
        let rate = tensor.bytes.len() as f64 / started.elapsed().as_secs_f64() / 1e9;
        println!("{rate:.2} GB/s");
        rate > 0.05
    });
    assert!(fast);
}
