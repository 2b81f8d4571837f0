// The second half of a layer of experts: out[row] += sum over j of shares[row][j] * (x[row][j] . W[ids[row][j]]^T + bias), j
// ascending, x going through int8. What has no expert adds nothing.
// x: f32 [rows, top_k, inp], top_k * inp <= CAPACITY; ids: u32 and shares: f32 [rows, top_k]; out: f32 [rows, out].
// Launch: (rows; panels folded into y and z) workgroups of THREADS, a multiple of 256.
//
// A workgroup has one panel and all choices of a row, THREADS / 4 >> kt_shift of them at once. It quantises the row for
// itself: that costs less than a launch that does it for everybody. Its first weights are asked for before that.
// A prelude gives THREADS and CAPACITY.

@group(0) @binding(3) var<storage, read> shares: array<f32>;
@group(0) @binding(5) var<storage, read> x: array<vec4<f32>>;

// Sixteen columns a vector, and what is known of them, four such chunks a vector.
var<workgroup> codes: array<vec4<u32>, CAPACITY / 16u>;
var<workgroup> peaks: array<vec4<u32>, CAPACITY / 64u>;
var<workgroup> totals: array<vec4<i32>, CAPACITY / 64u>;

// Chunks of a block of columns: 2 or 4.
const CHUNKS_OF_BLOCK: u32 = 2u * PARTS;
// Chunks that a thread quantises at most.
const EACH: u32 = (CAPACITY / 16u + THREADS - 1u) / THREADS;

fn row_codes(block: u32, half: u32, part: u32) -> vec4<u32> { return codes[block * CHUNKS_OF_BLOCK + half * PARTS + part]; }

fn peak_of(block: u32) -> u32 {
    if (PARTS == 1u) {
        let v = peaks[block >> 1u];
        return select(max(v.x, v.y), max(v.z, v.w), (block & 1u) == 1u);
    }
    let v = peaks[block];
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn row_scale(block: u32) -> f32 { return bitcast<f32>(scale_of(peak_of(block))); }

fn row_sum(block: u32) -> i32 {
    if (PARTS == 1u) {
        let v = totals[block >> 1u];
        return select(v.x + v.y, v.z + v.w, (block & 1u) == 1u);
    }
    let v = totals[block];
    return (v.x + v.y) + (v.z + v.w);
}

// Called once, by all threads. Has barriers.
fn quantise(row: u32, t: u32) {
    let chunks = p.top_k * p.steps * 2u;
    var y: array<array<vec4<f32>, 4>, EACH>;
    for (var i = 0u; i < EACH; i++) {
        let chunk = t + i * THREADS;
        if (chunk < chunks) {
            let at = (row * chunks + chunk) * 4u;
            y[i] = array<vec4<f32>, 4>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
            let low = max(magnitude(y[i][0]), magnitude(y[i][1]));
            peaks[chunk >> 2u][chunk & 3u] = max(low, max(magnitude(y[i][2]), magnitude(y[i][3])));
        }
    }
    workgroupBarrier();
    for (var i = 0u; i < EACH; i++) {
        let chunk = t + i * THREADS;
        if (chunk < chunks) {
            let peak = peak_of(chunk / CHUNKS_OF_BLOCK);
            let a = codes_of(y[i][0], peak);
            let b = codes_of(y[i][1], peak);
            let c = codes_of(y[i][2], peak);
            let d = codes_of(y[i][3], peak);
            codes[chunk] = vec4(a.word, b.word, c.word, d.word);
            totals[chunk >> 2u][chunk & 3u] =
                (total_of_four(a.word) + total_of_four(b.word)) + (total_of_four(c.word) + total_of_four(d.word));
        }
    }
    workgroupBarrier();
}

// What a thread has asked for: its unit of choice j.
struct Asked { codes: Raw, scales: RawScales, live: bool }

fn ask(row: u32, j: u32, panel: u32, unit: u32, quad: u32) -> Asked {
    let expert = ids[row * p.top_k + min(j, p.top_k - 1u)];
    let first = min(expert, p.experts - 1u) * p.expert_stride + panel * p.panel_stride;
    let at = place_of(first, min(unit, p.steps - 1u), quad);
    return Asked(fetch_codes(at), fetch_scales(at), j < p.top_k && expert < p.experts && unit < p.steps);
}

// Choices of a row at most: the fewest columns of one are 32.
const MOST_CHOICES: u32 = CAPACITY / 32u;
var<workgroup> row_ids: array<u32, MOST_CHOICES>;
var<workgroup> row_shares: array<f32, MOST_CHOICES>;

// [choice][entry][quad], then [choice][segment of eight entries][lane].
var<workgroup> parts: array<vec4<f32>, THREADS>;
var<workgroup> segments: array<f32, THREADS / 2u>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = group.x;
    let panel = group.y + FOLD * group.z;
    if (row >= p.rows || panel >= p.panels) { return; }
    let kt = 1u << p.kt_shift;
    let entry = (t >> 2u) & (kt - 1u);
    let own = t >> (2u + p.kt_shift);
    let at_once = (THREADS >> 2u) >> p.kt_shift;
    var asked = ask(row, own, panel, entry, t & 3u);
    let column = panel * 16u + (t & 15u);
    let writes = t < 16u && column < p.out;
    var total = 0.0;
    if (writes) { total = out[row * p.out + column]; }
    if (t < p.top_k) {
        row_ids[t] = ids[row * p.top_k + t];
        row_shares[t] = shares[row * p.top_k + t];
    }
    quantise(row, t);

    let count = kt >> 3u;
    for (var base = 0u; base < p.top_k; base += at_once) {
        let j = base + own;
        var acc = vec4(0.0);
        for (var unit = entry; unit < p.steps; unit += kt) {
            let u = unit_of(asked.codes, asked.scales);
            let block = j * (p.steps / PARTS) + unit / PARTS;
            if (asked.live) { acc = add_term(u.c, u.s, block, unit % PARTS, acc); }
            // The next unit, of this choice or of the next one.
            let more = unit + kt < p.steps;
            asked = ask(row, select(j + at_once, j, more), panel, select(entry, unit + kt, more), t & 3u);
        }
        // As in `sums.wgsl`: eight neighbouring entries as a tree, then those sums one after the other.
        parts[t] = acc;
        workgroupBarrier();
        if (t < THREADS / 2u) { segments[t] = eight((t >> 4u) * 32u + ((t >> 2u) & 3u), t & 3u); }
        workgroupBarrier();
        if (writes) {
            for (var i = 0u; i < min(at_once, p.top_k - base); i++) {
                let expert = row_ids[base + i];
                if (expert < p.experts) {
                    var sum = 0.0;
                    for (var s = 0u; s < count; s++) { sum += segments[16u * (i * count + s) + t]; }
                    if ((p.flags & 1u) != 0u) { sum += bias[expert * p.out + column]; }
                    total = fma(sum, row_shares[base + i], total);
                }
            }
        }
    }
    if (writes) { out[row * p.out + column] = total; }
}
