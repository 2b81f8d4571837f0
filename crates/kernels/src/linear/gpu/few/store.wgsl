// What becomes of a product's sums: they are stored, or added to what is there.

// An output of this workgroup: of row `row` among its rows of out, in panel `within` among its panels.
struct Target { row: u32, within: u32, column: u32, at: u32, live: bool }

fn target_of(o: u32, group: vec3<u32>, share: Share) -> Target {
    let panels_shift = firstTrailingBit(THREADS / 4u) - p.kt_shift;
    var to: Target;
    to.row = o >> (4u + panels_shift);
    to.within = (o >> 4u) & ((1u << panels_shift) - 1u);
    to.column = (first_panel(group) + to.within) * 16u + (o & 15u);
    to.at = (share.out_row + to.row) * p.out + to.column;
    to.live = share.live && to.row <= share.last - share.first && to.row < ROWS && to.column < p.out;
    return to;
}

// What joins a product: its bias, and what out holds. Asked for before the weights, so that nobody waits for it.
fn joins(to: Target, share: Share) -> vec2<f32> {
    var values = vec2(0.0);
    if (to.live) {
        if ((p.flags & 1u) != 0u) { values.x = bias[share.expert * p.out + to.column]; }
        if ((p.flags & 2u) != 0u) { values.y = out[to.at]; }
    }
    return values;
}

// Adds up the sums of the threads and writes the result.
fn finish(t: u32, group: vec3<u32>, share: Share, early: vec2<f32>, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    // No loop over rows, here and elsewhere: a driver that leaves it one keeps the sums in memory.
    fold(t, 0u, acc);
    if (ROWS > 2u) { fold(t, 2u, acc); }
    if (ROWS > 4u) {
        fold(t, 4u, acc);
        fold(t, 6u, acc);
    }
    var values = early;
    for (var o = t; o < ROWS * ((4u * THREADS) >> p.kt_shift); o += THREADS) {
        let to = target_of(o, group, share);
        if (o != t) { values = joins(to, share); }
        let sum = sum_of(to.row, to.within, o & 15u);
        if (to.live) { out[to.at] = values.y + (sum + values.x); }
    }
}
