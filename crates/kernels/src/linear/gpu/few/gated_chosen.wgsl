// Experts are chosen first.

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let slot = group.x;
    let total = choose(slot / p.top_k, t, subgroup, subgroups, lane);
    if (t == 0u && group.y == 0u && group.z == 0u) {
        ids[slot] = chosen_ids[slot % p.top_k];
        shares[slot] = chosen[slot % p.top_k] / total;
    }
    multiply(group, t);
}
