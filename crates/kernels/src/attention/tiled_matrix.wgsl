// Attention of many rows with cooperative matrices: as tiled.wgsl, but factors are half floats (queries, keys, weights
// and values), and sums f32.
// A subgroup has 16 of the 64 queries; two of its threads share a query, and each has every second four of the keys.
// The sums of values stay in matrices, whose rows cannot be scaled where they are. So a row's weights are powers of two
// above a reference that follows its largest score only when it falls behind by LAG; then the sums go through workgroup
// memory. Whether a row's reference moves depends on that row alone, and scaling by 1 changes no bit of the others.
// out: f32 [rows, heads, head_dim].
// Launch: (ceil(rows * heads / kv_heads / 64), kv_heads) workgroups of 128, in subgroups of 32.
// Prelude: HEAD_DIM (a multiple of 64).

// One head's part of a strip, as the threads of a subgroup load it.
alias Strip = array<array<vec4<f16>, 32>, LOADS>;
@group(0) @binding(1) var<storage, read> keys: array<Strip>;
@group(0) @binding(2) var<storage, read> values: array<Strip>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

const THREADS: u32 = 128u;
const QUERIES: u32 = 64u;
const KEYS: u32 = 64u;
const LAG: f32 = 8.0;
// Matrices along a head, and along the keys of a block.
const ALONG: u32 = HEAD_DIM / 16u;
const ACROSS: u32 = KEYS / 16u;
// Fours of a head, and of a strip.
const FOURS: u32 = HEAD_DIM / 4u;
const STRIP_FOURS: u32 = STRIP * FOURS;
const LOADS: u32 = STRIP_FOURS / 32u;
// Rows in workgroup memory are this many fours apart: padded, against bank conflicts.
const PITCH: u32 = FOURS + 2u;
const SCORE_PITCH: u32 = KEYS / 4u + 2u;

// In one struct, so that all of it is aligned to 16 bytes: loads of matrices need that, and an array of vec4<f16> alone
// is only aligned to 8.
struct Memory {
    // Scores, [64, SCORE_PITCH]; at times sums, 64 features of each query.
    scores: array<vec4<f32>, QUERIES * SCORE_PITCH>,
    // Queries, [64, PITCH]; keys, [4 strips, HEAD_DIM, 4]; values, [64, PITCH].
    staged: array<vec4<f16>, KEYS * PITCH>,
    // [64, SCORE_PITCH]
    weights: array<vec4<f16>, QUERIES * SCORE_PITCH>,
    any_behind: u32,
}
var<workgroup> memory: Memory;

// The strip of the cache that holds position `begin`, if the run sees any of its keys.
fn seen_strip(seq: u32, begin: u32, first_key: u32, last_key: u32) -> u32 {
    if (begin >= last_key || begin + STRIP <= first_key) { return NOWHERE; }
    return strip_of(seq, begin / STRIP);
}

