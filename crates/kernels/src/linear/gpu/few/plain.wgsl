// Unquantised weights times f32 rows: acc = fma(x[k], w[k], acc), a thread's inputs ascending.
// w: [inp][16] a panel, four outputs a load; x: f32 [rows][inp].
// A prelude gives the alias Packed (vec4<u32> for f32, vec2<u32> for 16-bit weights) and BF16.

@group(0) @binding(0) var<storage, read> w: array<Packed>;
@group(0) @binding(5) var<storage, read> x: array<f32>;

// Loads on their way at once: few rows leave registers for more.
const UNROLL: u32 = select(8u, 16u, ROWS <= 2u);

fn add_row(v: vec4<f32>, k: u32, share: Share, r: u32, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    (*acc)[r] = fma(vec4(x[input_row(share, r) * p.steps + k]), v, (*acc)[r]);
}

fn accumulate(v: vec4<f32>, k: u32, share: Share, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    add_row(v, k, share, 0u, acc);
    if (ROWS > 1u) { add_row(v, k, share, 1u, acc); }
    if (ROWS > 2u) {
        add_row(v, k, share, 2u, acc);
        add_row(v, k, share, 3u, acc);
    }
    if (ROWS > 4u) {
        add_row(v, k, share, 4u, acc);
        add_row(v, k, share, 5u, acc);
        add_row(v, k, share, 6u, acc);
        add_row(v, k, share, 7u, acc);
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let share = share_of(group);
    let early = joins(target_of(t, group, share), share);
    let entry = t >> 2u;
    let panel = first_panel(group) + (entry >> p.kt_shift);
    let kt = 1u << p.kt_shift;
    var acc: array<vec4<f32>, ROWS>;
    if (share.live && panel < p.panels) {
        let first = share.expert * p.expert_stride + panel * p.panel_stride + (t & 3u);
        var k = entry & (kt - 1u);
        for (; k + (UNROLL - 1u) * kt < p.steps; k += UNROLL * kt) {
            var raw: array<Packed, UNROLL>;
            for (var i = 0u; i < UNROLL; i++) { raw[i] = w[first + 4u * (k + i * kt)]; }
            for (var i = 0u; i < UNROLL; i++) { accumulate(widen(raw[i]), k + i * kt, share, &acc); }
        }
        for (; k < p.steps; k += kt) { accumulate(widen(w[first + 4u * k]), k, share, &acc); }
    }
    finish(t, group, share, early, &acc);
}
