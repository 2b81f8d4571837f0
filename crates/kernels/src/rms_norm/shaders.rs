//! GPU kernels of this operation, in every variant.

use super::Source;
use held::HELD;

#[path = "held.rs"]
mod held;

pub(crate) fn sources() -> Vec<Source> {
    let common = ["gpu/grid.wgsl", "gpu/sum_256.wgsl"];
    let mut sources =
        vec![Source::new("rms_norm_any", "", &[common[0], common[1], "rms_norm/rms_norm_any.wgsl"])];
    for held in HELD {
        let prelude = format!("const HELD: u32 = {held}u;");
        let to_f32 = [common[0], common[1], "rms_norm/rms_norm_f32.wgsl"];
        let to_int8 = [common[0], common[1], "gpu/int8.wgsl", "rms_norm/rms_norm_int8.wgsl"];
        sources.push(Source::new(format!("rms_norm_f32_{held}"), prelude.clone(), &to_f32));
        sources.push(Source::new(format!("rms_norm_int8_{held}"), prelude, &to_int8));
    }
    sources
}
