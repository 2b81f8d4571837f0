// Attention of one row over one of many splits of its keys with cooperative matrices: as split.wgsl, for caches of half
// floats.
// A matrix has sixteen rows and a workgroup eight heads at most, so a head has two: a query is a half float and the
// rest of it another, and so is a weight. Their products are added in f32, so nothing is lost against f32 but what 22
// bits leave. Keys and values are half floats anyway.
// A subgroup multiplies queries by the keys of its strips; then it has a head or two for the softmax; then it multiplies
// weights by the values of sixteen features. Values are on their way while scores are made.
// What goes out: the partial results of `out_f32.wgsl`.
// Launch: (splits, kv_heads * workgroups of a key head, slots) workgroups of 2 * HEAD_DIM, in subgroups of 32.
// Prelude: HEAD_DIM (64 or 128).

// One head's part of a strip, as the threads of a subgroup load it.
alias Strip = array<array<vec4<f16>, 32>, LOADS>;
@group(0) @binding(1) var<storage, read> keys: array<Strip>;
@group(0) @binding(2) var<storage, read> values: array<Strip>;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

const HEADS: u32 = 8u;
const THREADS: u32 = 2u * HEAD_DIM;
const SUBGROUPS: u32 = HEAD_DIM / 16u;
const STRIPS: u32 = SPLIT / STRIP;
// Strips, and heads, of a subgroup.
const EACH: u32 = STRIPS / SUBGROUPS;
// Fours of a head, and of a strip.
const FOURS: u32 = HEAD_DIM / 4u;
const STRIP_FOURS: u32 = STRIP * FOURS;
const LOADS: u32 = STRIP_FOURS / 32u;
// Rows in workgroup memory are this many fours apart: padded, against bank conflicts.
const PITCH: u32 = FOURS + 2u;
const WEIGHT_PITCH: u32 = SPLIT / 4u + 2u;
const SCORE_PITCH: u32 = SPLIT / 4u + 1u;

// In one struct, so that all of it is aligned to 16 bytes: loads of matrices need that, and an array of vec4<f16> alone
// is only aligned to 8.
struct Memory {
    // Scores, [16, SCORE_PITCH]; later weighted values.
    scores: array<vec4<f32>, 16u * SCORE_PITCH>,
    // Keys, [strips, HEAD_DIM, 4]; later values, [SPLIT, PITCH].
    staged: array<vec4<f16>, SPLIT * PITCH>,
    // Queries, [16, PITCH]; later weights, [16, WEIGHT_PITCH].
    left: array<vec4<f16>, 16u * WEIGHT_PITCH>,
}
var<workgroup> memory: Memory;

@compute @workgroup_size(2u * HEAD_DIM)
fn main(@builtin(workgroup_id) wg: vec3<u32>,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let row = row_of(p.first + wg.z, subgroup * 32u + lane);
    // The first split is there even for a row that sees nothing. A loop of one turn at most instead of an early return:
    // the compiler wants matrices where all threads go the same way, and sees no further than a function's arguments.
    for (var live = row != NOWHERE; live; live = false) {
        let position = positions[row];
        let begin = (sight_start(position) / SPLIT + wg.x) * SPLIT;
        if (wg.x > 0u && begin >= sight_end(position)) { break; }
        attend(row, position, begin, wg, subgroup, lane);
    }
}

