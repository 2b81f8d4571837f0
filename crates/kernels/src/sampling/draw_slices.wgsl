// What the slices' summaries say of a row, and the draw from all of its slices.

// Merges the largest keys of the slices, `word` of each.
fn merge(word: u32) {
    let first = row_index * p.slices * ROW_WORDS_PER_SLICE;
    workgroupBarrier();
    if (local == 0u) {
        atomicStore(&best_key, 0u);
        atomicStore(&best_id, NONE);
    }
    workgroupBarrier();
    for (var slice = local; slice < p.slices; slice += THREADS) {
        atomicMax(&best_key, summary[first + slice * SLICE_WORDS + word]);
    }
    workgroupBarrier();
    best = atomicLoad(&best_key);
    if (word == 0u) {
        for (var slice = local; slice < p.slices; slice += THREADS) {
            let at = first + slice * SLICE_WORDS;
            if (summary[at] == best) { atomicMin(&best_id, summary[at + 1u]); }
        }
    }
    workgroupBarrier();
    top = value(best);
}

// Puts the slices' sums of weights into the bins and gives the sum of all; `key_word` and `sum_word` say where a slice
// has its largest key and its sum by that.
fn merge_sums(key_word: u32, sum_word: u32) -> vec2<u32> {
    let first = row_index * p.slices * ROW_WORDS_PER_SLICE;
    clear_bins();
    for (var slice = local; slice < p.slices; slice += THREADS) {
        let at = first + slice * SLICE_WORDS;
        let w = fixed(bitcast<f32>(summary[at + sum_word]) * weight(summary[at + key_word], top, factor));
        atomicStore(&low[slice], w.x);
        atomicStore(&high[slice], w.y);
    }
    workgroupBarrier();
    _ = scan(bins_sum());
    return all_sum.yz;
}

// A token and its weight, zeros where it is not kept: it comes after `last`, or weighs less than `least`.
fn kept_weight(k: u32, token: u32, last: vec2<u32>) -> vec3<u32> {
    if (k <= KEY_MINUS_INFINITY || before(last, vec2(best - k, token))) { return vec3(0u); }
    let w = weight(k, top, factor);
    return select(vec3(0u), vec3(1u, fixed(w)), w >= least);
}

fn kept_weights(keys: vec4<u32>, tokens: vec4<u32>, last: vec2<u32>) -> vec3<u32> {
    return add_sum(
        add_sum(kept_weight(keys.x, tokens.x, last), kept_weight(keys.y, tokens.y, last)),
        add_sum(kept_weight(keys.z, tokens.z, last), kept_weight(keys.w, tokens.w, last)),
    );
}

// Four tokens of this thread in the `i`-th of `n` slices, or none.
fn slice_tokens(i: u32, four: u32, n: u32) -> vec4<u32> {
    if (i >= n) { return vec4(NONE); }
    return active_parts[i] * SLICE + local + (four * 4u + vec4(0u, 1u, 2u, 3u)) * THREADS;
}

// Puts the sums of the weights of kept tokens into bins by slice, going through the slices that have any.
fn sum_slices(last: vec2<u32>) {
    let first = row_index * p.slices * ROW_WORDS_PER_SLICE;
    clear_bins();
    if (local == 0u) { atomicStore(&parts, 0u); }
    workgroupBarrier();
    for (var slice = local; slice < p.slices; slice += THREADS) {
        let most = summary[first + slice * SLICE_WORDS];
        if (most > KEY_MINUS_INFINITY && best - most <= last.x && weight(most, top, factor) >= least) {
            active_parts[atomicAdd(&parts, 1u)] = slice;
        }
    }
    workgroupBarrier();
    let n = atomicLoad(&parts);
    // Several slices fill a batch, and a slice one or two of its fours.
    const FOURS = SLICE / THREADS / 4u;
    for (var i = 0u; i < n; i += 4u / FOURS) {
        var tokens = Batch(
            slice_tokens(i, 0u, n), slice_tokens(i + 1u / FOURS, 1u % FOURS, n),
            slice_tokens(i + 2u / FOURS, 2u % FOURS, n), slice_tokens(i + 3u / FOURS, 3u % FOURS, n),
        );
        var keys = load_keys(tokens);
        for (var j = 0u; j < 4u; j++) {
            let mine = kept_weights(keys.a, tokens.a, last);
            // Sixteen bits at a time, so that no sum of a subgroup overflows. Lanes that went apart must be together
            // again before they work as a subgroup.
            workgroupBarrier();
            let halves = subgroupAdd(vec3(mine.y & 0xffffu, mine.y >> 16u, mine.z));
            if (lane == 0u && i + j / FOURS < n) {
                let w = add64(vec2(halves.x, halves.z), vec2(halves.y << 16u, halves.y >> 16u));
                add_to_bin(active_parts[i + j / FOURS], w);
            }
            keys = Batch(keys.b, keys.c, keys.d, keys.a);
            tokens = Batch(tokens.b, tokens.c, tokens.d, tokens.a);
        }
    }
    workgroupBarrier();
    _ = scan(bins_sum());
}

// Of a row whose slices' sums are in the bins and add up to `all_sum`: draws a slice, then one of its tokens that are
// kept, by id.
fn draw_from_slices(row: Row, last: vec2<u32>) -> u32 {
    by_weight = true;
    target_sum = draw_target(row);
    if (!pick_bin(vec3(0u))) { return atomicLoad(&best_id); }
    let slice = picked_index;
    let rest = sub64(target_sum.yz, picked_before.yz);

    // Here a thread's tokens are neighbours, so that the sums run through them by id.
    var own: array<vec3<u32>, EACH>;
    var mine = vec3(0u);
    let four = slice * SLICE + local * EACH + vec4(0u, 1u, 2u, 3u);
    let tokens = Batch(four, four + 4u, four, four);
    let keys = load_keys(tokens);
    for (var j = 0u; j < EACH; j++) {
        own[j] = kept_weight(select(keys.a[j % 4u], keys.b[j % 4u], j > 3u), four.x + j, last);
        mine = add_sum(mine, own[j]);
    }
    start_pick();
    var through = scan(mine);
    // The slice's sum may have been rounded up: then it is the last token that has any weight.
    target_sum = vec3(0u, rest);
    if (less64(all_sum.yz, rest)) { target_sum = all_sum; }
    for (var j = 0u; j < EACH; j++) {
        let next = add_sum(through, own[j]);
        offer(slice * SLICE + local * EACH + j, through, next);
        through = next;
    }
    if (end_pick()) { return picked_index; }
    return atomicLoad(&best_id);
}
