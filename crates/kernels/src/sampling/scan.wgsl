// Sums across the threads, and the element of them where a sum reaches the target.

// Sixteen tokens, or their keys: what a thread loads at once. Not an array, which a compiler may leave in memory; and
// all loads are on their way before the first is needed.
struct Batch { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }

// The keys of tokens; 0 for what is none.
fn load_keys(tokens: Batch) -> Batch {
    let first = row_index * p.vocab;
    let last = vec4(p.vocab - 1u);
    let a = first + min(tokens.a, last);
    let b = first + min(tokens.b, last);
    let c = first + min(tokens.c, last);
    let d = first + min(tokens.d, last);
    var bits: Batch;
    if (from_adjusted) {
        bits.a = vec4(adjusted[a.x], adjusted[a.y], adjusted[a.z], adjusted[a.w]);
        bits.b = vec4(adjusted[b.x], adjusted[b.y], adjusted[b.z], adjusted[b.w]);
        bits.c = vec4(adjusted[c.x], adjusted[c.y], adjusted[c.z], adjusted[c.w]);
        bits.d = vec4(adjusted[d.x], adjusted[d.y], adjusted[d.z], adjusted[d.w]);
    } else {
        bits.a = vec4(logits[a.x], logits[a.y], logits[a.z], logits[a.w]);
        bits.b = vec4(logits[b.x], logits[b.y], logits[b.z], logits[b.w]);
        bits.c = vec4(logits[c.x], logits[c.y], logits[c.z], logits[c.w]);
        bits.d = vec4(logits[d.x], logits[d.y], logits[d.z], logits[d.w]);
    }
    return Batch(
        keys(bits.a, tokens.a <= last), keys(bits.b, tokens.b <= last),
        keys(bits.c, tokens.c <= last), keys(bits.d, tokens.d <= last),
    );
}

fn keys(bits: vec4<u32>, are: vec4<bool>) -> vec4<u32> {
    return select(vec4(0u), vec4(key(bits.x), key(bits.y), key(bits.z), key(bits.w)), are);
}

fn weight_at(distance: u32) -> vec2<u32> { return fixed(weight(best - distance, top, factor)); }

fn add_sum(a: vec3<u32>, b: vec3<u32>) -> vec3<u32> { return vec3(a.x + b.x, add64(a.yz, b.yz)); }

fn reached(sum: vec3<u32>) -> bool {
    if (by_weight) { return !less64(sum.yz, target_sum.yz); }
    return sum.x >= target_sum.x;
}

fn before(a: vec2<u32>, b: vec2<u32>) -> bool { return a.x < b.x || (a.x == b.x && a.y < b.y); }

// The sum of the threads before this one; `all_sum` becomes the sum of all. Sixteen bits at a time, so that no sum of a
// subgroup overflows.
fn scan(mine: vec3<u32>) -> vec3<u32> {
    // Lanes that went apart must be together again before they work as a subgroup.
    workgroupBarrier();
    let parts = vec4(mine.y & 0xffffu, mine.y >> 16u, mine.z & 0xffffu, mine.z >> 16u);
    let below = subgroupExclusiveAdd(parts);
    let low_half = add64(vec2(below.x, 0u), vec2(below.y << 16u, below.y >> 16u));
    let within = vec3(subgroupExclusiveAdd(mine.x), add64(low_half, vec2(0u, below.z + (below.w << 16u))));
    if (lane == lanes - 1u) { sums[subgroup] = add_sum(within, mine); }
    workgroupBarrier();
    var others = vec3(0u);
    all_sum = vec3(0u);
    for (var i = 0u; i < THREADS / lanes; i++) {
        if (i == subgroup) { others = all_sum; }
        all_sum = add_sum(all_sum, sums[i]);
    }
    return add_sum(others, within);
}

fn start_pick() {
    workgroupBarrier();
    if (local == 0u) { picked_index = NONE; }
}

// The next element of a scan: it is the one when the sum reaches the target with it and not before.
fn offer(index: u32, sum: vec3<u32>, next: vec3<u32>) {
    if (reached(next) && !reached(sum)) {
        picked_index = index;
        picked_before = sum;
        picked_with = next;
    }
}

fn end_pick() -> bool {
    workgroupBarrier();
    return picked_index != NONE;
}
