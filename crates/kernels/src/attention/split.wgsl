// Attention of one row over one split of its keys: the first of two launches, or the only one when there is one split.
// Splits start at multiples of SPLIT positions, so that a row's bits do not depend on what else is in the launch.
// What goes out, with one split or several: see `out_f32.wgsl` and `out_int8.wgsl`.
// Launch: (splits, kv_heads * workgroups of a key head, slots) workgroups of 256. A workgroup takes heads_taken query
// heads of one key head, so that keys and values are read once for all of them.
// Where queries come from, and whether the row's own key and value are in the cache: see `given.wgsl` and `turned.wgsl`.
// Prelude: HEADS (2, 4 or 8: heads at most), Heads (a vector of WIDTH of them), CHUNK (64 or 128: features at a time),
// EXACT (CHUNK divides the head), head_dim().

const THREADS: u32 = 256u;
const CELLS: u32 = THREADS;
const SPLIT_STRIPS: u32 = SPLIT / STRIP;
// Threads that share four keys of a score, each with an eighth of the features.
const SLICES: u32 = 8u;
// Fours of a split's keys, and of a chunk's features.
const KEY_FOURS: u32 = SPLIT / 4u;
const FOURS: u32 = CHUNK / 4u;
const KEY_SLICES: u32 = THREADS / FOURS;
// Fours that a thread loads of the keys, and of the values.
const KEY_LOADS: u32 = CHUNK / SLICES;
const VALUE_LOADS: u32 = SPLIT / KEY_SLICES;
// Heads whose sums cross threads at a time: in one round or two. A loop over rounds holds barriers, so compilers keep
// it, and an accumulator whose index depended on it would leave the registers: hence the `select`s.
const ROUND: u32 = min(4u, HEADS);
const ROUNDS: u32 = HEADS / ROUND;
// A slice's sums are this far apart: padded, so that writers and readers meet in no bank.
const PITCH: u32 = KEY_FOURS + 4u;
const PLANE: u32 = SLICES * PITCH;

