// As `gpu/int8_groups.wgsl`, in the memory of the scores, which nobody reads any more: there is no room beside it. Bits
// and sums stand there as f32; a sum of 64 codes is one without rounding.

const TOTALS_AT: u32 = HEADS * FOURS / 4u;

fn put_peak(at: u32, y: vec4<f32>) {
    memory.scores[at / 4u][at % 4u] = bitcast<f32>(magnitude(y));
}

fn peak_of(at: u32, lanes: u32) -> u32 {
    let first = at / lanes * (lanes / 4u);
    var largest = vec4(0u);
    for (var i = 0u; i < lanes / 4u; i++) { largest = max(largest, bitcast<vec4<u32>>(memory.scores[first + i])); }
    return max(max(largest.x, largest.y), max(largest.z, largest.w));
}

fn put_total(at: u32, codes: vec4<i32>) {
    memory.scores[TOTALS_AT + at / 4u][at % 4u] = f32(codes.x + codes.y + codes.z + codes.w);
}

fn total_of(at: u32, lanes: u32) -> i32 {
    let first = TOTALS_AT + at / lanes * (lanes / 4u);
    var sum = vec4(0.0);
    for (var i = 0u; i < lanes / 4u; i++) { sum += memory.scores[first + i]; }
    return i32((sum.x + sum.y) + (sum.z + sum.w));
}
