// e8m0 scales: after the codes of a group, 16 exponents, a byte each.

struct Group { blocks: array<Block, BLOCKS>, scales: array<u32, 4> }
@group(0) @binding(0) var<storage, read> w: array<Group>;

alias RawScales = u32;
struct Scales { scale: vec4<f32>, bias: vec4<f32> }

fn fetch_scales(at: Place) -> RawScales { return w[at.group].scales[at.quad]; }

fn scales_of(raw: RawScales) -> Scales {
    let exponents = (vec4(raw) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu);
    // Exponent 0 reads as zero, 255 as infinity.
    let scale = bitcast<vec4<f32>>(exponents << vec4(23u));
    return Scales(scale * 0.5, scale * -6.0);
}
