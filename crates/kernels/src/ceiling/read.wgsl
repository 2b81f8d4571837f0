// Reads a buffer once, as fast as the memory gives it.
// x: vec4<u32> [count]; out: u32 [1], written only when the bits of x xor to one certain value, so that nothing is
// left out. Launch: any number of workgroups of 256.

struct Params { count: u32, stride: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var a = vec4<u32>();
    var b = vec4<u32>();
    var c = vec4<u32>();
    var d = vec4<u32>();
    var i = id.x;
    while (i + 3u * p.stride < p.count) {
        a ^= x[i];
        b ^= x[i + p.stride];
        c ^= x[i + 2u * p.stride];
        d ^= x[i + 3u * p.stride];
        i += 4u * p.stride;
    }
    while (i < p.count) {
        a ^= x[i];
        i += p.stride;
    }
    let sum = a ^ b ^ c ^ d;
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x9e3779b9u) { out[0] = 1u; }
}
