// Four elements of a cache of half floats.

// As the cache has them.
alias Raw = vec2<u32>;

fn widen(raw: Raw) -> vec4<f32> { return vec4(unpack2x16float(raw.x), unpack2x16float(raw.y)); }

// Four `at` of the keys: feature at / 4 counted through the cache, for four positions. Zeros unless `held`.
fn key_four(at: u32, held: bool) -> Raw {
    return select(vec2(0u), keys[select(0u, at, held)], held);
}