var<workgroup> strips: array<u32, SPLIT_STRIPS>;
// [CHUNK, HEADS]
var<workgroup> queries: array<Heads, CHUNK * HEADS / WIDTH>;
var<workgroup> sums: array<vec4<f32>, ROUND * PLANE>;
// [SPLIT, HEADS]
var<workgroup> weights: array<Heads, SPLIT * HEADS / WIDTH>;
var<workgroup> lane_maxima: array<vec4<f32>, THREADS / 4u>;
var<workgroup> lane_totals: array<vec4<f32>, THREADS / 4u>;
var<workgroup> maxima: array<f32, HEADS>;
var<workgroup> totals: array<f32, HEADS>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(p.first + wg.z, local);
    if (row == NOWHERE) { return; }
    let position = positions[row];
    let seq = row_seq[row];
    let group = p.heads / p.kv_heads;
    let shares = (group + p.heads_taken - 1u) / p.heads_taken;
    let kv_head = wg.y / shares;
    let first_head = wg.y % shares * p.heads_taken;
    let head_count = min(p.heads_taken, group - first_head);
    let query_head = kv_head * group + first_head;
    let ahead = queries_ahead(kv_head, query_head, head_count, local);

    let end = sight_end(position);
    let start = sight_start(position);
    let begin = (start / SPLIT + wg.x) * SPLIT;
    // The first split is there even for a row that sees nothing.
    if (wg.x > 0u && begin >= end) { return; }

    // Scores: a thread has four keys, and every eighth feature.
    let quarter = local % 4u;
    let slice = local / 4u % SLICES;
    let strip_index = local / 32u;
    let strip_begin = begin + strip_index * STRIP;
    var strip = NOWHERE;
    if (strip_begin < end && strip_begin + STRIP > start) { strip = strip_of(seq, strip_begin / STRIP); }
    let held = strip != NOWHERE;
    if (local % 32u == 0u) { strips[strip_index] = strip; }
    let base = (strip * p.kv_heads + kv_head) * head_dim() * 4u + quarter;
    var own = own_key_of(ahead, position, begin, end, first_head == 0u);
    var acc: array<vec4<f32>, HEADS>;
    for (var h = 0u; h < HEADS; h++) { acc[h] = vec4(0.0); }
    for (var chunk = 0u; chunk < head_dim(); chunk += CHUNK) {
        var raw: array<Raw, KEY_LOADS>;
        for (var i = 0u; i < KEY_LOADS; i++) {
            let d = chunk + i * SLICES + slice;
            raw[i] = key_four(base + 4u * d, held && (EXACT || d < head_dim()));
        }
        queries_half_way(ahead, local);
        workgroupBarrier();
        put_queries(ahead, row, query_head, head_count, chunk, local);
        workgroupBarrier();
        for (var i = 0u; i < KEY_LOADS; i++) {
            let d = i * SLICES + slice;
            let key = widen(raw[i]);
            for (var wide = 0u; wide < HEADS / WIDTH; wide++) {
                let x = queries[d * (HEADS / WIDTH) + wide];
                for (var j = 0u; j < WIDTH; j++) {
                    acc[wide * WIDTH + j] = fma(vec4(x[j]), key, acc[wide * WIDTH + j]);
                }
            }
        }
        see_own_key(&own, kv_head, local);
    }

    // Values: a thread has four features, and every KEY_SLICES-th key. They are on their way while scores are summed.
    let four = local % FOURS;
    let key_slice = local / FOURS;
    var raw: array<Raw, VALUE_LOADS>;
    for (var i = 0u; i < VALUE_LOADS; i++) {
        let key = i * KEY_SLICES + key_slice;
        let value_strip = strips[key / STRIP];
        let seen = value_strip != NOWHERE && begin + key >= start && begin + key < end;
        let value_row = (value_strip * p.kv_heads + kv_head) * STRIP + key % STRIP;
        raw[i] = value_four(value_row, four * 4u, seen);
    }

    // Scores are summed across the slices. Then thirty-two threads have a head, and a thread four of its keys.
    let head = local / KEY_FOURS;
    let key = local % KEY_FOURS * 4u;
    var score = vec4(0.0);
    for (var round = 0u; round < ROUNDS; round++) {
        workgroupBarrier();
        for (var v = 0u; v < ROUND; v++) {
            sums[v * PLANE + slice * PITCH + 4u * strip_index + quarter] =
                select(acc[v], acc[HEADS - ROUND + v], round > 0u);
        }
        workgroupBarrier();
        if (head / ROUND == round) {
            for (var i = 0u; i < SLICES; i++) {
                score += sums[head % ROUND * PLANE + i * PITCH + local % KEY_FOURS];
            }
        }
    }
    score = own_score(score, own, head, key);
    store_own(ahead, own, kv_head, local);
    let at = vec4(begin + key) + vec4(0u, 1u, 2u, 3u);
    // Replaced, not added to: what lies in the cache beyond a row's keys may be no number.
    score = select(vec4(UNSEEN), score, (at >= vec4(start)) & (at < vec4(end)));
    lane_maxima[local / 4u][local % 4u] = max(max(score.x, score.y), max(score.z, score.w));
    workgroupBarrier();
    var most = vec4(NO_KEY_YET);
    for (var i = 0u; i < 8u; i++) { most = max(most, lane_maxima[head * 8u + i]); }
    let largest = max(max(most.x, most.y), max(most.z, most.w));
    let weight = exp2(score - largest);
    lane_totals[local / 4u][local % 4u] = (weight.x + weight.y) + (weight.z + weight.w);
    if (head < HEADS) {
        for (var i = 0u; i < 4u; i++) {
            weights[(key + i) * (HEADS / WIDTH) + head / WIDTH][head % WIDTH] = weight[i];
        }
        if (local % KEY_FOURS == 0u) { maxima[head] = largest; }
    }
    workgroupBarrier();
    if (local < HEADS) {
        var total = vec4(0.0);
        for (var i = 0u; i < 8u; i++) { total += lane_totals[local * 8u + i]; }
        totals[local] = (total.x + total.y) + (total.z + total.w);
    }

    for (var chunk = 0u; chunk < head_dim(); chunk += CHUNK) {
        if (chunk > 0u) {
            for (var i = 0u; i < VALUE_LOADS; i++) {
                let key = i * KEY_SLICES + key_slice;
                let value_strip = strips[key / STRIP];
                let seen = value_strip != NOWHERE && begin + key >= start && begin + key < end;
                let value_row = (value_strip * p.kv_heads + kv_head) * STRIP + key % STRIP;
                raw[i] = value_four(value_row, chunk + four * 4u, seen);
            }
        }
        for (var h = 0u; h < HEADS; h++) { acc[h] = vec4(0.0); }
        for (var i = 0u; i < VALUE_LOADS; i++) {
            let key = i * KEY_SLICES + key_slice;
            let value = widen(own_value(raw[i], ahead, own, key));
            for (var wide = 0u; wide < HEADS / WIDTH; wide++) {
                let x = weights[key * (HEADS / WIDTH) + wide];
                for (var j = 0u; j < WIDTH; j++) {
                    acc[wide * WIDTH + j] = fma(vec4(x[j]), value, acc[wide * WIDTH + j]);
                }
            }
        }
        var sum = vec4(0.0);
        let value_head = local / FOURS;
        for (var round = 0u; round < ROUNDS; round++) {
            workgroupBarrier();
            for (var v = 0u; v < ROUND; v++) {
                sums[v * THREADS + local] = select(acc[v], acc[HEADS - ROUND + v], round > 0u);
            }
            workgroupBarrier();
            if (value_head / ROUND == round) {
                for (var i = 0u; i < KEY_SLICES; i++) {
                    sum += sums[value_head % ROUND * THREADS + i * FOURS + four];
                }
            }
        }
        let d = chunk + four * 4u;
        let live = value_head < head_count && (EXACT || d < head_dim());
        if (!SPLITS_JOIN || p.splits == 1u) {
            let total = totals[min(value_head, HEADS - 1u)];
            put_row(row, query_head + value_head, d, local, live, averaged(sum, total));
        } else if (live) {
            let partial = (wg.z * p.heads + query_head + value_head) * p.splits + wg.x;
            if (d == 0u) { put_weights(partial, maxima[value_head], totals[value_head]); }
            put_values(partial, d, sum);
        }
    }
}
