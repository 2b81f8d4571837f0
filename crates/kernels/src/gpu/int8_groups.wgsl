// What the threads that share an int8 group (`int8.wgsl`) tell each other. Thread `at` has columns `4 at .. 4 at + 3`, so
// neighbours have a group. Needs `const CELLS`: how many such fours the workgroup holds (of several that a thread has,
// each counts with an `at` of its own); a multiple of 16.
//
// In order: `put_peak`, a barrier, `peak_of`, `put_total`, a barrier, `total_of`.

var<workgroup> group_peaks: array<vec4<u32>, CELLS / 4u>;
var<workgroup> group_totals: array<vec4<i32>, CELLS / 4u>;

fn put_peak(at: u32, y: vec4<f32>) {
    group_peaks[at / 4u][at % 4u] = magnitude(y);
}

// The largest magnitude of the group that `at` is part of.
fn peak_of(at: u32, lanes: u32) -> u32 {
    let first = at / lanes * (lanes / 4u);
    var largest = max(group_peaks[first], group_peaks[first + 1u]);
    if (lanes == 16u) { largest = max(largest, max(group_peaks[first + 2u], group_peaks[first + 3u])); }
    return max(max(largest.x, largest.y), max(largest.z, largest.w));
}

fn put_total(at: u32, word: u32) {
    group_totals[at / 4u][at % 4u] = total_of_four(word);
}

// The sum of the codes of the group that `at` is part of.
fn total_of(at: u32, lanes: u32) -> i32 {
    let first = at / lanes * (lanes / 4u);
    var sum = group_totals[first] + group_totals[first + 1u];
    if (lanes == 16u) { sum += group_totals[first + 2u] + group_totals[first + 3u]; }
    return (sum.x + sum.y) + (sum.z + sum.w);
}
