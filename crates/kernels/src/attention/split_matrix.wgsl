// Attention of one row over one split of its keys with cooperative matrices: as split.wgsl, for caches of half floats.
// A matrix has sixteen rows and a workgroup eight heads at most, so a head has two: a query is a half float and the
// rest of it another, and so is a weight. Their products are added in f32, so nothing is lost against f32 but what 22
// bits leave. Keys and values are half floats anyway.
// A split is taken in steps. In each, a subgroup multiplies queries by the keys of its strips; then it has a head or two
// for the softmax; then it multiplies weights by the values of sixteen features. Values are on their way while scores
// are made, and the next step's keys while values are multiplied.
// What goes out: as split.wgsl has it.
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
// Positions of a step, and of a split.
const STEP: u32 = 128u;
const SPLIT: u32 = 2u * STEP;
const STRIPS: u32 = STEP / STRIP;
// Strips of a step, and heads, of a subgroup.
const EACH: u32 = STRIPS / SUBGROUPS;
// Fours of a head, and of a strip.
const FOURS: u32 = HEAD_DIM / 4u;
const STRIP_FOURS: u32 = STRIP * FOURS;
const LOADS: u32 = STRIP_FOURS / 32u;
// Rows in workgroup memory are this many fours apart: padded, against bank conflicts.
const PITCH: u32 = FOURS + 2u;
const WEIGHT_PITCH: u32 = STEP / 4u + 2u;
const SCORE_PITCH: u32 = STEP / 4u + 1u;

// In one struct, so that all of it is aligned to 16 bytes: loads of matrices need that, and an array of vec4<f16> alone
// is only aligned to 8.
struct Memory {
    // Scores, [16, SCORE_PITCH]; later weighted values.
    scores: array<vec4<f32>, 16u * SCORE_PITCH>,
    // Keys, [strips, HEAD_DIM, 4]; later values, [STEP, PITCH].
    staged: array<vec4<f16>, STEP * PITCH>,
    // Queries, [16, PITCH]; later weights, [16, WEIGHT_PITCH].
    left: array<vec4<f16>, 16u * WEIGHT_PITCH>,
    // What a step multiplies the sums of the steps before it by, and the sums of weights so far.
    factors: array<f32, HEADS>,
    totals: array<f32, HEADS>,
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

    // A thread brings fours of its subgroup's strips.
    var bases = bases_of(seq, kv_head, begin + subgroup * EACH * STRIP, start, end);
    var some: array<vec4<f16>, EACH * LOADS>;
    for (var i = 0u; i < EACH * LOADS; i++) { some[i] = keys[present(bases[i / LOADS])][i % LOADS][lane]; }

    let my_head = local / FOURS;
    let my_four = local % FOURS;
    var x = vec4(0.0);
    if (my_head < head_count) {
        let at = (row * p.heads + query_head + my_head) * HEAD_DIM + my_four * 4u;
        x = clamp(vec4(q[at], q[at + 1u], q[at + 2u], q[at + 3u]) * p.scale, vec4(-65504.0), vec4(65504.0));
    }
    let high = vec4<f16>(x);
    let low = vec4<f16>(x - vec4<f32>(high));