// Whether a row is left to the split kernels.
fn lone(row: u32) -> bool {
    let seq = row_seq[row];
    if (p.mixed == 0u || seq >= p.seqs) { return false; }
    if (row > 0u && row_seq[row - 1u] == seq) { return false; }
    return row + 1u >= p.rows || row_seq[row + 1u] != seq;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let local = subgroup * 32u + lane;
    // The last rows see the most keys: they start first.
    let tile = grid.x - 1u - wg.x;
    let kv_head = wg.y;
    let group = p.heads / p.kv_heads;

    // The query of this thread and its neighbour.
    let half = lane % 2u;
    let line = subgroup * 16u + lane / 2u;
    let query = tile * QUERIES + line;
    let my_row = query / group;
    let real = my_row < p.rows;
    let my_head = kv_head * group + query % group;
    let position = positions[select(0u, my_row, real)];
    let start = sight_start(position);
    let end = sight_end(position);

    for (var i = local; i < QUERIES * FOURS; i += THREADS) {
        let at = tile * QUERIES + i / FOURS;
        var x = vec4(0.0);
        if (at / group < p.rows) {
            let begin = (at / group * p.heads + kv_head * group + at % group) * HEAD_DIM + i % FOURS * 4u;
            x = vec4(q[begin], q[begin + 1u], q[begin + 2u], q[begin + 3u]) * p.scale;
        }
        memory.staged[i / FOURS * PITCH + i % FOURS] = vec4<f16>(clamp(x, vec4(-65504.0), vec4(65504.0)));
    }
    workgroupBarrier();
    var queries: array<Left, ALONG>;
    for (var i = 0u; i < ALONG; i++) { queries[i] = coopLoadT<Left>(&memory.staged[subgroup * 16u * PITCH + i * 4u], PITCH); }
    var sums: array<Sums, ALONG>;
    for (var i = 0u; i < ALONG; i++) { sums[i] = Sums(); }
    var reference = NO_KEY_YET;
    // Of this thread's keys alone.
    var total = 0.0;
    let mine = subgroup * 16u * SCORE_PITCH;
    let my_scores = line * SCORE_PITCH + half;

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
        let in_run = real && my_row >= row && my_row < next;

        // A subgroup brings one strip of each block: keys while values are at work, and values while scores are made.
        // Where the cache has no such strip, it reads the first one and drops it.
        let first_block = first_key / KEYS * KEYS;
        var strip = seen_strip(seq, first_block + subgroup * STRIP, first_key, last_key);
        var base = select(0u, strip * p.kv_heads + kv_head, strip != NOWHERE);
        var some: array<vec4<f16>, LOADS>;
        if (first_block < last_key) {
            for (var i = 0u; i < LOADS; i++) { some[i] = keys[base][i][lane]; }
        }
        for (var begin = first_block; begin < last_key; begin += KEYS) {
            workgroupBarrier();
            let held = strip != NOWHERE;
            for (var i = 0u; i < LOADS; i++) {
                memory.staged[subgroup * STRIP_FOURS + i * 32u + lane] = select(vec4<f16>(), some[i], held);
            }
            workgroupBarrier();
            for (var j = 0u; j < ACROSS; j++) {
                var sum = Sums();
                for (var i = 0u; i < ALONG; i++) {
                    let right = coopLoadT<Right>(&memory.staged[(j * HEAD_DIM + i * 16u) * 4u], 4u);
                    sum = coopMultiplyAdd(queries[i], right, sum);
                }
                coopStoreT(sum, &memory.scores[mine + j * 4u], SCORE_PITCH);
            }
            for (var i = 0u; i < LOADS; i++) { some[i] = values[base][i][lane]; }
            memory.any_behind = 0u;
            workgroupBarrier();

            var s: array<vec4<f32>, 8>;
            var largest = UNSEEN;
            for (var i = 0u; i < 8u; i++) {
                let at = vec4(begin + (2u * i + half) * 4u) + vec4(0u, 1u, 2u, 3u);
                // Replaced, not added to: what lies in the cache beyond a row's keys may be no number.
                s[i] = select(vec4(UNSEEN), memory.scores[my_scores + 2u * i],
                    at >= vec4(start) & at < vec4(end) & vec4(in_run));
                largest = max(largest, max(max(s[i].x, s[i].y), max(s[i].z, s[i].w)));
            }
            largest = max(largest, subgroupShuffleXor(largest, 1u));
            var shrink = 1.0;
            if (largest > reference + LAG) {
                if (reference != NO_KEY_YET) {
                    shrink = exp2(reference - largest);
                    memory.any_behind = 1u;
                }
                reference = largest;
            }
            total *= shrink;
            if (workgroupUniformLoad(&memory.any_behind) != 0u) {
                // Written out for both halves of a head: in a loop, with an index of its own, the sums would leave the
                // registers.
                for (var i = 0u; i < 4u; i++) { coopStoreT(sums[i], &memory.scores[mine + i * 4u], SCORE_PITCH); }
                workgroupBarrier();
                for (var i = 0u; i < 8u; i++) { memory.scores[my_scores + 2u * i] *= shrink; }
                workgroupBarrier();
                for (var i = 0u; i < 4u; i++) { sums[i] = coopLoadT<Sums>(&memory.scores[mine + i * 4u], SCORE_PITCH); }
                workgroupBarrier();
                if (ALONG > 4u) {
                    for (var i = ALONG - 4u; i < ALONG; i++) {
                        coopStoreT(sums[i], &memory.scores[mine + (i + 4u - ALONG) * 4u], SCORE_PITCH);
                    }
                    workgroupBarrier();
                    for (var i = 0u; i < 8u; i++) { memory.scores[my_scores + 2u * i] *= shrink; }
                    workgroupBarrier();
                    for (var i = ALONG - 4u; i < ALONG; i++) {
                        sums[i] = coopLoadT<Sums>(&memory.scores[mine + (i + 4u - ALONG) * 4u], SCORE_PITCH);
                    }
                }
            }
            for (var i = 0u; i < 8u; i++) {
                let weight = vec4<f16>(exp2(s[i] - reference));
                memory.weights[my_scores + 2u * i] = weight;
                let rounded = vec4<f32>(weight);
                total += (rounded.x + rounded.y) + (rounded.z + rounded.w);
            }
            for (var i = 0u; i < LOADS; i++) {
                let at = subgroup * STRIP + i * 32u / FOURS + lane / FOURS;
                let key = begin + at;
                let seen = held && key >= first_key && key < last_key;
                memory.staged[at * PITCH + lane % FOURS] = select(vec4<f16>(), some[i], seen);
            }
            strip = seen_strip(seq, begin + KEYS + subgroup * STRIP, first_key, last_key);
            base = select(0u, strip * p.kv_heads + kv_head, strip != NOWHERE);
            if (begin + KEYS < last_key) {
                for (var i = 0u; i < LOADS; i++) { some[i] = keys[base][i][lane]; }
            }
            workgroupBarrier();
            for (var j = 0u; j < ACROSS; j++) {
                let left = coopLoadT<Left>(&memory.weights[mine + j * 4u], SCORE_PITCH);
                for (var i = 0u; i < ALONG; i++) {
                    let right = coopLoadT<Right>(&memory.staged[j * 16u * PITCH + i * 4u], PITCH);
                    sums[i] = coopMultiplyAdd(left, right, sums[i]);
                }
            }
        }
        row = next;
    }

    total += subgroupShuffleXor(total, 1u);
    let factor = select(0.0, 1.0 / total, total > 0.0);
    let wanted = real && !lone(select(0u, my_row, real));
    let to = (my_row * p.heads + my_head) * HEAD_DIM + half * 4u;
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) { coopStoreT(sums[i], &memory.scores[mine + i * 4u], SCORE_PITCH); }
    workgroupBarrier();
    if (wanted) {
        for (var i = 0u; i < 8u; i++) {
            // Adding 0 makes -0 the same as 0.
            let x = memory.scores[my_scores + 2u * i] * factor + 0.0;
            for (var j = 0u; j < 4u; j++) { out[to + i * 8u + j] = x[j]; }
        }
    }
    if (ALONG > 4u) {
        workgroupBarrier();
        for (var i = ALONG - 4u; i < ALONG; i++) {
            coopStoreT(sums[i], &memory.scores[mine + (i + 4u - ALONG) * 4u], SCORE_PITCH);
        }
        workgroupBarrier();
        if (wanted) {
            for (var i = 0u; i < 8u; i++) {
                let x = memory.scores[my_scores + 2u * i] * factor + 0.0;
                for (var j = 0u; j < 4u; j++) { out[to + 64u + i * 8u + j] = x[j]; }
            }
        }
    }
}
