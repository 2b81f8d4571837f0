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