    var largest: array<f32, EACH>;
    var totals: array<f32, EACH>;
    for (var s = 0u; s < EACH; s++) {
        largest[s] = NO_KEY_YET;
        totals[s] = 0.0;
    }
    // Eight heads and four fours of features for the threads of a subgroup.
    let head = lane / 4u;
    let four = subgroup * 4u + lane % 4u;
    var sums = vec4(0.0);
    for (var step_begin = begin; step_begin < begin + SPLIT; step_begin += STEP) {
        // The first step is there even for a row that sees nothing.
        if (step_begin > begin && step_begin >= end) { break; }
        for (var i = 0u; i < EACH * LOADS; i++) {
            let held = bases[i / LOADS] != NOWHERE;
            memory.staged[subgroup * EACH * STRIP_FOURS + i * 32u + lane] = select(vec4<f16>(), some[i], held);
        }
        memory.left[my_head * PITCH + my_four] = high;
        memory.left[(my_head + HEADS) * PITCH + my_four] = low;
        workgroupBarrier();
        for (var s = 0u; s < EACH; s++) {
            let strip = subgroup * EACH + s;
            var score = Sums();
            for (var i = 0u; i < SUBGROUPS; i++) {
                let left = coopLoadT<Left>(&memory.left[i * 4u], PITCH);
                let right = coopLoadT<Right>(&memory.staged[strip * STRIP_FOURS + i * 64u], 4u);
                score = coopMultiplyAdd(left, right, score);
            }
            coopStoreT(score, &memory.scores[strip * 4u], SCORE_PITCH);
        }
        for (var i = 0u; i < EACH * LOADS; i++) { some[i] = values[present(bases[i / LOADS])][i % LOADS][lane]; }
        let next = bases_of(seq, kv_head, step_begin + STEP + subgroup * EACH * STRIP, start, end);
        workgroupBarrier();

        for (var i = 0u; i < EACH * LOADS; i++) {
            let at = subgroup * EACH * STRIP + i * 32u / FOURS + lane / FOURS;
            // What lies in the cache beyond a row's keys may be no number.
            let key = step_begin + at;
            let seen = bases[i / LOADS] != NOWHERE && key >= start && key < end;
            memory.staged[at * PITCH + lane % FOURS] = select(vec4<f16>(), some[i], seen);
        }
        bases = next;
        if (step_begin + STEP < min(begin + SPLIT, end)) {
            for (var i = 0u; i < EACH * LOADS; i++) { some[i] = keys[present(bases[i / LOADS])][i % LOADS][lane]; }
        }
        for (var s = 0u; s < EACH; s++) {
            let mine = subgroup * EACH + s;
            let at = vec4(step_begin + lane * 4u) + vec4(0u, 1u, 2u, 3u);
            var score = memory.scores[mine * SCORE_PITCH + lane] + memory.scores[(mine + HEADS) * SCORE_PITCH + lane];
            score = select(vec4(UNSEEN), score, (at >= vec4(start)) & (at < vec4(end)));
            let most = max(largest[s], subgroupMax(max(max(score.x, score.y), max(score.z, score.w))));
            let weight = exp2(score - most);
            let factor = exp2(largest[s] - most);
            let total = subgroupAdd((weight.x + weight.y) + (weight.z + weight.w));
            totals[s] = fma(totals[s], factor, total);
            largest[s] = most;
            let weight_high = vec4<f16>(weight);
            memory.left[mine * WEIGHT_PITCH + lane] = weight_high;
            memory.left[(mine + HEADS) * WEIGHT_PITCH + lane] = vec4<f16>(weight - vec4<f32>(weight_high));
            if (lane == 0u) {
                memory.factors[mine] = factor;
                memory.totals[mine] = totals[s];
            }
        }
        workgroupBarrier();
        var product = Sums();
        for (var i = 0u; i < STRIPS; i++) {
            let left = coopLoadT<Left>(&memory.left[i * 4u], WEIGHT_PITCH);
            let right = coopLoadT<Right>(&memory.staged[i * STRIP * PITCH + subgroup * 4u], PITCH);
            product = coopMultiplyAdd(left, right, product);
        }
        coopStoreT(product, &memory.scores[subgroup * 4u], SCORE_PITCH);
        workgroupBarrier();
        let value = memory.scores[head * SCORE_PITCH + four] + memory.scores[(head + HEADS) * SCORE_PITCH + four];
        sums = fma(sums, vec4(memory.factors[head]), value);
    }

    if (!SPLITS_JOIN || p.splits == 1u) {
        // What the last step left in memory has been read by all before it is written again.
        workgroupBarrier();
        let at = head * FOURS + four;
        put_row(row, query_head + head, four * 4u, at, head < head_count, averaged(sums, memory.totals[head]));
    } else {
        let first_partial = (wg.z * p.heads + query_head) * p.splits + wg.x;
        for (var s = 0u; s < EACH; s++) {
            let mine = subgroup * EACH + s;
            if (lane == 0u && mine < head_count) {
                put_weights(first_partial + mine * p.splits, largest[s], totals[s]);
            }
        }
        if (head < head_count) { put_values(first_partial + head * p.splits, four * 4u, sums); }
    }
}

// Where the cache has one head's part of a subgroup's strips, the first of which begins at position `begin`: NOWHERE
// where it has none, or none that the row sees.
fn bases_of(seq: u32, kv_head: u32, begin: u32, start: u32, end: u32) -> array<u32, EACH> {
    var bases: array<u32, EACH>;
    for (var s = 0u; s < EACH; s++) {
        let strip_begin = begin + s * STRIP;
        var strip = NOWHERE;
        if (strip_begin < end && strip_begin + STRIP > start) { strip = strip_of(seq, strip_begin / STRIP); }
        bases[s] = select(NOWHERE, strip * p.kv_heads + kv_head, strip != NOWHERE);
    }
    return bases;
}

// Where there is nothing, the cache's first strip is read and dropped.
fn present(base: u32) -> u32 { return select(base, 0u, base == NOWHERE); }
