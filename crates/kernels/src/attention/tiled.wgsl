// Attention of many rows: a workgroup takes 64 queries of one key head (a query is a row and one of the heads that
// share the key head) and goes through their keys, 64 at a time. Blocks of keys start at multiples of 64 positions, so
// that a row's bits do not depend on the tile that it is in. Rows of several sequences in one tile take turns.
// out: f32 [rows, heads, head_dim].
// Launch: (ceil(rows * heads / kv_heads / 64), kv_heads) workgroups of 256.
// Prelude: BLOCKS (blocks of 64 features in a head at most), head_dim().

@group(0) @binding(6) var<storage, read_write> out: array<f32>;

const QUERIES: u32 = 64u;
const KEYS: u32 = 64u;
// Features of queries and keys in workgroup memory at a time.
const DEPTH: u32 = 32u;
// vec4 of four queries, padded.
const QUERY_PITCH: u32 = 17u;
const KEY_PITCH: u32 = 16u;
const KEYS_AT: u32 = DEPTH * QUERY_PITCH;
// Values in workgroup memory at a time.
const ROWS: u32 = 32u;

// [DEPTH, queries], then [DEPTH, keys]; later the weights, [keys, queries].
var<workgroup> staged: array<vec4<f32>, KEYS * QUERY_PITCH>;
// [ROWS, 64 features]; before that the largest scores, [16, queries].
var<workgroup> staged_values: array<vec4<f32>, ROWS * 16u>;

struct Query { row: u32, head: u32, real: bool }

fn query(tile: u32, i: u32, kv_head: u32) -> Query {
    let group = p.heads / p.kv_heads;
    let at = tile * QUERIES + i;
    let row = at / group;
    return Query(min(row, p.rows - 1u), kv_head * group + at % group, row < p.rows);
}

