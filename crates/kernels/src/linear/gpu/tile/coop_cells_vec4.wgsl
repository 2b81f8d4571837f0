// Workgroup memory in cells of four: eight halves are stored in two.
alias Cell = vec4<f16>;
const CELLS: u32 = 2u;
alias SumCell = vec4<f32>;
const SUM_FLOATS: u32 = 4u;

fn put_x(at: u32, octet: Octet) {
    memory.x[at] = octet.low;
    memory.x[at + 1u] = octet.high;
}

fn put_w(at: u32, octet: Octet) {
    memory.w[at] = octet.low;
    memory.w[at + 1u] = octet.high;
}

// Float `i` of the row at cell `row`.
fn sum_at(row: u32, i: u32) -> f32 { return memory.sums[row + i / 4u][i % 4u]; }
