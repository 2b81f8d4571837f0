// The search for the last token of a prefix: through lists where few are in question, through histograms before that.

// Token `i`, counted through the blocks that passes go through.
fn token_at(i: u32, blocks: u32) -> u32 {
    let part = i / BLOCK;
    if (part >= blocks) { return NONE; }
    var block = part;
    if (!everything) { block = active_parts[part]; }
    let token = block * BLOCK + i % BLOCK;
    return select(NONE, token, token < p.vocab);
}

fn blocks_to_pass() -> u32 {
    if (everything) { return (p.vocab + BLOCK - 1u) / BLOCK; }
    return atomicLoad(&parts);
}

fn tokens_at(i: u32, blocks: u32) -> vec4<u32> {
    return vec4(
        token_at(i, blocks), token_at(i + THREADS, blocks),
        token_at(i + 2u * THREADS, blocks), token_at(i + 3u * THREADS, blocks),
    );
}

// Puts a token of the range into `list` (beyond LIST it is only counted), or into its bin.
fn visit(k: u32, token: u32) {
    let at = vec2(best - k, token);
    if (k <= KEY_MINUS_INFINITY || before(at, range_first) || before(range_last, at)) { return; }
    if (listing) {
        let to = atomicAdd(&listed, 1u);
        if (to < LIST) { list[to] = at; }
        return;
    }
    var bin = (at.x - range_first.x) >> bin_step;
    if (range_first.x == range_last.x) { bin = (token - range_first.y) >> bin_step; }
    if (octaves) { bin = octave_bin(at.x); }
    if (counting) { atomicAdd(&counts[bin], 1u); }
    if (weighing) { add_to_bin(bin, weight_at(at.x)); }
}

fn visit_four(keys: vec4<u32>, tokens: vec4<u32>) {
    visit(keys.x, tokens.x);
    visit(keys.y, tokens.y);
    visit(keys.z, tokens.z);
    visit(keys.w, tokens.w);
}

// Visits all tokens of the blocks that passes go through.
fn visit_all() {
    workgroupBarrier();
    if (local == 0u) { atomicStore(&listed, 0u); }
    workgroupBarrier();
    let blocks = blocks_to_pass();
    for (var i = local; i < blocks * BLOCK; i += THREADS * BATCH) {
        let tokens = Batch(
            tokens_at(i, blocks), tokens_at(i + 4u * THREADS, blocks),
            tokens_at(i + 8u * THREADS, blocks), tokens_at(i + 12u * THREADS, blocks),
        );
        let keys = load_keys(tokens);
        visit_four(keys.a, tokens.a);
        visit_four(keys.b, tokens.b);
        visit_four(keys.c, tokens.c);
        visit_four(keys.d, tokens.d);
    }
    workgroupBarrier();
}

// Sorts the first `n` of `list` (a bitonic network).
fn sort(n: u32) {
    var size = 2u;
    while (size < n) { size *= 2u; }
    for (var i = n + local; i < size; i += THREADS) { list[i] = LAST; }
    workgroupBarrier();
    for (var run = 2u; run <= size; run *= 2u) {
        for (var gap = run / 2u; gap > 0u; gap /= 2u) {
            for (var i = local; i < size / 2u; i += THREADS) {
                let left = 2u * i - i % gap;
                let a = list[left];
                let b = list[left + gap];
                if (before(b, a) == ((left & run) == 0u)) {
                    list[left] = b;
                    list[left + gap] = a;
                }
            }
            workgroupBarrier();
        }
    }
}

