// Heads of queries and keys: RMS norm (perhaps), rotation of the first `rot` columns. Queries go out as f32; keys and
// values to the KV cache.
// q, k, v: f32 views of [rows, heads or kv_heads, head_dim]; q_norm, k_norm: f32 [head_dim]; table: f32 [rows, rot],
// cosines, then sines; slots: u32 [rows], the cache's row that a row goes to, or none;
// q_out: f32 [rows, heads, head_dim]; keys: [strips, kv_heads, head_dim, 16]; values: [strips, kv_heads, 16, head_dim].
// head_dim at most 64 HELD.
// Launch: a workgroup of 64 for each head of a row, `by_rows(heads + 2 kv_heads, rows)`: first those of q, then of k,
// then of v. A thread has every 64th column.

const THREADS: u32 = 64u;
struct View { stride: u32, offset: u32 }
struct Params {
    q: View, k: View, v: View,
    rows: u32, heads: u32, kv_heads: u32, head_dim: u32, rot: u32, cache_rows: u32,
    interleaved: u32,
    norms: u32, // bit 0: there is a q_norm; bit 1: a k_norm
    eps: f32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> q_norm: array<f32>;
@group(0) @binding(4) var<storage, read> k_norm: array<f32>;
@group(0) @binding(5) var<storage, read> table: array<f32>;
@group(0) @binding(6) var<storage, read> slots: array<u32>;
@group(0) @binding(7) var<storage, read_write> q_out: array<f32>;
@group(0) @binding(8) var<storage, read_write> keys: array<Kv>;
@group(0) @binding(9) var<storage, read_write> values: array<Kv>;

var<workgroup> columns: array<f32, HELD * THREADS>;

// First element of a head in the cache's strips, and its slot's place in the strip.
struct Place { head: u32, in_strip: u32 }
fn place_of(slot: u32, head: u32) -> Place {
    return Place((slot / 16u * p.kv_heads + head) * p.head_dim * 16u, slot % 16u);
}

fn store_value(row: u32, head: u32, slot: u32, local: u32) {
    if (slot >= p.cache_rows) { return; }
    let start = row * p.v.stride + p.v.offset + head * p.head_dim;
    let place = place_of(slot, head);
    let to = place.head + place.in_strip * p.head_dim;
    for (var i = 0u; i < HELD; i++) {
        let col = i * THREADS + local;
        if (col < p.head_dim) { values[to + col] = narrow(v[start + col]); }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    if (row >= p.rows) { return; }
    let slot = slots[row];
    let is_query = group.x < p.heads;
    if (group.x >= p.heads + p.kv_heads) {
        store_value(row, group.x - p.heads - p.kv_heads, slot, local);
        return;
    }
    let head = select(group.x - p.heads, group.x, is_query);
    let normed = (p.norms & select(2u, 1u, is_query)) != 0u;

    // All loads first; what lies beyond the head reads its last column.
    var x: array<f32, HELD>;
    var weight: array<f32, HELD>;
    var cosine: array<f32, HELD>;
    var sine: array<f32, HELD>;
    for (var i = 0u; i < HELD; i++) {
        let col = min(i * THREADS + local, p.head_dim - 1u);
        weight[i] = 1.0;
        if (is_query) {
            x[i] = q[row * p.q.stride + p.q.offset + head * p.head_dim + col];
            if (normed) { weight[i] = q_norm[col]; }
        } else {
            x[i] = k[row * p.k.stride + p.k.offset + head * p.head_dim + col];
            if (normed) { weight[i] = k_norm[col]; }
        }
        cosine[i] = 1.0;
        sine[i] = 0.0;
        if (col < p.rot) {
            let pair = row * p.rot + pair_of(col, p.rot, p.interleaved);
            cosine[i] = table[pair];
            sine[i] = table[pair + p.rot / 2u];
        }
    }
    var squares = 0.0;
    for (var i = 0u; i < HELD; i++) {
        let col = i * THREADS + local;
        if (col < p.head_dim) { squares = fma(x[i], x[i], squares); }
        x[i] *= weight[i];
        columns[col] = x[i];
    }
    let sum = workgroup_sum(local, squares);
    var scale = 1.0;
    if (normed) { scale = inverseSqrt(sum / f32(p.head_dim) + p.eps); }

    let place = place_of(slot, head);
    for (var i = 0u; i < HELD; i++) {
        let col = i * THREADS + local;
        if (col >= p.head_dim) { continue; }
        var y = x[i] * scale;
        if (col < p.rot) {
            let other = columns[other_of(col, p.rot, p.interleaved)] * scale;
            y = turned(y, other, is_first(col, p.rot, p.interleaved), cosine[i], sine[i]);
        }
        if (is_query) {
            q_out[(row * p.heads + head) * p.head_dim + col] = y;
        } else if (slot < p.cache_rows) {
            keys[place.head + col * 16u + place.in_strip] = narrow(y);
        }
    }
}
