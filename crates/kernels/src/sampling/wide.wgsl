// Numbers of 64 bits as pairs (low, high), weights as such numbers, and random ones.
//
// Weights are summed as integers: in any order the sum is the same, so it may be split over threads as one likes.

// The carry of a + b = low, made of their bits. `low < a`, the usual way, came out wrong here and there where NVIDIA's
// compiler (driver 580) had merged several additions.
fn carry(a: u32, b: u32, low: u32) -> u32 { return ((a & b) | ((a | b) & ~low)) >> 31u; }

fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + carry(a.x, b.x, low));
}

// Where b ≤ a.
fn sub64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> { return add64(add64(a, ~b), vec2(1u, 0u)); }

fn less64(a: vec2<u32>, b: vec2<u32>) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }

fn multiply(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return vec2((other << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u));
}

// a · fraction / 2^64, rounded down.
fn share64(a: vec2<u32>, fraction: vec2<u32>) -> vec2<u32> {
    let middle = add64(multiply(a.x, fraction.y), vec2(multiply(a.x, fraction.x).y, 0u));
    let other = add64(multiply(a.y, fraction.x), vec2(middle.x, 0u));
    return add64(multiply(a.y, fraction.y), add64(vec2(middle.y, 0u), vec2(other.y, 0u)));
}

// x · 2^44, for x from 0 to 2^17.
fn fixed(x: f32) -> vec2<u32> {
    let high = floor(x * 4096.0);
    return vec2(u32((x * 4096.0 - high) * 4294967296.0), u32(high));
}

// x / 2^44.
fn float(x: vec2<u32>) -> f32 { return (f32(x.y) + f32(x.x) * 2.3283064e-10) * 0.00024414062; }

// Philox 4×32 with 10 rounds: 53 random bits as the upper bits of a fraction of 2^64.
fn uniform_bits(row: Row) -> vec2<u32> {
    var counter = vec4(row.step, 0u, 0u, 0u);
    var round_key = vec2(row.seed_low, row.seed_high);
    for (var i = 0u; i < 10u; i++) {
        let a = multiply(counter.x, 0xd2511f53u);
        let b = multiply(counter.z, 0xcd9e8d57u);
        counter = vec4(b.y ^ counter.y ^ round_key.x, b.x, a.y ^ counter.w ^ round_key.y, a.x);
        round_key += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return vec2(counter.x & 0xfffff800u, counter.y);
}
