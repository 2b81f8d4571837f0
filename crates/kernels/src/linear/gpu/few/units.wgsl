// The loop over the units of a panel, for quantised weights. What is done with a unit is `accumulate`, in another part.
// One unit at a time: with enough workgroups at work, registers are worth more than loads ahead.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let share = share_of(group);
    let early = joins(target_of(t, group, share), share);
    let entry = t >> 2u;
    let panel = first_panel(group) + (entry >> p.kt_shift);
    let kt = 1u << p.kt_shift;
    var acc: array<vec4<f32>, ROWS>;
    if (share.live && panel < p.panels) {
        let first = share.expert * p.expert_stride + panel * p.panel_stride;
        for (var unit = entry & (kt - 1u); unit < p.steps; unit += kt) {
            let place = place_of(first, unit, t & 3u);
            let raw = fetch_codes(place);
            accumulate(raw, fetch_scales(place), unit, share, &acc);
        }
    }
    finish(t, group, share, early, &acc);
}
