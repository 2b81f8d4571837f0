//! The shapes that are measured: the matrices and heads of two well-known models.

use super::operations::{Case, Operation, Rows};

/// A dense and a sparse model, weights in 4 bits by groups of 64.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for rows in [1, 8, 2048] {
        let mut add = |model, operation| cases.push(Case { model, rows, operation });
        let linear = |name, out, inp| Operation::Linear { name, out, inp, x: Rows::Int8 };

        let model = "qwen2.5-7b";
        add(model, Operation::RmsNorm { dim: 3584, to: Rows::Int8 });
        add(model, linear("qkv", 4608, 3584));
        add(model, Operation::RopeKv { heads: 28, kv_heads: 4, norms: false });
        for context in contexts(rows) {
            add(model, Operation::Attention { heads: 28, kv_heads: 4, context });
        }
        add(model, linear("o", 3584, 3584));
        add(model, linear("gate_up", 37_888, 3584));
        add(model, Operation::Gated { dim: 18_944 });
        add(model, linear("down", 3584, 18_944));
        if rows <= 8 {
            add(model, linear("lm_head", 152_064, 3584));
            add(model, Operation::Sample { vocab: 152_064 });
        }

        let model = "qwen3-30b-a3b";
        // What a router will see goes through two terms.
        let careful = |name, out, inp| Operation::Linear { name, out, inp, x: Rows::Int8x2 };
        add(model, Operation::RmsNorm { dim: 2048, to: Rows::Int8x2 });
        add(model, careful("qkv", 5120, 2048));
        add(model, Operation::RopeKv { heads: 32, kv_heads: 4, norms: true });
        for context in contexts(rows) {
            add(model, Operation::Attention { heads: 32, kv_heads: 4, context });
        }
        add(model, careful("o", 2048, 4096));
        add(model, Operation::RmsNorm { dim: 2048, to: Rows::F32AndInt8 });
        add(model, Operation::Linear { name: "gate", out: 128, inp: 2048, x: Rows::F32 });
        add(model, Operation::Router { experts: 128, top_k: 8 });
        add(model, Operation::Experts { name: "experts.gate_up", out: 1536, inp: 2048, token: true });
        add(model, Operation::Experts { name: "experts.down", out: 2048, inp: 768, token: false });
        add(model, Operation::CombineNorm { top_k: 8, dim: 2048 });
        if rows <= 8 {
            add(model, Operation::GatedExperts { width: 768, inp: 2048 });
            add(model, Operation::CombinedExperts { out: 2048, inp: 768 });
            add(model, linear("lm_head", 151_936, 2048));
        }
    }
    cases
}

/// Positions that the last row sees.
fn contexts(rows: usize) -> Vec<usize> {
    if rows > 16 { vec![rows] } else { vec![64, 1024, 16_384] }
}
