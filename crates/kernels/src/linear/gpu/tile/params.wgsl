// What every kernel of this folder is told.

struct Params {
    inp: u32,
    out: u32,
    // Rows of out: rows, or slots of experts.
    rows: u32,
    // Rows of x.
    input_rows: u32,
    // Words of w (u32) from panel to panel, from matrix to matrix and (quantised) from group to group.
    panel_stride: u32,
    expert_stride: u32,
    group_stride: u32,
    // Inputs of a group, as a power of two.
    group_shift: u32,
    // 0: f32, 1: f16, 2: bf16.
    scale_type: u32,
    // Rows of codes that make a row of x.
    terms: u32,
    flags: u32,
    experts: u32,
    // Slots that read one row of x; 0 when each reads its own.
    top_k: u32,
    // Steps of the sum over the inputs that a workgroup takes, of all that there are.
    steps: u32,
}
var<immediate> p: Params;

// Bits of flags.
const BIAS: u32 = 1u;
const ADD: u32 = 2u;
const EXPERTS: u32 = 4u;
// Sums are of some steps only: they go to memory of their own, without bias and residual.
const PARTIAL: u32 = 8u;
