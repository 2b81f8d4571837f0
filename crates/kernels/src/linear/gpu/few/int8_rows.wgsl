// Int8 rows as they lie in memory; a row of two terms adds one after the other.
// codes: i8 [rows][TERMS][inp]; row_scales: f32 [rows][TERMS][inp / block]; row_sums: i32, likewise.

@group(0) @binding(5) var<storage, read> codes: array<array<array<vec4<u32>, PARTS>, 2>>;
@group(0) @binding(6) var<storage, read> row_scales: array<f32>;
@group(0) @binding(7) var<storage, read> row_sums: array<i32>;

fn row_codes(block: u32, half: u32, part: u32) -> vec4<u32> { return codes[block][half][part]; }
fn row_scale(block: u32) -> f32 { return row_scales[block]; }
fn row_sum(block: u32) -> i32 { return row_sums[block]; }

fn add_row(c: Codes, s: Scales, unit: u32, share: Share, r: u32, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    let blocks = p.steps / PARTS;
    let part = unit % PARTS;
    let block = input_row(share, r) * TERMS * blocks + unit / PARTS;
    (*acc)[r] = add_term(c, s, block, part, (*acc)[r]);
    if (TERMS == 2u) { (*acc)[r] = add_term(c, s, block + blocks, part, (*acc)[r]); }
}

fn accumulate(raw: Raw, raw_scales: RawScales, unit: u32, share: Share, acc: ptr<function, array<vec4<f32>, ROWS>>) {
    let u = unit_of(raw, raw_scales);
    add_row(u.c, u.s, unit, share, 0u, acc);
    if (ROWS > 1u) { add_row(u.c, u.s, unit, share, 1u, acc); }
    if (ROWS > 2u) {
        add_row(u.c, u.s, unit, share, 2u, acc);
        add_row(u.c, u.s, unit, share, 3u, acc);
    }
    if (ROWS > 4u) {
        add_row(u.c, u.s, unit, share, 4u, acc);
        add_row(u.c, u.s, unit, share, 5u, acc);
        add_row(u.c, u.s, unit, share, 6u, acc);
        add_row(u.c, u.s, unit, share, 7u, acc);
    }
}
