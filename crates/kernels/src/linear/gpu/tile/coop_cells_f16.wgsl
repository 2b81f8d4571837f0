// Workgroup memory in cells of one number: MSL loads matrices through pointers to their elements.
alias Cell = f16;
const CELLS: u32 = 8u;
alias SumCell = f32;
const SUM_FLOATS: u32 = 1u;

fn put_x(at: u32, octet: Octet) {
    for (var i = 0u; i < 4u; i++) {
        memory.x[at + i] = octet.low[i];
        memory.x[at + 4u + i] = octet.high[i];
    }
}

fn put_w(at: u32, octet: Octet) {
    for (var i = 0u; i < 4u; i++) {
        memory.w[at + i] = octet.low[i];
        memory.w[at + 4u + i] = octet.high[i];
    }
}

// Float `i` of the row at cell `row`.
fn sum_at(row: u32, i: u32) -> f32 { return memory.sums[row + i]; }
