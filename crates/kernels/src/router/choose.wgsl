// The experts of each row: `choose_row.wgsl`, row by row.
// ids: u32 [rows, top_k]; weights: f32 [rows, top_k].
// Launch: (rows along x and y) workgroups of THREADS.

struct Params { rows: u32, experts: u32, top_k: u32, sum_to_one: u32 }
var<immediate> p: Params;
@group(0) @binding(1) var<storage, read_write> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;

fn experts() -> u32 { return p.experts; }
fn top_k() -> u32 { return p.top_k; }
fn sums_to_one() -> bool { return p.sum_to_one == 1u; }

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) { return; }
    let total = choose(row, local, subgroup, subgroups, lane);
    for (var j = local; j < p.top_k; j += THREADS) {
        ids[row * p.top_k + j] = chosen_ids[j];
        weights[row * p.top_k + j] = chosen[j] / total;
    }
}
