// Quantised weights times int8 rows: per unit of 32 inputs, acc += row scale * (scale * dot + bias * sum), the dot product
// being an exact integer. The sum of a row's codes is that of its block; where a block has two units, each adds half.
// A row of two terms adds one after the other.
// codes: i8 [rows][TERMS][inp]; row_scales: f32 [rows][TERMS][inp / block]; row_sums: i32, likewise.

@group(0) @binding(5) var<storage, read> codes: array<array<array<vec4<u32>, PARTS>, 2>>;
@group(0) @binding(6) var<storage, read> row_scales: array<f32>;
@group(0) @binding(7) var<storage, read> row_sums: array<i32>;

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
    let dot = vec4<f32>(product(c, codes[block][0][part], codes[block][1][part]));
    let total = f32(row_sums[block]) * (1.0 / f32(PARTS));
    return fma(fma(s.scale, dot, s.bias * total), vec4(row_scales[block]), sum);
}

fn add_row(c: Codes, s: Scales, unit: u32, share: Share, r: u32, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    let blocks = p.steps / PARTS;
    let part = unit % PARTS;
    let block = input_row(share, r) * TERMS * blocks + unit / PARTS;
    (*acc)[r] = add_term(c, s, block, part, (*acc)[r]);
    if (TERMS == 2u) { (*acc)[r] = add_term(c, s, block + blocks, part, (*acc)[r]); }
}

fn accumulate(raw: Raw, raw_scales: RawScales, unit: u32, share: Share, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    var c = unpack(raw);
    var s = scales_of(raw_scales);
    if (BITS == 8u) {
        // Dot products take signed bytes: codes of 8 bits lose 128 here, which joins the bias.
        c = Codes(flip(c.a), flip(c.b));
        s.bias = fma(s.scale, vec4(128.0), s.bias);
    }
    add_row(c, s, unit, share, 0u, acc);
    if (ROWS > 1u) { add_row(c, s, unit, share, 1u, acc); }
    if (ROWS > 2u) {
        add_row(c, s, unit, share, 2u, acc);
        add_row(c, s, unit, share, 3u, acc);
    }
    if (ROWS > 4u) {
        add_row(c, s, unit, share, 4u, acc);
        add_row(c, s, unit, share, 5u, acc);
        add_row(c, s, unit, share, 6u, acc);
        add_row(c, s, unit, share, 7u, acc);
    }
}
