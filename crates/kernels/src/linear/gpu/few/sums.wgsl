// What joins the sums of the threads of a workgroup. A prelude gives SUMS, the sums that a thread has.
//
// The order is the same for every SUMS and every device: eight neighbouring entries as a tree (`eight.wgsl`), then those
// sums one after the other.

const PAIR: u32 = min(SUMS, 2u);
const HALF: u32 = THREADS / 2u;
// Segments of eight entries.
const SEGMENTS: u32 = THREADS / 32u;

// [PAIR][entry][quad], then [SUMS][segment of eight entries][lane].
var<workgroup> parts: array<vec4<f32>, THREADS * PAIR>;
var<workgroup> segments: array<f32, HALF * SUMS>;

// Sums of eight neighbouring entries, as a tree, for sum r and the next.
fn fold(t: u32, r: u32, acc: ptr<function, array<vec4<f32>, SUMS>>) {
    parts[t] = (*acc)[r];
    if (PAIR == 2u) { parts[THREADS * (PAIR - 1u) + t] = (*acc)[r + 1u]; }
    workgroupBarrier();
    if (t < HALF * PAIR) {
        let c = t & 3u;
        let at = THREADS * (t / HALF) + ((t >> 4u) & (SEGMENTS - 1u)) * 32u + ((t >> 2u) & 3u);
        segments[HALF * r + t] = eight(at, c);
    }
    workgroupBarrier();
}

// Sum r of output `lane` of a panel, `within` among those of the workgroup. A panel has 2^(kt_shift - 3) segments. All are
// read at once: a loop of that length would wait for each.
fn sum_of(r: u32, within: u32, lane: u32) -> f32 {
    let count = 1u << (p.kt_shift - 3u);
    let first = HALF * r + lane;
    var sum = 0.0;
    for (var s = 0u; s < 8u; s++) {
        let v = segments[first + 16u * ((within * count + s) & (SEGMENTS - 1u))];
        sum += select(0.0, v, s < count);
    }
    return sum;
}
