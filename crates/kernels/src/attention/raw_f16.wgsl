// What a cache of half floats has for a number, in the lower half.
fn bits_of(x: f32) -> u32 { return pack2x16float(vec2(f32(narrow(x)), 0.0)); }
fn of_bits(bits: u32) -> f32 { return unpack2x16float(bits).x; }

// Four numbers as the cache has them.
fn raw_of(x: vec4<f32>) -> Raw {
    return vec2(bits_of(x.x) | bits_of(x.y) << 16u, bits_of(x.z) | bits_of(x.w) << 16u);
}

// Another one in place of one of four; the others stay what they are, numbers or not.
fn replaced(raw: Raw, bits: u32, at: u32) -> Raw {
    let shift = at % 2u * 16u;
    let word = select(raw.x, raw.y, at >= 2u) & ~(0xffffu << shift) | bits << shift;
    return select(vec2(word, raw.y), vec2(raw.x, word), at >= 2u);
}
