// Quantised weights times f32 rows: per unit of 32 inputs, acc += scale * sum(x * code) + bias * sum(x).
// A code becomes a float without a conversion: it is put under the exponent of 2^23 (or 2^15), which is taken off again.
// Another part has the rows.

// Sums of a unit: of the products, and of the inputs.
struct Sums { products: array<vec4<f32>, ROWS>, inputs: array<vec4<f32>, ROWS> }

// Chunk i of half h of a unit.
struct Chunk { unit: u32, h: u32, i: u32 }

fn add_row(f: array<vec4<f32>, 4>, chunk: Chunk, share: Share, r: u32, sums: ptr<function, Sums>) {
    let block = input_row(share, r) * (p.steps / PARTS) + chunk.unit / PARTS;
    let v = row_values(block, chunk.h, chunk.unit % PARTS, chunk.i);
    let sum = (*sums).products[r];
    (*sums).products[r] = fma(vec4(v.w), f[3], fma(vec4(v.z), f[2], fma(vec4(v.y), f[1], fma(vec4(v.x), f[0], sum))));
    (*sums).inputs[r] += v;
}

// Four codes of four outputs times four inputs.
fn add_chunk(c: vec4<u32>, chunk: Chunk, share: Share, sums: ptr<function, Sums>) {
    let u = c >> vec4(16u);
    let even = vec4(0xffu);
    let odd = vec4(0xff00u);
    let f = array<vec4<f32>, 4>(
        bitcast<vec4<f32>>((c & even) | vec4(0x4b000000u)) - vec4(8388608.0),
        bitcast<vec4<f32>>((c & odd) | vec4(0x47000000u)) - vec4(32768.0),
        bitcast<vec4<f32>>((u & even) | vec4(0x4b000000u)) - vec4(8388608.0),
        bitcast<vec4<f32>>((u & odd) | vec4(0x47000000u)) - vec4(32768.0),
    );
    add_row(f, chunk, share, 0u, sums);
    if (ROWS > 1u) { add_row(f, chunk, share, 1u, sums); }
    if (ROWS > 2u) {
        add_row(f, chunk, share, 2u, sums);
        add_row(f, chunk, share, 3u, sums);
    }
}

fn scale_row(s: Scales, r: u32, sums: ptr<function, Sums>, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    let v = (*sums).inputs[r];
    let inputs = vec4((v.x + v.y) + (v.z + v.w));
    (*acc)[r] = fma(s.scale, (*sums).products[r], fma(s.bias, inputs, (*acc)[r]));
}

fn accumulate(raw: Raw, raw_scales: RawScales, unit: u32, share: Share, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    let c = unpack(raw);
    let s = scales_of(raw_scales);
    var sums: Sums;
    add_chunk(c.a[0], Chunk(unit, 0u, 0u), share, &sums);
    add_chunk(c.a[1], Chunk(unit, 0u, 1u), share, &sums);
    add_chunk(c.a[2], Chunk(unit, 0u, 2u), share, &sums);
    add_chunk(c.a[3], Chunk(unit, 0u, 3u), share, &sums);
    add_chunk(c.b[0], Chunk(unit, 1u, 0u), share, &sums);
    add_chunk(c.b[1], Chunk(unit, 1u, 1u), share, &sums);
    add_chunk(c.b[2], Chunk(unit, 1u, 2u), share, &sums);
    add_chunk(c.b[3], Chunk(unit, 1u, 3u), share, &sums);
    scale_row(s, 0u, &sums, acc);
    if (ROWS > 1u) { scale_row(s, 1u, &sums, acc); }
    if (ROWS > 2u) {
        scale_row(s, 2u, &sums, acc);
        scale_row(s, 3u, &sums, acc);
    }
}
