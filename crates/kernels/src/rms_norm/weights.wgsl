// The weights of a norm. A thread keeps HELD vectors of them, and of the row, in registers.
// weight: f32 [dim]. A prelude gives WEIGHT, its binding.

@group(0) @binding(WEIGHT) var<storage, read> weight: array<vec4<f32>>;

fn load_weights(local: u32) -> array<vec4<f32>, HELD> {
    var weights: array<vec4<f32>, HELD>;
    for (var i = 0u; i < HELD; i++) { weights[i] = weight[min(i * THREADS + local, cells() - 1u)]; }
    return weights;
}
