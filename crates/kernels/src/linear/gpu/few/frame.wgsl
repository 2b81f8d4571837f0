// Frame of the products of few rows: parameters and the share of a workgroup.
//
// Weights lie in panels of 16 outputs (see layout.rs). Threads are quads (four outputs each) times entries: 2^kt_shift
// entries share the inputs of one panel.

struct Params {
    // Steps of the sum over the inputs: units of 32 inputs, or single inputs of plain weights.
    steps: u32,
    panels: u32,
    // Elements of w from panel to panel and from matrix to matrix: groups, or quads of plain weights.
    panel_stride: u32,
    expert_stride: u32,
    kt_shift: u32,
    scale_type: u32,
    out: u32,
    // Rows of out, and of x.
    rows: u32,
    input_rows: u32,
    // 1: bias, 2: add, 4: experts, 8: slots in the order of `order`, 16: the gate is GELU, 32: shares sum to one.
    flags: u32,
    experts: u32,
    // Slots that read one row; 0 when each reads its own.
    top_k: u32,
    // Where rows are normalised first: what is added to the mean of their squares, and vectors of four that share a scale.
    eps: f32,
    lanes: u32,
}
var<immediate> p: Params;

@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const FOLD: u32 = 32768u;