fn attend(row: u32, position: u32, begin: u32, wg: vec3<u32>, subgroup: u32, lane: u32) {
    let local = subgroup * 32u + lane;
    let seq = row_seq[row];
    let end = sight_end(position);
    let start = sight_start(position);
    let group = p.heads / p.kv_heads;
    let shares = (group + p.heads_taken - 1u) / p.heads_taken;
    let kv_head = wg.y / shares;
    let first_head = wg.y % shares * p.heads_taken;
    let head_count = min(p.heads_taken, group - first_head);
    let query_head = kv_head * group + first_head;

    // A thread brings fours of its subgroup's strips. Where the cache has none, it reads the first strip and drops it.
    var base: array<u32, EACH>;
    var held: array<bool, EACH>;
    for (var s = 0u; s < EACH; s++) {
        let strip_begin = begin + (subgroup * EACH + s) * STRIP;
        var strip = NOWHERE;
        if (strip_begin < end && strip_begin + STRIP > start) { strip = strip_of(seq, strip_begin / STRIP); }
        held[s] = strip != NOWHERE;
        base[s] = select(0u, strip * p.kv_heads + kv_head, held[s]);
    }
    var some: array<vec4<f16>, EACH * LOADS>;
    for (var i = 0u; i < EACH * LOADS; i++) { some[i] = keys[base[i / LOADS]][i % LOADS][lane]; }

    let my_head = local / FOURS;
    let my_four = local % FOURS;
    var x = vec4(0.0);
    if (my_head < head_count) {
        let at = (row * p.heads + query_head + my_head) * HEAD_DIM + my_four * 4u;
        x = clamp(vec4(q[at], q[at + 1u], q[at + 2u], q[at + 3u]) * p.scale, vec4(-65504.0), vec4(65504.0));
    }
    let high = vec4<f16>(x);
    memory.left[my_head * PITCH + my_four] = high;
    memory.left[(my_head + HEADS) * PITCH + my_four] = vec4<f16>(x - vec4<f32>(high));
    for (var i = 0u; i < EACH * LOADS; i++) {
        memory.staged[subgroup * EACH * STRIP_FOURS + i * 32u + lane] = select(vec4<f16>(), some[i], held[i / LOADS]);
    }
    workgroupBarrier();
    for (var s = 0u; s < EACH; s++) {
        let strip = subgroup * EACH + s;
        var sum = Sums();
        for (var i = 0u; i < SUBGROUPS; i++) {
            let left = coopLoadT<Left>(&memory.left[i * 4u], PITCH);
            let right = coopLoadT<Right>(&memory.staged[strip * STRIP_FOURS + i * 64u], 4u);
            sum = coopMultiplyAdd(left, right, sum);
        }
        coopStoreT(sum, &memory.scores[strip * 4u], SCORE_PITCH);
    }
    for (var i = 0u; i < EACH * LOADS; i++) { some[i] = values[base[i / LOADS]][i % LOADS][lane]; }
    workgroupBarrier();

    for (var i = 0u; i < EACH * LOADS; i++) {
        let at = subgroup * EACH * STRIP + i * 32u / FOURS + lane / FOURS;
        // What lies in the cache beyond a row's keys may be no number.
        let key = begin + at;
        let seen = held[i / LOADS] && key >= start && key < end;
        memory.staged[at * PITCH + lane % FOURS] = select(vec4<f16>(), some[i], seen);
    }
    for (var s = 0u; s < EACH; s++) {
        let head = subgroup * EACH + s;
        let at = vec4(begin + lane * 4u) + vec4(0u, 1u, 2u, 3u);
        var score = memory.scores[head * SCORE_PITCH + lane] + memory.scores[(head + HEADS) * SCORE_PITCH + lane];
        score = select(vec4(UNSEEN), score, (at >= vec4(start)) & (at < vec4(end)));
        let largest = max(NO_KEY_YET, subgroupMax(max(max(score.x, score.y), max(score.z, score.w))));
        let weight = exp2(score - largest);
        let total = subgroupAdd((weight.x + weight.y) + (weight.z + weight.w));
        let high = vec4<f16>(weight);
        memory.left[head * WEIGHT_PITCH + lane] = high;
        memory.left[(head + HEADS) * WEIGHT_PITCH + lane] = vec4<f16>(weight - vec4<f32>(high));
        if (lane == 0u && head < head_count) {
            put_weights((wg.z * p.heads + query_head + head) * p.splits + wg.x, largest, total);
        }
    }
    workgroupBarrier();
    var sum = Sums();
    for (var i = 0u; i < STRIPS; i++) {
        let left = coopLoadT<Left>(&memory.left[i * 4u], WEIGHT_PITCH);
        let right = coopLoadT<Right>(&memory.staged[i * STRIP * PITCH + subgroup * 4u], PITCH);
        sum = coopMultiplyAdd(left, right, sum);
    }
    coopStoreT(sum, &memory.scores[subgroup * 4u], SCORE_PITCH);
    workgroupBarrier();

    // Eight heads and four fours of features for the threads of a subgroup.
    let head = lane / 4u;
    let four = subgroup * 4u + lane % 4u;
    if (head < head_count) {
        let value = memory.scores[head * SCORE_PITCH + four] + memory.scores[(head + HEADS) * SCORE_PITCH + four];
        put_values((wg.z * p.heads + query_head + head) * p.splits + wg.x, four * 4u, value);
    }
}
