// Which row a workgroup of the split kernels works for. Needs row_seq and THREADS.

var<workgroup> lone_first: atomic<u32>;
var<workgroup> lone_count: atomic<u32>;
var<workgroup> lone: u32;

// The row of slot `slot`: itself, or, in a mixed launch, the only row of sequence `slot`; NOWHERE if it has none or
// several. The same for the whole workgroup, and so that compilers see it.
fn row_of(slot: u32, local: u32) -> u32 {
    if (p.mixed == 1u) {
        if (local == 0u) {
            atomicStore(&lone_first, NOWHERE);
            atomicStore(&lone_count, 0u);
        }
        workgroupBarrier();
        for (var row = local; row < p.rows; row += THREADS) {
            if (row_seq[row] == slot) {
                atomicMin(&lone_first, row);
                atomicAdd(&lone_count, 1u);
            }
        }
        workgroupBarrier();
        if (local == 0u) { lone = select(NOWHERE, atomicLoad(&lone_first), atomicLoad(&lone_count) == 1u); }
    }
    return select(slot, workgroupUniformLoad(&lone), p.mixed == 1u);
}
