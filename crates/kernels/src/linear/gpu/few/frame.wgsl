// Frame of the products of few rows: parameters, the share of a workgroup, and what joins the sums of its threads.
//
// out[row] (+)= x[row] . W^T + bias, or with experts out[slot] = x[input(slot)] . W[ids[slot]]^T + bias[ids[slot]].
// Weights lie in panels of 16 outputs (see layout.rs). A workgroup has 256 threads: 4 quads (four outputs each) times
// 64 entries. 2^kt_shift entries share the inputs of one panel, so a workgroup works on 64 >> kt_shift panels.
// Launch: (blocks of ROWS rows of codes, or slots; workgroups of panels folded into y and z).
// A prelude gives ROWS, rows of out that a workgroup takes, and TERMS, rows of codes that make a row of x.

struct Params {
    // Steps of the sum over the inputs: units of 32 inputs, or single inputs of plain weights.
    steps: u32,
    panels: u32,
    // Elements of w from panel to panel and from matrix to matrix: groups, or quads of plain weights.
    panel_stride: u32,
    expert_stride: u32,
    kt_shift: u32,
    scale_type: u32,
    out: u32,
    // Rows of out, and of x.
    rows: u32,
    input_rows: u32,
    // 1: bias, 2: add, 4: experts, 8: slots in the order of `order`.
    flags: u32,
    experts: u32,
    // Slots that read one row; 0 when each reads its own.
    top_k: u32,
}
var<immediate> p: Params;

@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const FOLD: u32 = 32768u;
const PAIR: u32 = min(ROWS, 2u);

// [PAIR][entry][quad], then [ROWS][segment of eight entries][lane].
var<workgroup> parts: array<vec4<f32>, 256u * PAIR>;
var<workgroup> segments: array<f32, 128u * ROWS>;

struct Share {
    // First row of out, first and last row of x.
    out_row: u32,
    first: u32,
    last: u32,
    expert: u32,
    live: bool,
}

fn share_of(group: vec3<u32>) -> Share {
    var share: Share;
    share.expert = 0u;
    share.live = true;
    if ((p.flags & 4u) == 0u) {
        share.out_row = group.x * ROWS;
        share.first = share.out_row;
        share.last = p.rows - 1u;
    } else {
        var slot = group.x;
        if ((p.flags & 8u) != 0u) { slot = order[slot]; }
        var input = slot;
        if (p.top_k > 0u) { input = slot / p.top_k; }
        share.live = slot < p.rows && input < p.input_rows;
        if (share.live) {
            share.expert = ids[slot];
            share.live = share.expert < p.experts;
        }
        share.out_row = slot;
        share.first = input;
        share.last = input;
    }
    return share;
}

fn first_panel(group: vec3<u32>) -> u32 {
    return (group.y + FOLD * group.z) * (64u >> p.kt_shift);
}

// Row r of x among those of this workgroup; the last one again where there is none.
fn input_row(share: Share, r: u32) -> u32 { return min(share.first + r, share.last); }

// An output of this workgroup: of row `row` among its rows of out, in panel `within` among its panels.
struct Target { row: u32, within: u32, column: u32, at: u32, live: bool }

fn target_of(o: u32, group: vec3<u32>, share: Share) -> Target {
    let panels_shift = 6u - p.kt_shift;
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

// Sums of eight neighbouring entries, as a tree, for row r and the next.
fn fold(t: u32, r: u32, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    parts[t] = (*acc)[r];
    if (PAIR == 2u) { parts[256u * (PAIR - 1u) + t] = (*acc)[r + 1u]; }
    workgroupBarrier();
    if (t < 128u * PAIR) {
        let c = t & 3u;
        let at = 256u * (t >> 7u) + ((t >> 4u) & 7u) * 32u + ((t >> 2u) & 3u);
        let low = (parts[at][c] + parts[at + 4u][c]) + (parts[at + 8u][c] + parts[at + 12u][c]);
        let high = (parts[at + 16u][c] + parts[at + 20u][c]) + (parts[at + 24u][c] + parts[at + 28u][c]);
        segments[128u * r + t] = low + high;
    }
    workgroupBarrier();
}

// Adds up the sums of the threads and writes the result. The order is the same for every ROWS and every device: eight
// neighbouring entries as a tree, then those sums one after the other.
fn finish(t: u32, group: vec3<u32>, share: Share, early: vec2<f32>, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    // No loop over rows, here and elsewhere: a driver that leaves it one keeps the sums in memory.
    fold(t, 0u, acc);
    if (ROWS > 2u) { fold(t, 2u, acc); }
    if (ROWS > 4u) {
        fold(t, 4u, acc);
        fold(t, 6u, acc);
    }
    // A panel has 2^(kt_shift - 3) segments. All are read at once: a loop of that length would wait for each.
    let count = 1u << (p.kt_shift - 3u);
    var values = early;
    for (var o = t; o < ROWS * (1024u >> p.kt_shift); o += 256u) {
        let to = target_of(o, group, share);
        if (o != t) { values = joins(to, share); }
        let first = 128u * to.row + (o & 15u);
        var sum = 0.0;
        for (var s = 0u; s < 8u; s++) {
            let v = segments[first + 16u * ((to.within * count + s) & 7u)];
            sum += select(0.0, v, s < count);
        }
        if (to.live) { out[to.at] = values.y + (sum + values.x); }
    }
}
