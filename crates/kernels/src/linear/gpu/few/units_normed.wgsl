// The loop over the units of a panel for a row that is made ready first: by `ready`, in another part, which has barriers.
// The first weights are on their way meanwhile.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let share = share_of(group);
    let early = joins(target_of(t, group, share), share);
    let kt = 1u << p.kt_shift;
    let panel = first_panel(group) + (t >> (2u + p.kt_shift));
    let first = min(panel, p.panels - 1u) * p.panel_stride;
    var unit = (t >> 2u) & (kt - 1u);
    var place = place_of(first, min(unit, p.steps - 1u), t & 3u);
    var raw = fetch_codes(place);
    var raw_scales = fetch_scales(place);
    ready(group, t);
    var acc: array<vec4<f32>, ROWS>;
    for (; unit < p.steps && panel < p.panels; unit += kt) {
        accumulate(raw, raw_scales, unit, share, &acc);
        place = place_of(first, min(unit + kt, p.steps - 1u), t & 3u);
        raw = fetch_codes(place);
        raw_scales = fetch_scales(place);
    }
    finish(t, group, share, early, &acc);
}
