// out[i] = scale * W[ids[i]], zeros where the id leaves the matrix; W has quantised weights of any kind.
// packed: panels of 16 outputs, each a row of groups: codes, 16 scales, 16 biases (none for e8m0 scales);
// ids: u32 [rows]; out: f32 [rows, inp].
// Codes lie in blocks, a block in one or two bit planes (`low` bits, and `high` above them), a plane in vectors of 16
// words, one an output: byte j of vector v holds input j of chunk f * vectors + v in its field f.
// Launch: `by_rows(ceil(inp / 256), rows)` workgroups of 64; a thread has one chunk, four inputs.

struct Params {
    rows: u32, matrix_rows: u32, outputs: u32, panels: u32,
    cells: u32, // inp / 4
    panel_words: u32,
    group_cells: u32,
    group_words: u32,
    code_words: u32, // of a group
    chunks: u32, // of a block
    low: u32, high: u32,
    scale_type: u32, // 0: f32, 1: f16, 2: bf16, 3: e8m0, and then codes are e2m1
    scale: f32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> packed: array<u32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

// The bits of four codes, a byte each, from the plane of `width` bits at `plane`.
fn field(plane: u32, width: u32, chunk: u32, lane: u32) -> u32 {
    let vectors = p.chunks * width / 8u;
    let word = packed[plane + chunk % vectors * 16u + lane];
    return (word >> (chunk / vectors * width)) & ((0xffu >> (8u - width)) * 0x01010101u);
}

// Number `index` of the scales, or of what lies there, at `words`.
fn scale_at(words: u32, index: u32) -> f32 {
    if (p.scale_type == 0u) { return bitcast<f32>(packed[words + index]); }
    if (p.scale_type == 3u) { return bitcast<f32>(((packed[words + index / 4u] >> (index % 4u * 8u)) & 0xffu) << 23u); }
    let pair = packed[words + index / 2u];
    let odd = index % 2u == 1u;
    if (p.scale_type == 1u) {
        let both = unpack2x16float(pair);
        return select(both.x, both.y, odd);
    }
    return bitcast<f32>(select(pair << 16u, pair & 0xffff0000u, odd));
}

// e2m1 codes as 2 value + 12.
fn shifted_e2m1(codes: vec4<u32>) -> vec4<u32> {
    let magnitude = codes & vec4<u32>(7u);
    let normal = ((magnitude & vec4<u32>(1u)) + 2u) << (max(magnitude >> vec4<u32>(1u), vec4<u32>(1u)) - 1u);
    let twice = select(normal, magnitude, magnitude < vec4<u32>(2u));
    return select(12u + twice, 12u - twice, codes >= vec4<u32>(8u));
}

fn weights(id: u32, cell: u32) -> vec4<f32> {
    let output = id % p.outputs;
    let lane = output % 16u;
    let panel = id / p.outputs * p.panels + output / 16u;
    let group = panel * p.panel_words + cell / p.group_cells * p.group_words;
    let in_group = cell % p.group_cells;
    let chunk = in_group % p.chunks;
    let block = group + in_group / p.chunks * (p.chunks * (p.low + p.high) * 2u);
    var bytes = field(block, p.low, chunk, lane);
    if (p.high > 0u) { bytes |= field(block + p.chunks * p.low * 2u, p.high, chunk, lane) << p.low; }
    let codes = unpack4xU8(bytes);
    let first = scale_at(group + p.code_words, lane);
    if (p.scale_type == 3u) {
        return fma(vec4<f32>(shifted_e2m1(codes)), vec4<f32>(first * 0.5), vec4<f32>(first * -6.0));
    }
    let bias = scale_at(group + p.code_words, 16u + lane);
    return fma(vec4<f32>(codes), vec4<f32>(first), vec4<f32>(bias));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    let cell = group.x * 64u + local;
    if (row >= p.rows || cell >= p.cells) { return; }
    let id = ids[row];
    var value = vec4<f32>(0.0);
    if (id < p.matrix_rows) { value = weights(id, cell); }
    out[row * p.cells + cell] = value * p.scale;
}
