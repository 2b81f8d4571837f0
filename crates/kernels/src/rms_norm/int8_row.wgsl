// x / sqrt(mean(x^2) + eps) * weight of a row, quantised to int8 in groups of 32 or 64 columns; with TERMS 2 also what
// that leaves over, to int8 again. By a workgroup of THREADS, 256 or more.
// Others give the row (`load_weights`, `load_rows`), its measures (`cells`, `lanes`, `eps`), and take what it becomes:
// `keep` the vectors, `put_word` four codes, `put_scale` and `put_sum` what is known of a group. dim is a multiple of the
// group, at most 4 THREADS HELD.
//
// The largest values of the groups are found while the squares are summed: the scale of the norm is one factor for all.

const CELLS: u32 = HELD * THREADS;

// Passes on the codes of a vector and, once a group, its scale. Gives what the codes leave over.
fn put_codes(row: u32, term: u32, cell: u32, y: vec4<f32>, peak: u32) -> vec4<f32> {
    let codes = codes_of(y, peak);
    put_word(row, term, cell, codes.word);
    put_total(cell, codes.word);
    if (cell % lanes() == 0u) { put_scale(row, term, cell / lanes(), scale_of(peak)); }
    return y - bitcast<f32>(scale_of(peak)) * codes.values;
}

fn put_sums(row: u32, term: u32, local: u32) {
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < cells() && cell % lanes() == 0u) { put_sum(row, term, cell / lanes(), total_of(cell, lanes())); }
    }
}

// Called once, by all threads. Has barriers, none behind the last `put_sum`.
fn normalise(row: u32, local: u32) {
    let weights = load_weights(local);
    var held: array<vec4<f32>, HELD>;
    load_rows(row, local, &held);
    let squares = squares_of(local, &held);
    for (var i = 0u; i < HELD; i++) {
        held[i] *= weights[i];
        put_peak(i * THREADS + local, held[i]);
    }
    let scale = inverseSqrt(workgroup_sum(local, squares) / f32(cells() * 4u) + eps());
    for (var i = 0u; i < HELD; i++) {
        let cell = i * THREADS + local;
        if (cell < cells()) {
            let peak = bitcast<u32>(bitcast<f32>(peak_of(cell, lanes())) * scale) & 0x7fffffffu;
            let y = held[i] * scale;
            keep(row, cell, y);
            held[i] = put_codes(row, 0u, cell, y, peak);
        }
    }
    workgroupBarrier();
    put_sums(row, 0u, local);
    if (TERMS == 2u) {
        for (var i = 0u; i < HELD; i++) { put_peak(i * THREADS + local, held[i]); }
        workgroupBarrier();
        for (var i = 0u; i < HELD; i++) {
            let cell = i * THREADS + local;
            if (cell < cells()) { put_codes(row, 1u, cell, held[i], peak_of(cell, lanes())); }
        }
        workgroupBarrier();
        put_sums(row, 1u, local);
    }
}