// Finds the token with which the sum over the tokens in order reaches the target, among those up to `limit`:
// `list[picked_index]`. When there is none, `all_sum` is the sum of all up to `limit`. Where the list already holds all
// of these (`whole`), it is taken as it is, or sorted by id. `known` is a number of tokens that there are at least.
fn descend(row: Row, limit: vec2<u32>, known: u32) -> bool {
    range_first = vec2(0u);
    range_last = limit;
    octaves = true;
    counting = !by_weight;
    var sum = vec3(0u);
    var n = list_len;
    let search = !whole;
    if (search) {
        var narrowed = false;
        n = known;
        while (true) {
            listing = n <= LIST;
            let ids = range_first.x == range_last.x;
            if (!listing) {
                octaves = !narrowed && !ids;
                range_last.y = min(range_last.y, p.vocab - 1u);
                let width = select(range_last.x - range_first.x, range_last.y - range_first.y, ids);
                bin_step = bin_shift(width);
                clear_bins();
            }
            visit_all();
            if (listing) {
                n = atomicLoad(&listed);
                if (n <= LIST) { break; }
                continue;
            }
            if (!pick_bin(sum)) { return false; }
            narrowed = true;
            let bin = picked_index;
            sum = picked_before;
            // Where tokens are not counted the list will tell.
            n = picked_with.x - picked_before.x;
            if (ids) {
                range_first.y += bin << bin_step;
                range_last.y = min(range_last.y, range_first.y + (1u << bin_step) - 1u);
            } else {
                var range = vec2(bin << bin_step, (bin << bin_step) + (1u << bin_step) - 1u) + range_first.x;
                if (octaves) { range = octave_range(bin); }
                range_first = vec2(range.x, 0u);
                if (range.y < range_last.x) { range_last = vec2(range.y, NONE); }
            }
        }
        whole = !narrowed;
    }
    list_len = n;
    workgroupBarrier();
    if (by_id) {
        for (var i = local; i < n; i += THREADS) {
            let at = list[i];
            list[i] = select(LAST, at.yx, weight(best - at.x, top, factor) >= least);
        }
        workgroupBarrier();
    }
    if (search || by_id) { sort(n); }
    return pick_place(row, n, sum);
}

fn block_keys(block: vec4<u32>, blocks: u32) -> vec4<u32> {
    let at = blocks_at + min(block, vec4(blocks - 1u));
    let most = vec4(summary[at.x], summary[at.y], summary[at.z], summary[at.w]);
    return select(vec4(0u), most, block < vec4(blocks));
}

fn count_block(most: u32) {
    if (most > KEY_MINUS_INFINITY) { atomicAdd(&counts[octave_bin(best - most)], 1u); }
}

fn take_block(most: u32, block: u32, edge: u32) {
    if (most <= KEY_MINUS_INFINITY || best - most > edge) { return; }
    let at = atomicAdd(&parts, 1u);
    if (at < ACTIVE) { active_parts[at] = block; }
}

// Chooses the blocks that passes go through: those that hold the `k` best tokens, or, with `k` 0, those with a token not
// beyond `edge`. Gives a place that none of these tokens goes beyond. All blocks, where that would be many.
fn narrow(k: u32, given_edge: u32) -> vec2<u32> {
    let blocks = (p.vocab + BLOCK - 1u) / BLOCK;
    everything = true;
    let all = vec2(farthest(), NONE);
    if (k > blocks) { return all; }
    var edge = given_edge;
    clear_bins();
    if (local == 0u) { atomicStore(&parts, 0u); }
    workgroupBarrier();
    if (k > 0u) {
        for (var block = local; block < blocks; block += THREADS * 8u) {
            let four = vec4(block) + vec4(0u, 1u, 2u, 3u) * THREADS;
            let a = block_keys(four, blocks);
            let b = block_keys(four + 4u * THREADS, blocks);
            count_block(a.x); count_block(a.y); count_block(a.z); count_block(a.w);
            count_block(b.x); count_block(b.y); count_block(b.z); count_block(b.w);
        }
        workgroupBarrier();
        by_weight = false;
        target_sum = vec3(k, 0u, 0u);
        if (!pick_bin(vec3(0u))) { return all; }
        edge = min(octave_range(picked_index).y, farthest());
    }
    for (var block = local; block < blocks; block += THREADS * 8u) {
        let four = vec4(block) + vec4(0u, 1u, 2u, 3u) * THREADS;
        let next = four + 4u * THREADS;
        let a = block_keys(four, blocks);
        let b = block_keys(next, blocks);
        take_block(a.x, four.x, edge); take_block(a.y, four.y, edge);
        take_block(a.z, four.z, edge); take_block(a.w, four.w, edge);
        take_block(b.x, next.x, edge); take_block(b.y, next.y, edge);
        take_block(b.z, next.z, edge); take_block(b.w, next.w, edge);
    }
    workgroupBarrier();
    everything = atomicLoad(&parts) > ACTIVE;
    return vec2(edge, NONE);
}
