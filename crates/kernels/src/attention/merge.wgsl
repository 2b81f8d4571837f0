// The second of two launches: one row and head from the partial results of its splits.
// partials: see `out_f32.wgsl`; what goes out, see there or `out_int8.wgsl`.
// Launch: (heads, slots) workgroups of 256: eight groups of 32 threads take every eighth split each.

@group(0) @binding(0) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> row_seq: array<u32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;

const THREADS: u32 = 256u;
const SLICES: u32 = 8u;
// Splits that a thread asks for at a time.
const AHEAD: u32 = 8u;

var<workgroup> lane_maxima: array<vec4<f32>, THREADS / 4u>;
var<workgroup> maxima: array<vec4<f32>, 2>;
var<workgroup> totals: array<f32, SLICES>;
var<workgroup> sums: array<vec4<f32>, THREADS>;

// The largest score of a split, and its sum of weights.
fn part(at: u32) -> vec2<f32> {
    let two = partials[at / 2u];
    return select(two.xy, two.zw, at % 2u == 1u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(p.first + wg.y, local);
    if (row == NOWHERE) { return; }
    let first = (wg.y * p.heads + wg.x) * p.splits;

    let slice = local / 32u;
    let lane = local % 32u;
    // The first loads need not wait for the row's position: what is beyond its splits is read in vain.
    var parts: array<vec2<f32>, AHEAD>;
    var values: array<vec4<f32>, AHEAD>;
    let own = part(first + min(local, p.splits - 1u)).x;
    for (var i = 0u; i < AHEAD; i++) {
        let split = slice + i * SLICES;
        let at = first + select(0u, split, split < p.splits);
        parts[i] = part(at);
        values[i] = partials[(p.sums_at + at * partial_pitch() + select(0u, lane * 4u, lane * 4u < p.head_dim)) / 4u];
    }

    let position = positions[row];
    let end = sight_end(position);
    let start = sight_start(position);
    let count = max((end + SPLIT - 1u) / SPLIT, start / SPLIT + 1u) - start / SPLIT;

    // The largest score of all splits.
    var most = select(NO_KEY_YET, own, local < count);
    for (var split = local + THREADS; split < count; split += THREADS) { most = max(most, part(first + split).x); }
    lane_maxima[local / 4u][local % 4u] = most;
    workgroupBarrier();
    if (local < SLICES) {
        var more = vec4(NO_KEY_YET);
        for (var i = 0u; i < 8u; i++) { more = max(more, lane_maxima[local * 8u + i]); }
        maxima[local / 4u][local % 4u] = max(max(more.x, more.y), max(more.z, more.w));
    }
    workgroupBarrier();
    let two = max(maxima[0], maxima[1]);
    let largest = max(max(two.x, two.y), max(two.z, two.w));

    for (var chunk = 0u; chunk < p.head_dim; chunk += 128u) {
        // A thread has four features.
        let d = chunk + lane * 4u;
        var total = 0.0;
        var sum = vec4(0.0);
        for (var split = slice; split < count; split += SLICES * AHEAD) {
            if (chunk > 0u || split > slice) {
                for (var i = 0u; i < AHEAD; i++) {
                    let at = first + select(0u, split + i * SLICES, split + i * SLICES < count);
                    parts[i] = part(at);
                    values[i] = partials[(p.sums_at + at * partial_pitch() + select(0u, d, d < p.head_dim)) / 4u];
                }
            }
            for (var i = 0u; i < AHEAD; i++) {
                // What is beyond the row's splits was not written, and may be no number.
                if (split + i * SLICES < count) {
                    let factor = exp2(parts[i].x - largest);
                    total = fma(parts[i].y, factor, total);
                    sum = fma(values[i], vec4(factor), sum);
                }
            }
        }
        workgroupBarrier();
        if (lane == 0u) { totals[slice] = total; }
        sums[local] = sum;
        workgroupBarrier();
        let mine = local < 32u;
        if (mine) {
            total = 0.0;
            sum = vec4(0.0);
            for (var i = 0u; i < SLICES; i++) {
                total += totals[i];
                sum += sums[i * 32u + local];
            }
        }
        put_row(row, wg.x, d, local, mine && d < p.head_dim, averaged(sum, total));
    }
}
