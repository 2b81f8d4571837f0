// The share of a workgroup of THREADS: a quarter as many entries, so that many >> kt_shift panels, for ROWS rows of out.
//
// out[row] (+)= x[row] . W^T + bias, or with experts out[slot] = x[input(slot)] . W[ids[slot]]^T + bias[ids[slot]].
// Launch: (blocks of ROWS rows of codes, or slots; workgroups of panels folded into y and z).
// A prelude gives ROWS, rows of out that a workgroup takes, and TERMS, rows of codes that make a row of x.

@group(0) @binding(3) var<storage, read> order: array<u32>;

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
            share.expert = expert_of(slot);
            share.live = share.expert < p.experts;
        }
        share.out_row = slot;
        share.first = input;
        share.last = input;
    }
    return share;
}

fn first_panel(group: vec3<u32>) -> u32 {
    return (group.y + FOLD * group.z) * ((THREADS / 4u) >> p.kt_shift);
}

// Row r of x among those of this workgroup; the last one again where there is none.
fn input_row(share: Share, r: u32) -> u32 { return min(share.first + r, share.last); }
