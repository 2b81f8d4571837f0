// The top_k experts of each row by softmax score, best first; of equals, the lower id. A logit that is not a number
// counts as −∞.
// logits: f32 [rows, experts]; ids: u32 [rows, top_k]; weights: f32 [rows, top_k].
// Launch: (rows along x and y) workgroups of THREADS; experts ≤ CAPACITY, a multiple of THREADS.
//
// An expert's place is the number of experts that are better: every thread compares its own with all, out of workgroup
// memory, so that no round waits for the one before it. Scores are compared as bits, which order them as numbers since
// none is negative.

struct Params { rows: u32, experts: u32, top_k: u32, sum_to_one: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read_write> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;

const EACH = CAPACITY / THREADS;
const LARGEST = 3.4028235e38;
var<workgroup> maxima: array<f32, THREADS>;
var<workgroup> scores: array<vec4<u32>, CAPACITY / 4u>;
var<workgroup> chosen: array<f32, CAPACITY>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) { return; }
    // What is not a number or −∞ can never score; +∞ becomes a number, so that its distance from the largest is one.
    var x: array<f32, EACH>;
    var alive: array<bool, EACH>;
    var largest = -LARGEST;
    for (var i = 0u; i < EACH; i++) {
        let expert = i * THREADS + local;
        var bits = 0xff800000u;
        if (expert < p.experts) { bits = logits[row * p.experts + expert]; }
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
    for (var j = 0u; j < (p.experts + 3u) / 4u; j++) {
        let others = scores[j];
        let values = bitcast<vec4<f32>>(others);
        total += values.x + values.y + values.z + values.w;
        for (var i = 0u; i < EACH; i++) {
            let expert = i * THREADS + local;
            let mine = vec4(bitcast<u32>(x[i]));
            let earlier = vec4(4u * j, 4u * j + 1u, 4u * j + 2u, 4u * j + 3u) < vec4(expert);
            let better = select(vec4(0u), vec4(1u), (others > mine) | ((others == mine) & earlier));
            place[i] += better.x + better.y + better.z + better.w;
        }
    }
    for (var i = 0u; i < EACH; i++) {
        let expert = i * THREADS + local;
        if (expert < p.experts && place[i] < p.top_k) {
            ids[row * p.top_k + place[i]] = expert;
            chosen[place[i]] = x[i];
        }
    }
    workgroupBarrier();
    if (p.sum_to_one == 1u) {
        total = 0.0;
        for (var j = 0u; j < p.top_k; j++) { total += chosen[j]; }
    }
    total = max(total, 1.1754944e-38);
    for (var j = local; j < p.top_k; j += THREADS) { weights[row * p.top_k + j] = chosen[j] / total; }
}
