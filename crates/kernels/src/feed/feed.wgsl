// ids[to[i]] = drawn[from[i]].token; entries that leave drawn or ids change nothing.
// drawn: (token u32, logprob f32) [draws]; from (sources), to (targets): u32 [n]; ids: u32 [ids].
// Launch: ceil(n / 64) workgroups of 64.

struct Params { draws: u32, ids: u32, n: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> drawn: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> sources: array<u32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) global: vec3<u32>) {
    if (global.x >= p.n) { return; }
    let draw = sources[global.x];
    let id = targets[global.x];
    if (draw < p.draws && id < p.ids) { ids[id] = drawn[draw].x; }
}
