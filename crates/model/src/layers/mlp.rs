//! The dense feed-forward layer.

use bessemer_hal::Slice;
use bessemer_kernels::linear::{GateActivation, Gated, Write};
use bessemer_kernels::rms_norm::NormInput;
use bessemer_runtime::Recorder;

use crate::Result;
use crate::layers::linear::{Fused, Linear, produce};
use crate::layers::norm::{NextNorm, Norm};
use crate::loader::Loader;

/// `post_attention_layernorm` and `mlp` of a decoder layer.
pub(crate) struct Mlp {
    norm: Norm,
    gate_up: Fused,
    down: Linear,
    hidden: usize,
    width: usize,
}

impl Mlp {
    /// `prefix` is the decoder layer's.
    pub(crate) fn load(loader: &Loader<'_>, prefix: &str, bias: bool) -> Result<Self> {
        let (hidden, width) = (loader.config.hidden_size, loader.config.intermediate_size);
        let own = format!("{prefix}.mlp");
        Ok(Self {
            norm: Norm::load(loader, &format!("{prefix}.post_attention_layernorm"), hidden)?,
            gate_up: Fused::load(loader, &own, &[("gate_proj", width), ("up_proj", width)], hidden, bias)?,
            down: Linear::load(loader, &format!("{own}.down_proj"), hidden, width, bias)?,
            hidden,
            width,
        })
    }

    /// `x += down(silu(gate(norm(x))) · up(norm(x)))`, and `next` of that.
    pub(crate) fn encode(
        &self,
        recorder: &mut Recorder<'_>,
        x: &Slice,
        rows: usize,
        next: Option<&NextNorm<'_>>,
    ) -> Result<()> {
        let parts = self.gate_up.encode_normed(recorder, &self.norm, x, (rows, self.hidden))?; // [rows, width] each
        let [gate, up] = parts.try_into().unwrap_or_else(|_| unreachable!("two parts were loaded"));
        let gated = produce(recorder, rows, self.width, self.down.input(), |recorder, out| {
            Ok(recorder.record(&Gated {
                gate,
                up,
                out,
                rows,
                dim: self.width,
                activation: GateActivation::Silu,
            })?)
        })?; // [rows, width]
        self.down.encode(recorder, &gated, rows, x, Write::Add)?;
        next.map_or(Ok(()), |next| next.encode(recorder, NormInput::Given(x.clone()), rows))
    }
}
