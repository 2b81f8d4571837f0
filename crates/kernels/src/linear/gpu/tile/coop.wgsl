// out = x · Wᵀ (+ bias) (+ out) for many rows, with cooperative matrices: factors f16, sums f32. A workgroup has a tile of TM
// rows and TN outputs, a subgroup WM × WN of it. Steps of 32 inputs go through workgroup memory, in two halves that take
// turns: while one is multiplied, the next step is unpacked into the other, and the one after that is asked for.
// Each sum has one order, inputs ascending by steps: it depends on its own row alone.
// w: packed panels; x: as prepare.wgsl leaves it, f16 [input_rows][steps * 32] with a factor for each row;
// out: f32 [rows][out], or [splits][rows][out] when the launch is PARTIAL.
// Launch: (tiles of rows, tiles of outputs, splits of the steps) workgroups of THREADS, in subgroups of 32.
// The generated part gives the types of the matrices and `clear`, `multiply` and `write_sums`; a part about weights gives Raw,
// `fetch` and `unpack`; a part about cells gives Cell, CELLS (cells of eight halves), `put_x` and `put_w`, and of the sums SumCell, SUM_FLOATS and
// `sum_at`.

@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> x: array<vec4<f16>>;
@group(0) @binding(6) var<storage, read> factors: array<f32>;

const STEP: u32 = 32u;
// Eights of inputs in a step.
const OCTETS: u32 = STEP / 8u;
// Rows of both factors are this many cells apart in workgroup memory: padded, against bank conflicts.
const PITCH: u32 = (OCTETS + 1u) * CELLS;
// Rows of sums on their way out are this many cells apart.
const SUM_PITCH: u32 = (SIZE + 4u) / SUM_FLOATS;
// Eights of x that a thread brings in a step, and fours of outputs.
const X_SHARE: u32 = (TM * OCTETS + THREADS - 1u) / THREADS;
const W_SHARE: u32 = (TN + THREADS - 1u) / THREADS;

// One struct, and the sums first: loads of matrices want 16 bytes of alignment, and an array of vec4<f16> by itself has 8.
struct Memory {
    // A matrix of sums for each subgroup.
    sums: array<SumCell, THREADS / 32u * SIZE * SUM_PITCH>,
    // [half][row][octet]
    x: array<Cell, 2u * TM * PITCH>,
    // [half][output][octet]
    w: array<Cell, 2u * TN * PITCH>,
}
var<workgroup> memory: Memory;

struct Octet { low: vec4<f16>, high: vec4<f16> }

// A matrix of sums at `row` and `column` of the tile goes out, out of this subgroup's sums.
fn write_out(wg: vec3<u32>, t: u32, expert: u32, row: u32, column: u32) {
    for (var i = t % 32u; i < SIZE * SIZE; i += 32u) {
        let tile_row = row + i / SIZE;
        let to = out_rows[tile_row];
        let output = wg.y * TN + column + i % SIZE;
        if (to != NONE && output < p.out) {
            var value = sum_at((t / 32u * SIZE + i / SIZE) * SUM_PITCH, i % SIZE) * factors[in_rows[tile_row]];
            if ((p.flags & PARTIAL) != 0u) {
                out[(wg.z * p.rows + to) * p.out + output] = value;
            } else {
                if ((p.flags & BIAS) != 0u) { value += bias[expert * p.out + output]; }
                let at = to * p.out + output;
                if ((p.flags & ADD) != 0u) { value = out[at] + value; }
                out[at] = value;
            }
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    let t = subgroup * 32u + lane;
    let expert = find_rows(wg.x, t);
    if (expert == NONE) { return; }
    let all_steps = (p.inp + STEP - 1u) / STEP;
    let first = wg.z * p.steps;
    let end = min(first + p.steps, all_steps);

    // Rows and outputs beyond the last take part with the numbers of another; their sums are not written.
    var x_at: array<u32, X_SHARE>;
    for (var i = 0u; i < X_SHARE; i++) {
        let octet = t + i * THREADS;
        let row = in_rows[min(octet / OCTETS, TM - 1u)];
        x_at[i] = (select(row, 0u, row == NONE) * all_steps * OCTETS + octet % OCTETS) * 2u;
    }
    var matrix: array<u32, W_SHARE>;
    for (var i = 0u; i < W_SHARE; i++) {
        let panel = wg.y * (TN / 16u) + (t + i * THREADS) / 16u;
        matrix[i] = expert * p.expert_stride + min(panel, (p.out - 1u) / 16u) * p.panel_stride;
    }
    let quad = t % 4u;
    let octet = t / 4u % 4u;

    var acc: array<Sum, MATRICES>;
    clear(&acc);
    var next_x: array<Octet, X_SHARE>;
    var next_w: array<Raw, W_SHARE>;
    for (var step = first; step < end + 2u; step++) {
        // Three steps are under way: `step` is asked for, `step - 1` unpacked, `step - 2` multiplied.
        let turn = (step - first) % 2u;
        if (step >= first + 2u) {
            multiply(&acc, (turn * TM + subgroup / ACROSS * WM) * PITCH, (turn * TN + subgroup % ACROSS * WN) * PITCH);
        }
        if (step > first && step <= end) {
            for (var i = 0u; i < X_SHARE; i++) {
                let at = t + i * THREADS;
                if (TM * OCTETS >= THREADS || at < TM * OCTETS) {
                    put_x(((1u - turn) * TM + at / OCTETS) * PITCH + at % OCTETS * CELLS, next_x[i]);
                }
            }
            for (var i = 0u; i < W_SHARE; i++) {
                let at = t + i * THREADS;
                if (TN >= THREADS || at < TN) {
                    let output = at / 16u * 16u + quad * 4u;
                    unpack(next_w[i], step - 1u, octet, quad, ((1u - turn) * TN + output) * PITCH + octet * CELLS);
                }
            }
        }
        if (step < end) {
            for (var i = 0u; i < X_SHARE; i++) {
                let at = x_at[i] + step * (OCTETS * 2u);
                next_x[i] = Octet(x[at], x[at + 1u]);
            }
            for (var i = 0u; i < W_SHARE; i++) { next_w[i] = fetch(matrix[i], step, octet, quad); }
        }
        workgroupBarrier();
    }
    write_sums(&acc, wg, t, subgroup, expert);
}
