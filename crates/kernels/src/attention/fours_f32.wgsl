// Four elements of a cache of f32.

// As the cache has them.
alias Raw = vec4<f32>;

fn widen(raw: Raw) -> vec4<f32> { return raw; }

// Four `at` of the keys: feature at / 4 counted through the cache, for four positions. Zeros unless `held`.
fn key_four(at: u32, held: bool) -> Raw {
    return select(vec4(0.0), keys[select(0u, at, held)], held);
}
