// Second launch of the sampler: merges the summaries of a row's slices, and chooses its token and its logprobs.
// logits, adjusted: f32 [rows, vocab]; rows: see Sample; summary: see row.wgsl; out: (token, logprob) [rows];
// top_ids: u32 [rows, 20]; top_logprobs: f32 [rows, 20].
// Launch: (rows) workgroups of THREADS, 256 or 512.
//
// A greedy row is done when its summaries are merged. A row that draws from all tokens adds up the slices' sums, and
// goes into one slice. top_k, top_p and min_p keep a prefix of the tokens in order of logit (of equals, lower ids first);
// `descend` finds its last token: it collects the tokens that may be in question, out of the blocks whose largest logit
// says that there are any, and sorts them; where they are too many, histograms narrow the range first. Tokens then are
// places: (distance from the largest key, id), smaller is better. The draw goes through the kept tokens by id.

struct Params { vocab: u32, slices: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> adjusted: array<u32>;
@group(0) @binding(3) var<storage, read> summary: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> top_ids: array<u32>;
@group(0) @binding(6) var<storage, read_write> top_logprobs: array<f32>;

const MAX_LOGPROBS = 20u;
const EACH = SLICE / THREADS;
const BINS = 512u;
const LIST = 1024u;
const ACTIVE = 512u;
// Tokens that often hold top_p of the probability.
const FEW = 256u;
const BATCH = 16u;
const LAST = vec2<u32>(NONE, NONE);

// Tokens and their weight, by bin.
var<workgroup> counts: array<atomic<u32>, BINS>;
var<workgroup> low: array<atomic<u32>, BINS>;
var<workgroup> high: array<atomic<u32>, BINS>;
// Places of tokens.
var<workgroup> list: array<vec2<u32>, LIST>;
var<workgroup> listed: atomic<u32>;
// The blocks that passes go through, or the slices that the draw does.
var<workgroup> active_parts: array<u32, ACTIVE>;
var<workgroup> parts: atomic<u32>;
// Count and weight, by subgroup.
var<workgroup> sums: array<vec3<u32>, THREADS>;
// What a scan picked: index, sum before it, sum with it.
var<workgroup> picked_index: u32;
var<workgroup> picked_before: vec3<u32>;
var<workgroup> picked_with: vec3<u32>;
var<workgroup> best_key: atomic<u32>;
var<workgroup> best_id: atomic<u32>;

// The thread: lanes of one subgroup are neighbours.
var<private> local: u32;
var<private> lane: u32;
var<private> lanes: u32;
var<private> subgroup: u32;
var<private> row_index: u32;
// The tokens that a pass is about, from the first place to the last, and what it does with them.
var<private> range_first: vec2<u32>;
var<private> range_last: vec2<u32>;
var<private> listing: bool;
var<private> octaves: bool;
var<private> bin_step: u32;
// Histograms count, and weigh.
var<private> counting: bool;
var<private> weighing: bool;
// Which logits are looked at: adjusted or raw; where their blocks' keys begin.
var<private> from_adjusted: bool;
var<private> blocks_at: u32;
// Their largest key and logit, and the factor that distances from it are multiplied with.
var<private> best: u32;
var<private> top: f32;
var<private> factor: f32;
// Passes go through all blocks, not only through `active_parts`.
var<private> everything: bool;
// What `descend` looks for: the first token with which the sum reaches this.
var<private> by_weight: bool;
var<private> target_sum: vec3<u32>;
// Whether `list` holds every token from the best on, and how many tokens it holds.
var<private> whole: bool;
var<private> list_len: u32;
// A draw: `descend` looks for the token where the random number falls, among those that weigh at least this.
var<private> by_id: bool;
var<private> least: f32;
// The sum of all that was gone through.
var<private> all_sum: vec3<u32>;

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

fn clear_bins() {
    workgroupBarrier();
    for (var bin = local; bin < BINS; bin += THREADS) {
        atomicStore(&counts[bin], 0u);
        atomicStore(&low[bin], 0u);
        atomicStore(&high[bin], 0u);
    }
    workgroupBarrier();
}

fn add_to_bin(bin: u32, w: vec2<u32>) {
    let old = atomicAdd(&low[bin], w.x);
    let upper = w.y + carry(old, w.x, old + w.x);
    if (upper > 0u) { atomicAdd(&high[bin], upper); }
}

fn bin_sum(bin: u32) -> vec3<u32> {
    return vec3(atomicLoad(&counts[bin]), atomicLoad(&low[bin]), atomicLoad(&high[bin]));
}

// The bin with which the sum, `sum` before the first, reaches the target.
fn pick_bin(sum: vec3<u32>) -> bool {
    start_pick();
    let through = add_sum(sum, scan(bins_sum()));
    all_sum = add_sum(sum, all_sum);
    var next = through;
    for (var i = 0u; i < BINS / THREADS; i++) {
        let bin = local * (BINS / THREADS) + i;
        let before_it = next;
        next = add_sum(next, bin_sum(bin));
        offer(bin, before_it, next);
    }
    return end_pick();
}

// The sum of the bins of this thread.
fn bins_sum() -> vec3<u32> {
    var sum = vec3(0u);
    for (var i = 0u; i < BINS / THREADS; i++) { sum = add_sum(sum, bin_sum(local * (BINS / THREADS) + i)); }
    return sum;
}

// The same for the places in `list`, of which `n` count. By id, what is looked for is where the random number falls.
fn pick_place(row: Row, n: u32, sum: vec3<u32>) -> bool {
    const OWN = LIST / THREADS;
    start_pick();
    var own: array<vec3<u32>, OWN>;
    var mine = vec3(0u);
    for (var i = 0u; i < OWN; i++) {
        own[i] = vec3(0u);
        if (local * OWN + i < n) {
            let at = list[local * OWN + i];
            let distance = select(at.x, at.y, by_id);
            if (distance != NONE) { own[i] = vec3(1u, weight_at(distance)); }
        }
        mine = add_sum(mine, own[i]);
    }
    var through = add_sum(sum, scan(mine));
    all_sum = add_sum(sum, all_sum);
    if (by_id) { target_sum = draw_target(row); }
    for (var i = 0u; i < OWN; i++) {
        let next = add_sum(through, own[i]);
        if (local * OWN + i < n) { offer(local * OWN + i, through, next); }
        through = next;
    }
    return end_pick();
}

// The sum that the drawn token is the first to reach: more than the random share of `all_sum`.
fn draw_target(row: Row) -> vec3<u32> {
    return vec3(0u, add64(share64(all_sum.yz, uniform_bits(row)), vec2(1u, 0u)));
}

// Bins of 1/16 octave of the distance, so that they fit any spread of logits.
fn octave_bin(distance: u32) -> u32 {
    if (distance < 32u) { return distance; }
    let octave = firstLeadingBit(distance);
    return 32u + (octave - 5u) * 16u + ((distance >> (octave - 4u)) & 15u);
}

// Smallest and largest distance of a bin.
fn octave_range(bin: u32) -> vec2<u32> {
    if (bin < 32u) { return vec2(bin); }
    let shift = 1u + (bin - 32u) / 16u;
    let first = (16u + (bin - 32u) % 16u) << shift;
    return vec2(first, first + (1u << shift) - 1u);
}

// The shift that leaves less than BINS of what is up to `width`.
fn bin_shift(width: u32) -> u32 {
    if (width < BINS) { return 0u; }
    return firstLeadingBit(width) - 8u;
}

// The largest distance of a token above −∞.
fn farthest() -> u32 { return best - KEY_MINUS_INFINITY - 1u; }

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

// x · 2^32, for x below 1.
fn fraction(x: f32) -> u32 { return u32(max(x, 0.0) * 4294967296.0); }

// What `choose` goes through; the search itself stands in the program once, since compilers copy it wherever it is called.
const COUNT = 0u;
const AGAIN = 1u;
const MASS_OF_FEW = 2u;
const MASS = 3u;
const SHARE = 4u;
const DRAW = 5u;
const STAGES = 6u;

// Chooses the token of a row whose summaries are merged and whose weights sum up to `total`. Or, with `wanted` above 0,
// puts the so many best tokens into `list`, as many as there are.
fn choose(row: Row, total: vec2<u32>, wanted: u32) -> u32 {
    let k = select(row.top_k, wanted, wanted > 0u);
    let by_count = k > 0u && (k < p.vocab || wanted > 0u);
    let top_p = bitcast<f32>(row.top_p);
    let by_mass = wanted == 0u && !is_nan(row.top_p) && top_p < 1.0;
    // What is not a number counts as 1.
    let min_p = select(min(bitcast<f32>(row.min_p), 1.0), 1.0, is_nan(row.min_p));
    least = select(0.0, min_p, min_p > 0.0 && wanted == 0u);
    var last = vec2(farthest(), NONE);
    var kept = total;
    var tokens_kept = 0u;
    var found = false;
    var missed = false;
    whole = false;
    by_id = false;
    for (var stage = 0u; stage < STAGES; stage++) {
        if (stage == COUNT && !by_count) { continue; }
        // The best tokens are known but not in the list: their range was too full to be listed as a whole.
        if (stage == AGAIN && (wanted == 0u || !found || whole)) { continue; }
        if (stage == MASS_OF_FEW && !by_mass) { continue; }
        if (stage == MASS && !missed) { continue; }
        if (stage == SHARE && (by_count || by_mass || least == 0.0)) { continue; }
        if (stage == DRAW && (wanted > 0u || !whole)) { continue; }
        var limit = last;
        if (stage == COUNT || stage == SHARE || (stage == MASS_OF_FEW && !by_count)) {
            var few = select(FEW, k, stage == COUNT);
            var edge = 0u;
            if (stage == SHARE) {
                // A little below the bound: weights, which are rounded, decide.
                few = 0u;
                edge = min(best - key(bitcast<u32>(top + (log(least) - 0.001) / factor)), farthest());
            }
            limit = narrow(few, edge);
            // Many tokens are drawn from as they lie.
            if (stage == SHARE && everything) { continue; }
        }
        if (stage == MASS) {
            everything = true;
            whole = false;
        }
        by_id = stage == DRAW;
        by_weight = stage > AGAIN;
        weighing = by_weight || by_mass;
        let mass = share64(kept, vec2(0u, fraction(top_p)));
        target_sum = vec3(k, select(mass, vec2(1u, 0u), all(mass == vec2(0u))));
        // All of them: a sum that no tokens reach.
        if (stage == SHARE) { target_sum = vec3(NONE); }
        // Most tokens of a large vocabulary are above −∞, and a pass that lists them is not tried.
        var known = 0u;
        if (everything && limit.x == farthest()) { known = p.vocab / 8u; }
        if (stage == MASS_OF_FEW && by_count) { known = tokens_kept; }
        found = descend(row, limit, known);
        if (stage == DRAW) {
            if (found) { return list[picked_index].x; }
            return atomicLoad(&best_id);
        }
        missed = stage == MASS_OF_FEW && !found && before(limit, last);
        if (stage == COUNT) { kept = all_sum.yz; }
        if (found) {
            last = list[picked_index];
            kept = picked_with.yz;
            list_len = picked_index + 1u;
            tokens_kept = picked_with.x;
        }
    }
    if (wanted > 0u) { return 0u; }
    if (by_count || by_mass || least > 0.0) { sum_slices(last); }
    return draw_from_slices(row, last);
}

// −∞ for −∞, and for all where +∞ is among the logits.
fn logprob(key: u32, total: f32) -> f32 {
    let infinite = key <= KEY_MINUS_INFINITY || best == 0xff800000u;
    return select((value(key) - top) - total, bitcast<f32>(MINUS_INFINITY), infinite);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) own_subgroup: u32,
    @builtin(subgroup_invocation_id) own_lane: u32,
    @builtin(subgroup_size) subgroup_size: u32,
) {
    subgroup = own_subgroup;
    lane = own_lane;
    lanes = subgroup_size;
    local = subgroup * lanes + lane;
    row_index = group.x;
    let row = rows[row_index];
    let top_at = row_index * MAX_LOGPROBS + local;
    if (local < MAX_LOGPROBS) {
        top_ids[top_at] = NONE;
        top_logprobs[top_at] = bitcast<f32>(MINUS_INFINITY);
    }
    let blocks = row_index * p.slices * ROW_WORDS_PER_SLICE + p.slices * SLICE_WORDS;
    var token = 0u;
    // First the token, then, by the raw logits, the logprobs.
    for (var raw = 0u; raw < 2u; raw++) {
        if (raw == 1u && row.logprobs == NONE) { break; }
        from_adjusted = raw == 0u && adjusts(row);
        blocks_at = blocks + raw * p.slices * SLICE_BLOCKS;
        factor = select(scale(row), 1.0, raw == 1u);
        merge(3u * raw);
        let any = best > KEY_MINUS_INFINITY;
        if (raw == 0u) {
            if (any) { token = atomicLoad(&best_id); }
            if (!any || !draws(row)) { continue; }
        }
        let total = merge_sums(3u * raw, 2u + 2u * raw);
        let log_total = log(float(total));
        if (raw == 1u && local == 0u) { out[row_index].y = bitcast<u32>(logprob(key(logits[row_index * p.vocab + token]), log_total)); }
        let wanted = min(row.logprobs, MAX_LOGPROBS) * raw;
        if (raw == 1u && (wanted == 0u || !any)) { break; }
        let chosen = choose(row, total, wanted);
        if (raw == 0u) {
            token = chosen;
        } else if (local < min(wanted, list_len)) {
            let at = list[local];
            top_ids[top_at] = at.y;
            top_logprobs[top_at] = logprob(best - at.x, log_total);
        }
    }
    if (local == 0u) {
        out[row_index].x = token;
        if (row.logprobs == NONE) { out[row_index].y = 0u; }
    }
}
