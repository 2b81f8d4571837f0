// Adds up what the splits of a product's steps came to, with bias and residual; splits ascending.
// parts: f32 [splits][rows][out]; out: f32 [rows][out]. Rows of experts that no expert lists keep what they have.
// Launch: ceil(out / 256) workgroups of 256 for each row, along y and z (by_rows).

struct Params { rows: u32, out: u32, splits: u32, flags: u32, experts: u32, unused: u32 }
var<immediate> p: Params;

const BIAS: u32 = 1u;
const ADD: u32 = 2u;
const EXPERTS: u32 = 4u;

@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = row_of(wg);
    let output = wg.x * 256u + t;
    if (row >= p.rows || output >= p.out) { return; }
    var expert = 0u;
    if ((p.flags & EXPERTS) != 0u) { expert = ids[row]; }
    if (expert >= p.experts) { return; }
    let at = row * p.out + output;
    var value = parts[at];
    for (var split = 1u; split < p.splits; split++) { value += parts[split * p.rows * p.out + at]; }
    if ((p.flags & BIAS) != 0u) { value += bias[expert * p.out + output]; }
    if ((p.flags & ADD) != 0u) { value = out[at] + value; }
    out[at] = value;
}
