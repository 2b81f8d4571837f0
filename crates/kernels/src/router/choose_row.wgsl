// The top_k experts of a row by softmax score, best first; of equals, the lower id. A logit that is not a number counts as
// −∞. By a workgroup of THREADS; experts ≤ CAPACITY, a multiple of THREADS.
// logits: f32 [rows, experts]. A prelude gives LOGITS, their binding; others give `experts`, `top_k` and `sums_to_one`.
//
// An expert's place is the number of experts that are better: every thread compares its own with all, out of workgroup
// memory, so that no round waits for the one before it. Scores are compared as bits, which order them as numbers since
// none is negative.

@group(0) @binding(LOGITS) var<storage, read> logits: array<u32>;

const EACH = CAPACITY / THREADS;
const LARGEST = 3.4028235e38;
var<workgroup> maxima: array<f32, THREADS>;
var<workgroup> scores: array<vec4<u32>, CAPACITY / 4u>;
// What was chosen, by place: scores, and experts.
var<workgroup> chosen: array<f32, CAPACITY>;
var<workgroup> chosen_ids: array<u32, CAPACITY>;

// Called once, by all threads. Has barriers: what was chosen is visible after it. Gives the threads that have an expert what
// scores are divided by.
fn choose(row: u32, local: u32, subgroup: u32, subgroups: u32, lane: u32) -> f32 {
    // What is not a number or −∞ can never score; +∞ becomes a number, so that its distance from the largest is one.
    var x: array<f32, EACH>;
    var alive: array<bool, EACH>;
    var largest = -LARGEST;
    for (var i = 0u; i < EACH; i++) {
        let expert = i * THREADS + local;
        var bits = 0xff800000u;
        if (expert < experts()) { bits = logits[row * experts() + expert]; }
        alive[i] = bits != 0xff800000u && (bits & 0x7fffffffu) <= 0x7f800000u;
        x[i] = select(-LARGEST, min(bitcast<f32>(bits), LARGEST), alive[i]);
        largest = max(largest, x[i]);
    }
    largest = subgroupMax(largest);
    if (lane == 0u) { maxima[subgroup] = largest; }
    workgroupBarrier();
    largest = maxima[0];
    for (var i = 1u; i < subgroups; i++) { largest = max(largest, maxima[i]); }
    for (var i = 0u; i < EACH; i++) {
        let score = select(0.0, exponential(x[i] - largest), alive[i]);
        let expert = i * THREADS + local;
        scores[expert / 4u][expert % 4u] = bitcast<u32>(score);
        x[i] = score;
    }
    workgroupBarrier();

    var place: array<u32, EACH>;
    for (var i = 0u; i < EACH; i++) { place[i] = 0u; }
    var total = 0.0;
    // Threads that have no expert wait, and their total is nobody's.
    let last = select(0u, (experts() + 3u) / 4u, local < experts());
    for (var j = 0u; j < last; j++) {
        let others = scores[j];
        if (!sums_to_one()) {
            let values = bitcast<vec4<f32>>(others);
            total += values.x + values.y + values.z + values.w;
        }
        for (var i = 0u; i < EACH; i++) {
            let expert = i * THREADS + local;
            // Of equals, an earlier one is better: as if its score were one higher. Of the four around the expert, those behind
            // it are looked at again below.
            let before = select(0u, 1u, 4u * j < expert);
            let better = select(vec4(0u), vec4(1u), others + before > vec4(bitcast<u32>(x[i])));
            place[i] += (better.x + better.y) + (better.z + better.w);
        }
    }
    // Of the four that an expert is among, itself and those behind it are not better for being equal.
    for (var i = 0u; i < EACH; i++) {
        let expert = i * THREADS + local;
        let lane_of_four = expert % 4u;
        if (lane_of_four > 0u) {
            let same = scores[expert / 4u] == vec4(bitcast<u32>(x[i]));
            let behind = vec4(0u, 1u, 2u, 3u) >= vec4(lane_of_four);
            let wrong = select(vec4(0u), vec4(1u), same & behind);
            place[i] -= (wrong.x + wrong.y) + (wrong.z + wrong.w);
        }
    }
    for (var i = 0u; i < EACH; i++) {
        let expert = i * THREADS + local;
        if (expert < experts() && place[i] < top_k()) {
            chosen_ids[place[i]] = expert;
            chosen[place[i]] = x[i];
        }
    }
    workgroupBarrier();
    if (sums_to_one()) {
        total = 0.0;
        for (var j = 0u; j < top_k(); j++) { total += chosen[j]; }
    }
    return max(total, 1.1754944e-38);
}
