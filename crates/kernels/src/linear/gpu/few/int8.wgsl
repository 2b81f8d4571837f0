// Quantised weights times int8 rows: per unit of 32 inputs, sum += row scale * (scale * dot + bias * sum of the codes), the
// dot product being an exact integer. The sum of a row's codes is that of its block; where a block has two units, each
// adds half.
// Another part has the rows: `row_codes`, `row_scale`, `row_sum`.

fn dots(c: vec4<u32>, x: u32) -> vec4<i32> {
    return vec4(dot4I8Packed(c.x, x), dot4I8Packed(c.y, x), dot4I8Packed(c.z, x), dot4I8Packed(c.w, x));
}

fn product(c: Codes, a: vec4<u32>, b: vec4<u32>) -> vec4<i32> {
    return dots(c.a[0], a.x) + dots(c.a[1], a.y) + dots(c.a[2], a.z) + dots(c.a[3], a.w)
        + dots(c.b[0], b.x) + dots(c.b[1], b.y) + dots(c.b[2], b.z) + dots(c.b[3], b.w);
}

fn flip(x: Vectors) -> Vectors {
    let m = vec4(0x80808080u);
    return Vectors(x[0] ^ m, x[1] ^ m, x[2] ^ m, x[3] ^ m);
}

// What a block of codes of a row adds to `sum`.
fn add_term(c: Codes, s: Scales, block: u32, part: u32, sum: vec4<f32>) -> vec4<f32> {
    let dot = vec4<f32>(product(c, row_codes(block, 0u, part), row_codes(block, 1u, part)));
    let total = f32(row_sum(block)) * (1.0 / f32(PARTS));
    return fma(fma(s.scale, dot, s.bias * total), vec4(row_scale(block)), sum);
}

// What is multiplied of a unit.
struct Unit { c: Codes, s: Scales }

fn unit_of(raw: Raw, raw_scales: RawScales) -> Unit {
    let c = unpack(raw);
    let s = scales_of(raw_scales);
    // Dot products take signed bytes: codes of 8 bits lose 128 here, which joins the bias.
    if (BITS == 8u) {
        return Unit(Codes(flip(c.a), flip(c.b)), Scales(s.scale, fma(s.scale, vec4(128.0), s.bias)));
    }
    return Unit(c, s);
}
