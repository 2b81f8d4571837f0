// A unit times int8 rows; a row of two terms adds one after the other. Another part has the rows.

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
