// Rows of int8: codes i8 [rows * terms][inp], four to a word; scales f32 [rows * terms][inp / block].
// The terms of a row are added up.
@group(0) @binding(5) var<storage, read> codes: array<u32>;
@group(0) @binding(6) var<storage, read> row_scales: array<f32>;

const BLOCK: u32 = 4u * CHUNKS;

fn term4(row: u32, k: u32) -> vec4<f32> {
    let scale = row_scales[row * (p.inp / BLOCK) + k / BLOCK];
    return scale * vec4<f32>(unpack4xI8(codes[(row * p.inp + k) / 4u]));
}

fn row4(row: u32, k: u32) -> vec4<f32> {
    var value = term4(row * p.terms, k);
    if (p.terms == 2u) { value += term4(row * 2u + 1u, k); }
    return value;
}
