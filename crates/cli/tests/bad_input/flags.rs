//! Commands that cannot be what was meant.

use crate::document::{Row, Section};
use crate::folder::Folder;
use crate::program;

const LINES: &[&str] = &[
    "genrate Hello",
    "generate Hello --temprature 0.5",
    "generate Hello --temperature 3",
    "generate Hello --temperature warm",
    "generate Hello --top-p 0",
    "generate Hello --min-p 1.5",
    "generate Hello --repetition-penalty 0",
    "generate Hello --presence-penalty -3",
    "generate Hello --logit-bias 42",
    "generate Hello --logit-bias 42=101",
    "generate Hello --logit-bias 99999=1",
    "generate Hello --seed -1",
    "generate Hello --max-tokens 0",
    "generate Hello --device cuda",
    "generate Hello --threads 0",
    "generate Hello --context 1",
    "generate Hello --context 2",
    "generate Hello --kv-memory 8apples",
    "generate Hello --kv-memory 1KiB",
    "generate Hello --max-sequences 1000",
    "generate Hello --max-batch-tokens 0",
    "generate Hello --exact --activations int8",
    "generate Hello --model nonsense",
    "generate Hello --model ./missing",
    "generate Hello --model a/b/c",
    "generate Hello --model org/name --offline",
    "generate Hello --model synth:nothing",
    "generate Hello --model synth:qwen3-0.6b:9bit",
    "serve --port 99999",
    "serve --port",
    "serve --config missing.yaml",
    "serve --preset real-time",
    "serve --admin-host 0.0.0.0",
    "serve --exact --kv-dtype f16",
    "top",
    "top --url localhost:9464",
    "top --interval 5ms",
    "top --once --url http://127.0.0.1:1",
    "soak --duration 30",
    "soak --faults=2",
    "info --model ./missing",
];

/// Runs every line.
pub fn section() -> Section {
    let folder = Folder::plain();
    let rows = LINES.iter().map(|line| {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (status, answer) = program::failure(folder.root(), &arguments);
        Row { input: format!("`bessemer {line}`"), status, answer }
    });
    Section {
        title: "Command lines",
        intro: "As typed in a folder without models:",
        columns: ["input", "exit code", "message"],
        rows: rows.collect(),
    }
}
