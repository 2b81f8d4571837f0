// out[i] = scale * W[ids[i]], zeros where the id leaves the matrix; W has plain weights.
// packed: panels of 16 outputs, each [inp, 16]; ids: u32 [rows]; out: f32 [rows, inp].
// Launch: `by_rows(ceil(inp / 256), rows)` workgroups of 256; a thread has one column.

struct Params { rows: u32, matrix_rows: u32, outputs: u32, panels: u32, inp: u32, encoding: u32, scale: f32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> packed: array<u32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn weight(element: u32) -> f32 {
    if (p.encoding == 0u) { return bitcast<f32>(packed[element]); }
    let pair = packed[element / 2u];
    let odd = element % 2u == 1u;
    if (p.encoding == 1u) {
        let both = unpack2x16float(pair);
        return select(both.x, both.y, odd);
    }
    return bitcast<f32>(select(pair << 16u, pair & 0xffff0000u, odd));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    let col = group.x * 256u + local;
    if (row >= p.rows || col >= p.inp) { return; }
    let id = ids[row];
    var value = 0.0;
    if (id < p.matrix_rows) {
        let output = id % p.outputs;
        let panel = id / p.outputs * p.panels + output / 16u;
        value = weight((panel * p.inp + col) * 16u + output % 16u);
    }
    out[row * p.inp + col] = value * p.scale;
}
