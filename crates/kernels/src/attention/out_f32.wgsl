// Finished rows go out as f32 [rows, heads, head_dim]; what splits give goes to the partial results, (largest score, sum of
// weights) as f32 [slots, heads, splits, 2] and, from sums_at on, weighted values f32
// [slots, heads, splits, partial_pitch()]. A slot is a row, or a sequence when the launch is mixed.
// A prelude gives OUT, the binding; head_dim(); and EXACT: whether all fours are whole.

const SPLITS_JOIN: bool = true;
@group(0) @binding(OUT) var<storage, read_write> out: array<f32>;

fn put_weights(partial: u32, largest: f32, total: f32) {
    out[2u * partial] = largest;
    out[2u * partial + 1u] = total;
}

fn put_four(to: u32, d: u32, y: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if (EXACT || d + i < head_dim()) { out[to + i] = y[i]; }
    }
}

fn put_values(partial: u32, d: u32, sum: vec4<f32>) {
    put_four(p.sums_at + partial * partial_pitch() + d, d, sum);
}

// The features from d on of one head of a row, of the threads that are `live`. Called by all threads.
fn put_row(row: u32, head: u32, d: u32, at: u32, live: bool, y: vec4<f32>) {
    if (live) { put_four((row * p.heads + head) * head_dim() + d, d, y); }
}
