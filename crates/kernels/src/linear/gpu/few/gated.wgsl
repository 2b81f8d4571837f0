// The first half of a layer of experts: out[slot][i] = act(gate) * up, of the products gate = x[slot / top_k] . W[ids[slot]][i]
// and up = x[slot / top_k] . W[ids[slot]][width + i], each with its bias.
// out: f32 [slots, width], width a multiple of 16; x as in `int8_rows.wgsl`; `panels` are those of the gate, the same
// number of panels of up follows; `out` is width.
// Launch: (slots; workgroups of panels folded into y and z) workgroups of 256.
//
// A thread takes the same unit of both matrices, so that its loads are on their way together. Another part says which expert
// a slot has, and begins.

fn multiply(group: vec3<u32>, t: u32) {
    let share = share_of(group);
    let entry = t >> 2u;
    let panel = first_panel(group) + (entry >> p.kt_shift);
    let kt = 1u << p.kt_shift;
    var gate: array<vec4<f32>, ROWS>;
    var up: array<vec4<f32>, ROWS>;
    if (share.live && panel < p.panels) {
        let first = share.expert * p.expert_stride + panel * p.panel_stride;
        let second = first + p.panels * p.panel_stride;
        for (var unit = entry & (kt - 1u); unit < p.steps; unit += kt) {
            let at = place_of(first, unit, t & 3u);
            let beside = place_of(second, unit, t & 3u);
            let gates = fetch_codes(at);
            let ups = fetch_codes(beside);
            let gate_scales = fetch_scales(at);
            let up_scales = fetch_scales(beside);
            accumulate(gates, gate_scales, unit, share, &gate);
            accumulate(ups, up_scales, unit, share, &up);
        }
    }
    var both = array<vec4<f32>, SUMS>(gate[0], up[0]);
    fold(t, 0u, &both);
    let column = (first_panel(group) + (t >> 4u)) * 16u + (t & 15u);
    if (t < ((4u * THREADS) >> p.kt_shift) && share.live && column < p.out) {
        var g = sum_of(0u, t >> 4u, t & 15u);
        var u = sum_of(1u, t >> 4u, t & 15u);
        if ((p.flags & 1u) != 0u) {
            let at = 2u * share.expert * p.out + column;
            g += bias[at];
            u += bias[at + p.out];
        }
        out[share.out_row * p.out + column] = gated(g, u, (p.flags & 16u) != 0u);
    }
}
