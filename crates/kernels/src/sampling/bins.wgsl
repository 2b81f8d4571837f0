// Histograms of tokens and their weights.

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
