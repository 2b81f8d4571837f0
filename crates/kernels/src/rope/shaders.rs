//! GPU kernels of this operation, in every variant.

use super::Source;
use held::HELD;

#[path = "held.rs"]
mod held;

pub(crate) fn sources() -> Vec<Source> {
    let mut sources = vec![Source::new("rope_table", "", &["gpu/grid.wgsl", "rope/rope_table.wgsl"])];
    for held in HELD {
        for (kv, enable, narrow) in
            [("f32", "", "gpu/single.wgsl"), ("f16", "enable f16;\n", "gpu/half.wgsl")]
        {
            sources.push(Source::new(
                format!("rope_kv_{kv}_{held}"),
                format!("{enable}alias Kv = {kv};\nconst HELD: u32 = {held}u;"),
                &[
                    "gpu/grid.wgsl",
                    "gpu/tree_64.wgsl",
                    "gpu/sum_64.wgsl",
                    narrow,
                    "rope/pairs.wgsl",
                    "rope/rope_kv.wgsl",
                ],
            ));
        }
    }
    sources
}
