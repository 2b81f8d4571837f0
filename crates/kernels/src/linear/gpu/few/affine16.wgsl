// Scales and biases of affine weights in 16 bits: after the codes of a group, 16 scales and then 16 biases.

struct Group { blocks: array<Block, BLOCKS>, scales: array<vec2<u32>, 4>, biases: array<vec2<u32>, 4> }
@group(0) @binding(0) var<storage, read> w: array<Group>;

struct RawScales { scale: vec2<u32>, bias: vec2<u32> }
struct Scales { scale: vec4<f32>, bias: vec4<f32> }

fn fetch_scales(at: Place) -> RawScales {
    return RawScales(w[at.group].scales[at.quad], w[at.group].biases[at.quad]);
}

fn values(raw: vec2<u32>) -> vec4<f32> {
    if (p.scale_type == 2u) {
        return bitcast<vec4<f32>>(vec4(raw.x << 16u, raw.x & 0xffff0000u, raw.y << 16u, raw.y & 0xffff0000u));
    }
    return vec4(unpack2x16float(raw.x), unpack2x16float(raw.y));
}

fn scales_of(raw: RawScales) -> Scales { return Scales(values(raw.scale), values(raw.bias)); }
