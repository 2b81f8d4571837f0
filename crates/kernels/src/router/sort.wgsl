// Sorts slots by expert, keeping their order within an expert.
// ids: u32 [slots], an id that is no expert counts as the last; offsets: u32 [experts + 1]; order: u32 [slots].
// Launch: (experts) workgroups of 256. Each goes through all ids twice: it counts the slots before its own, then places
// its own. So the workgroups need nothing of each other, and the result does not depend on their timing.
//
// Each subgroup has a stretch of the slots to itself; its lanes read neighbours.

struct Params { slots: u32, experts: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> offsets: array<u32>;
@group(0) @binding(2) var<storage, read_write> order: array<u32>;

var<workgroup> before: array<u32, 256>;
var<workgroup> own: array<u32, 256>;

// What a lane loads at once: all loads are on their way before the first is needed. Beyond the end is no expert.
const BATCH = 4u;
var<private> batch: array<u32, BATCH>;

fn load_batch(slot: u32, lanes: u32, end: u32) {
    for (var j = 0u; j < BATCH; j++) { batch[j] = ids[min(slot + j * lanes, p.slots - 1u)]; }
    for (var j = 0u; j < BATCH; j++) {
        batch[j] = select(0xffffffffu, min(batch[j], p.experts - 1u), slot + j * lanes < end);
    }
}

fn ones(bits: vec4<u32>) -> u32 {
    let counts = countOneBits(bits);
    return counts.x + counts.y + counts.z + counts.w;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let expert = group.x;
    let steps = (p.slots + subgroups * lanes - 1u) / (subgroups * lanes);
    let first = subgroup * steps * lanes;
    let end = min(first + steps * lanes, p.slots);

    var lower = 0u;
    var equal = 0u;
    for (var step = 0u; step < steps; step += BATCH) {
        load_batch(first + step * lanes + lane, lanes, end);
        for (var j = 0u; j < BATCH; j++) {
            lower += select(0u, 1u, batch[j] < expert);
            equal += select(0u, 1u, batch[j] == expert);
        }
    }
    // Lanes that went apart must be together again before they work as a subgroup.
    workgroupBarrier();
    lower = subgroupAdd(lower);
    equal = subgroupAdd(equal);
    if (lane == 0u) {
        before[subgroup] = lower;
        own[subgroup] = equal;
    }
    workgroupBarrier();
    var start = 0u;
    var next = 0u;
    var count = 0u;
    for (var i = 0u; i < subgroups; i++) {
        start += before[i];
        next += select(0u, own[i], i < subgroup);
        count += own[i];
    }
    if (subgroup == 0u && lane == 0u) {
        offsets[expert] = start;
        if (expert + 1u == p.experts) { offsets[p.experts] = p.slots; }
    }
    // No expert has few rows more often than not.
    if (own[subgroup] == 0u) { return; }
    next += start;
    // The lanes below this one, as a ballot has them.
    let firsts = vec4(0u, 32u, 64u, 96u);
    let below = select(
        select(vec4(0u), (vec4(1u) << (vec4(lane - 1u) & vec4(31u))) * 2u - 1u, vec4(lane) > firsts),
        vec4(0xffffffffu),
        vec4(lane) >= firsts + 32u,
    );
    for (var step = 0u; step < steps; step += BATCH) {
        load_batch(first + step * lanes + lane, lanes, end);
        // Stores come after the subgroup's work, so that no lane misses that for a store.
        var places: array<u32, BATCH>;
        for (var j = 0u; j < BATCH; j++) {
            let votes = subgroupBallot(batch[j] == expert);
            places[j] = next + ones(votes & below);
            next += ones(votes);
        }
        for (var j = 0u; j < BATCH; j++) {
            if (batch[j] == expert) { order[places[j]] = first + (step + j) * lanes + lane; }
        }
    }
}
