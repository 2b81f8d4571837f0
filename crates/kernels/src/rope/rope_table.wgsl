// For each row, rot / 2 cosines and then rot / 2 sines of position * inv_freq, times a factor.
// positions: u32 [rows]; inv_freq: f32 [rot / 2]; out: f32 [rows, rot].
// Launch: `by_rows(ceil(rot / 2 / 64), rows)` workgroups of 64; a thread has one angle.
//
// Angles are reduced in integers: large positions lose nothing, on any device and however it rounds. The error is a
// few units in the last place of 1.

struct Params { rows: u32, half: u32, factor: f32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> positions: array<u32>;
@group(0) @binding(1) var<storage, read> inv_freq: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

// The upper half of a * b.
fn upper_product(a: u32, b: u32) -> u32 {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let low = ah * bl + ((al * bl) >> 16u);
    let high = al * bh + (low & 0xffffu);
    return ah * bh + (low >> 16u) + (high >> 16u);
}

// 1 / (2 pi) as a binary fraction, times 2^exponent; its first 64 binary places, as two words. -31 <= exponent <= 31.
fn turns(exponent: i32) -> vec2<u32> {
    let words = vec3<u32>(0x28be60dbu, 0x9391054au, 0x7f09d5f4u);
    if (exponent > 0) {
        let n = u32(exponent);
        return vec2<u32>((words.x << n) | (words.y >> (32u - n)), (words.y << n) | (words.z >> (32u - n)));
    }
    if (exponent < 0) {
        let n = u32(-exponent);
        return vec2<u32>(words.x >> n, (words.x << (32u - n)) | (words.y >> n));
    }
    return words.xy;
}

// Cosine and sine of an angle from 0 to below 2^54.
fn cos_sin(angle: f32) -> vec2<f32> {
    var r = angle;
    var quadrant = 0u;
    if (angle > 0.5) {
        // angle = mantissa * 2^exponent; of its turns only the fraction counts, to 32 binary places.
        let bits = bitcast<u32>(angle);
        let mantissa = (bits & 0x7fffffu) | 0x800000u;
        let turn = turns(i32(bits >> 23u) - 150);
        let fraction = mantissa * turn.x + upper_product(mantissa, turn.y);
        quadrant = (fraction + 0x20000000u) >> 30u;
        r = f32(bitcast<i32>(fraction - (quadrant << 30u))) * 1.4629180792671596e-9; // 2 pi / 2^32
    }
    // Taylor series; with |r| <= pi / 4 the first terms left out are below 2e-9 and 3e-8.
    let r2 = r * r;
    let s = r + r * r2 * (-0.16666667 + r2 * (0.008333334 + r2 * (-1.9841270e-4 + r2 * 2.7557319e-6)));
    let c = 1.0 + r2 * (-0.5 + r2 * (0.041666668 + r2 * (-0.0013888889 + r2 * 2.4801587e-5)));
    switch (quadrant & 3u) {
        case 0u: { return vec2<f32>(c, s); }
        case 1u: { return vec2<f32>(-s, c); }
        case 2u: { return vec2<f32>(-c, -s); }
        default: { return vec2<f32>(s, -c); }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = row_of(group);
    let col = group.x * 64u + local;
    if (row >= p.rows || col >= p.half) { return; }
    let value = cos_sin(f32(positions[row]) * inv_freq[col]) * p.factor;
    out[row * 2u * p.half + col] = value.x;
    out[row * 2u * p.half + p.half + col] = value.y;
}
