// Scales and biases of affine weights in 32 bits: after the codes of a group, 16 scales and then 16 biases.

struct Group { blocks: array<Block, BLOCKS>, scales: array<vec4<f32>, 4>, biases: array<vec4<f32>, 4> }
@group(0) @binding(0) var<storage, read> w: array<Group>;

struct Scales { scale: vec4<f32>, bias: vec4<f32> }
alias RawScales = Scales;

fn fetch_scales(at: Place) -> RawScales {
    return Scales(w[at.group].scales[at.quad], w[at.group].biases[at.quad]);
}

fn scales_of(raw: RawScales) -> Scales { return raw; }
