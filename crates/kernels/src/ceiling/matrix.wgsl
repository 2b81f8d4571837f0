// Multiplies cooperative matrices that stay in registers: the rate of the matrix units, f16 factors and f32 sums.
// factors: f16, at least SIZE * SIZE; out: f32 [SIZE * SIZE] for each subgroup.
// Launch: any number of workgroups of 8 subgroups. SUMS products of SIZE³ a turn.

struct Params { turns: u32, unused: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> factors: array<f16>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = (group.x * 8u + local / 32u) * SIZE * SIZE;
    let left = coopLoadT<LEFT>(&factors[0], SIZE);
    let right = coopLoadT<RIGHT>(&factors[0], SIZE);
    var a = coopLoadT<SUM>(&out[at], SIZE);
    var b = a;
    var c = a;
    var d = a;
    for (var turn = 0u; turn < p.turns; turn++) {
        a = coopMultiplyAdd(left, right, a);
        b = coopMultiplyAdd(left, right, b);
        c = coopMultiplyAdd(left, right, c);
        d = coopMultiplyAdd(left, right, d);
    }
    a = a + b;
    c = c + d;
    a = a + c;
    coopStoreT(a, &out[at], SIZE);
}
