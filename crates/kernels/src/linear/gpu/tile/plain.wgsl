// out = x · Wᵀ (+ bias) (+ out) for many rows, in f32: a workgroup has a tile of 64 rows and 64 outputs, a thread 4 × 4
// of it. Steps of 32 inputs go through workgroup memory, where weights are floats already.
// Each sum has one order, inputs ascending: it depends on its own row alone.
// w: packed panels; x: [rows][inp], f32 or int8; out: f32 [rows][out].
// Launch: (tiles of rows, tiles of outputs) workgroups of 256.
// Parts before it give `row4` (four inputs of a row) and `weights4` (four inputs of an output).

@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const STEP: u32 = 32u;
const TN: u32 = 64u;
// Quads of rows or outputs from input to input: padded, against bank conflicts.
const PITCH: u32 = 17u;

// [input][row] and [input][output].
var<workgroup> xs: array<vec4<f32>, STEP * PITCH>;
var<workgroup> ws: array<vec4<f32>, STEP * PITCH>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let expert = find_rows(wg.x, t);
    if (expert == NONE) { return; }
    // Inputs 4 kx .. 4 kx + 3 of rows r and r + 32; inputs 4 kw .. and 4 kw + 16 .. of output o.
    let kx = t % 8u;
    let r = t / 8u;
    let kw = t / 64u;
    let o = t % 64u;
    let row_a = in_rows[r];
    let row_b = in_rows[r + 32u];
    let panel = wg.y * (TN / 16u) + o / 16u;
    let matrix = expert * p.expert_stride + panel * p.panel_stride;
    let there = panel * 16u < p.out;

    var acc: array<vec4<f32>, 4>;
    let steps = (p.inp + STEP - 1u) / STEP;
    for (var step = 0u; step < steps; step++) {
        let k = step * STEP;
        var xa = vec4(0.0);
        var xb = vec4(0.0);
        var wa = vec4(0.0);
        var wb = vec4(0.0);
        if (row_a != NONE) { xa = row4(row_a, k + 4u * kx); }
        if (row_b != NONE) { xb = row4(row_b, k + 4u * kx); }
        if (there) {
            wa = weights4(matrix, k + 4u * kw, o % 16u);
            wb = weights4(matrix, k + 4u * kw + 16u, o % 16u);
        }
        workgroupBarrier();
        for (var j = 0u; j < 4u; j++) {
            xs[(4u * kx + j) * PITCH + r / 4u][r % 4u] = xa[j];
            xs[(4u * kx + j) * PITCH + r / 4u + 8u][r % 4u] = xb[j];
            ws[(4u * kw + j) * PITCH + o / 4u][o % 4u] = wa[j];
            ws[(4u * kw + j + 16u) * PITCH + o / 4u][o % 4u] = wb[j];
        }
        workgroupBarrier();
        for (var i = 0u; i < STEP; i++) {
            let x = xs[i * PITCH + t / 16u];
            let v = ws[i * PITCH + t % 16u];
            acc[0] = fma(vec4(x.x), v, acc[0]);
            acc[1] = fma(vec4(x.y), v, acc[1]);
            acc[2] = fma(vec4(x.z), v, acc[2]);
            acc[3] = fma(vec4(x.w), v, acc[3]);
        }
    }

    for (var i = 0u; i < 4u; i++) {
        let row = out_rows[t / 16u * 4u + i];
        for (var j = 0u; j < 4u; j++) {
            let column = wg.y * TN + t % 16u * 4u + j;
            if (row == NONE || column >= p.out) { continue; }
            var value = acc[i][j];
            if ((p.flags & BIAS) != 0u) { value += bias[expert * p.out + column]; }
            let at = row * p.out + column;
            if ((p.flags & ADD) != 0u) { value = out[at] + value; }
            out[at] = value;
        }
    }
}
