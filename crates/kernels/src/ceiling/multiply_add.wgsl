// Multiplies and adds f32 numbers in registers: the rate of the plain arithmetic units.
// factors: f32 [2]; out: f32 [threads]. Launch: any number of workgroups of 256. 32 multiplications a thread and turn.

struct Params { turns: u32, unused: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> factors: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = vec4<f32>(factors[0]);
    let term = vec4<f32>(factors[1]);
    var a = vec4<f32>(f32(id.x & 3u));
    var b = a + 1.0;
    var c = a + 2.0;
    var d = a + 3.0;
    for (var turn = 0u; turn < p.turns; turn++) {
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        c = fma(c, factor, term);
        d = fma(d, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        c = fma(c, factor, term);
        d = fma(d, factor, term);
    }
    let sum = a + b + c + d;
    out[id.x] = sum.x + sum.y + sum.z + sum.w;
}