// Whether a row is left to the split kernels.
fn lone(row: u32) -> bool {
    let seq = row_seq[row];
    if (p.mixed == 0u || seq >= p.seqs) { return false; }
    if (row > 0u && row_seq[row - 1u] == seq) { return false; }
    return row + 1u >= p.rows || row_seq[row + 1u] != seq;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    // The last rows see the most keys: they start first.
    let tile = grid.x - 1u - wg.x;
    let kv_head = wg.y;
    let group = p.heads / p.kv_heads;
    // A thread has queries 4 * down..4 * down + 4, and a sixteenth of the keys or features.
    let down = local / 16u;
    let across = local % 16u;

    var starts: vec4<u32>;
    var ends: vec4<u32>;
    var rows: vec4<u32>;
    for (var i = 0u; i < 4u; i++) {
        let at = query(tile, down * 4u + i, kv_head);
        rows[i] = select(NOWHERE, at.row, at.real);
        starts[i] = sight_start(positions[at.row]);
        ends[i] = sight_end(positions[at.row]);
    }

    var largest = vec4(NO_KEY_YET);
    // Of this thread's keys alone.
    var totals = vec4(0.0);
    // [block of 64 features][query], four features each
    var sums: array<vec4<f32>, 4u * BLOCKS>;
    for (var i = 0u; i < 4u * BLOCKS; i++) { sums[i] = vec4(0.0); }

    let rows_end = min((tile * QUERIES + QUERIES - 1u) / group + 1u, p.rows);
    var row = tile * QUERIES / group;
    while (row < rows_end) {
        // A run: the rows of one sequence.
        let seq = row_seq[row];
        let skipped = lone(row);
        var next = row;
        var first_key = NOWHERE;
        var last_key = 0u;
        while (next < rows_end) {
            if (row_seq[next] != seq) { break; }
            first_key = min(first_key, sight_start(positions[next]));
            last_key = max(last_key, sight_end(positions[next]));
            next++;
        }
        if (skipped) { last_key = 0u; }
        let mine = rows >= vec4(row) & rows < vec4(next);

        for (var begin = first_key / KEYS * KEYS; begin < last_key; begin += KEYS) {
            var s0 = vec4(0.0);
            var s1 = vec4(0.0);
            var s2 = vec4(0.0);
            var s3 = vec4(0.0);
            // A thread brings fours of two features, for positions begin + 16 * (local / 64) + 4 * (local % 4) on.
            let strip_begin = begin + local / 64u * STRIP;
            var strip = NOWHERE;
            if (strip_begin < last_key && strip_begin + STRIP > first_key) { strip = strip_of(seq, strip_begin / STRIP); }
            let held = strip != NOWHERE;
            let base = (strip * p.kv_heads + kv_head) * head_dim() * 4u + local % 4u;
            for (var chunk = 0u; chunk < head_dim(); chunk += DEPTH) {
                workgroupBarrier();
                for (var i = local / 4u % 16u; i < DEPTH; i += 16u) {
                    let key = key_four(base + 4u * (chunk + i), held && chunk + i < head_dim());
                    staged[KEYS_AT + i * KEY_PITCH + local / 64u * 4u + local % 4u] = widen(key);
                }
                // And features of the queries.
                for (var i = local; i < DEPTH * QUERIES / 4u; i += 256u) {
                    let q_d = i % DEPTH;
                    let four = i / DEPTH;
                    var x = vec4(0.0);
                    for (var j = 0u; j < 4u; j++) {
                        let at = query(tile, four * 4u + j, kv_head);
                        if (chunk + q_d < head_dim()) {
                            x[j] = q[(at.row * p.heads + at.head) * head_dim() + chunk + q_d];
                        }
                    }
                    staged[q_d * QUERY_PITCH + four] = x * p.scale;
                }
                workgroupBarrier();
                for (var i = 0u; i < DEPTH; i++) {
                    let x = staged[i * QUERY_PITCH + down];
                    let key = staged[KEYS_AT + i * KEY_PITCH + across];
                    s0 = fma(vec4(x.x), key, s0);
                    s1 = fma(vec4(x.y), key, s1);
                    s2 = fma(vec4(x.z), key, s2);
                    s3 = fma(vec4(x.w), key, s3);
                }
            }

            // Replaced, not added to: what lies in the cache beyond a row's keys may be no number.
            let at = vec4(begin + across * 4u) + vec4(0u, 1u, 2u, 3u);
            s0 = select(vec4(UNSEEN), s0, at >= vec4(starts.x) & at < vec4(ends.x) & vec4(mine.x));
            s1 = select(vec4(UNSEEN), s1, at >= vec4(starts.y) & at < vec4(ends.y) & vec4(mine.y));
            s2 = select(vec4(UNSEEN), s2, at >= vec4(starts.z) & at < vec4(ends.z) & vec4(mine.z));
            s3 = select(vec4(UNSEEN), s3, at >= vec4(starts.w) & at < vec4(ends.w) & vec4(mine.w));
            let t0 = max(s0.xy, s0.zw);
            let t1 = max(s1.xy, s1.zw);
            let t2 = max(s2.xy, s2.zw);
            let t3 = max(s3.xy, s3.zw);
            staged_values[across * 16u + down] =
                vec4(max(t0.x, t0.y), max(t1.x, t1.y), max(t2.x, t2.y), max(t3.x, t3.y));
            workgroupBarrier();
            let before = largest;
            for (var i = 0u; i < 16u; i++) { largest = max(largest, staged_values[i * 16u + down]); }
            let shrink = exp2(before - largest);
            s0 = exp2(s0 - largest.x);
            s1 = exp2(s1 - largest.y);
            s2 = exp2(s2 - largest.z);
            s3 = exp2(s3 - largest.w);
            let added = vec4(
                (s0.x + s0.y) + (s0.z + s0.w), (s1.x + s1.y) + (s1.z + s1.w),
                (s2.x + s2.y) + (s2.z + s2.w), (s3.x + s3.y) + (s3.z + s3.w),
            );
            totals = fma(totals, shrink, added);
            for (var i = 0u; i < 4u; i++) {
                staged[(across * 4u + i) * QUERY_PITCH + down] = vec4(s0[i], s1[i], s2[i], s3[i]);
            }

            for (var block = 0u; block < BLOCKS; block++) {
                // The loop holds barriers, so compilers keep it, and a sum whose index depended on it would leave the
                // registers: hence this search, and the one behind.
                var now: array<vec4<f32>, 4>;
                for (var other = 0u; other < BLOCKS; other++) {
                    if (other == block) {
                        for (var i = 0u; i < 4u; i++) { now[i] = sums[other * 4u + i] * shrink[i]; }
                    }
                }
                for (var part = 0u; part < KEYS; part += ROWS) {
                    workgroupBarrier();
                    for (var i = local; i < ROWS * 16u; i += 256u) {
                        let key = begin + part + i / 16u;
                        var value_strip = NOWHERE;
                        if (key >= first_key && key < last_key) { value_strip = strip_of(seq, key / STRIP); }
                        let value_row = (value_strip * p.kv_heads + kv_head) * STRIP + key % STRIP;
                        let value = value_four(value_row, block * 64u + i % 16u * 4u, value_strip != NOWHERE);
                        staged_values[i] = widen(value);
                    }
                    workgroupBarrier();
                    for (var i = 0u; i < ROWS; i++) {
                        let weight = staged[(part + i) * QUERY_PITCH + down];
                        let value = staged_values[i * 16u + across];
                        now[0] = fma(vec4(weight.x), value, now[0]);
                        now[1] = fma(vec4(weight.y), value, now[1]);
                        now[2] = fma(vec4(weight.z), value, now[2]);
                        now[3] = fma(vec4(weight.w), value, now[3]);
                    }
                }
                for (var other = 0u; other < BLOCKS; other++) {
                    if (other == block) {
                        for (var i = 0u; i < 4u; i++) { sums[other * 4u + i] = now[i]; }
                    }
                }
            }
        }
        row = next;
    }

    workgroupBarrier();
    staged_values[across * 16u + down] = totals;
    workgroupBarrier();
    var total = vec4(0.0);
    for (var i = 0u; i < 16u; i++) { total += staged_values[i * 16u + down]; }
    let factor = select(vec4(0.0), 1.0 / total, total > vec4(0.0));
    for (var i = 0u; i < 4u; i++) {
        let at = query(tile, down * 4u + i, kv_head);
        if (at.real && !lone(at.row)) {
            for (var block = 0u; block < BLOCKS; block++) {
                // Adding 0 makes -0 the same as 0.
                let x = sums[block * 4u + i] * factor[i] + 0.0;
                let d = block * 64u + across * 4u;
                for (var j = 0u; j < 4u; j++) {
                    if (d + j < head_dim()) { out[(at.row * p.heads + at.head) * head_dim() + d + j] = x[j]; }
                }
            }
        }
    }
}
