// Finished rows go out as int8, in one term or two (p.terms): what `quantise.wgsl` makes of f32 rows.
// codes: i8 [terms rows, heads, head_dim]; scales: f32 and sums: i32 [terms rows, heads * head_dim / group]. Row r becomes
// rows terms r and terms r + 1. The group divides head_dim. There is one split: its sums are the row's.
// A prelude gives OUT, the first of three bindings.

const SPLITS_JOIN: bool = false;
@group(0) @binding(OUT) var<storage, read_write> codes_out: array<u32>;
@group(0) @binding(OUT + 1u) var<storage, read_write> scales_out: array<u32>; // bits of f32
@group(0) @binding(OUT + 2u) var<storage, read_write> sums_out: array<i32>;

fn put_weights(partial: u32, largest: f32, total: f32) {}
fn put_values(partial: u32, d: u32, sum: vec4<f32>) {}

// The features from d on of one head of a row, of the threads that are `live`; `at` counts fours of the workgroup, so that
// those of a group are neighbours. Called by all threads.
fn put_row(row: u32, head: u32, d: u32, at: u32, live: bool, y: vec4<f32>) {
    let row_cells = p.heads * p.head_dim / 4u;
    let cell = (head * p.head_dim + d) / 4u;
    var rest = select(vec4(0.0), y, live);
    for (var term = 0u; term < p.terms; term++) {
        put_peak(at, rest);
        workgroupBarrier();
        let peak = peak_of(at, p.lanes);
        let codes = codes_of(rest, peak);
        put_total(at, codes.word);
        workgroupBarrier();
        if (live) {
            let to = (row * p.terms + term) * row_cells + cell;
            codes_out[to] = codes.word;
            if (cell % p.lanes == 0u) {
                scales_out[to / p.lanes] = scale_of(peak);
                sums_out[to / p.lanes] = total_of(at, p.lanes);
            }
        }
        rest -= bitcast<f32>(scale_of(peak)) * codes.values;
    }
}
