// What a cache of f32 has for a number.
fn bits_of(x: f32) -> u32 { return bitcast<u32>(x); }
fn of_bits(bits: u32) -> f32 { return bitcast<f32>(bits); }

// Four numbers as the cache has them.
fn raw_of(x: vec4<f32>) -> Raw { return x; }

// Another one in place of one of four.
fn replaced(raw: Raw, bits: u32, at: u32) -> Raw {
    return select(raw, vec4(of_bits(bits)), vec4(at) == vec4(0u, 1u, 2u, 3u));
}
