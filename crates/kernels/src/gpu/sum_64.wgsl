// The sum of one value of each of 64 threads, in an order that no subgroup takes part in. Needs tree_64.wgsl.

var<workgroup> sum_parts: array<vec4<f32>, 16>;

// Called at most once, by all threads. Has a barrier: what was written to workgroup memory before is visible after it.
fn workgroup_sum(local: u32, value: f32) -> f32 {
    sum_parts[local / 4u][local % 4u] = value;
    workgroupBarrier();
    return tree_of(0u);
}
