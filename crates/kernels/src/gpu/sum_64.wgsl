// The sum of one value of each of 64 threads, in an order that no subgroup takes part in. Every thread adds all of
// them: that takes one barrier, and no more time than to add some of them and pass them on.

var<workgroup> sum_parts: array<vec4<f32>, 16>;

// Called at most once, by all threads. Has a barrier: what was written to workgroup memory before is visible after it.
fn workgroup_sum(local: u32, value: f32) -> f32 {
    sum_parts[local / 4u][local % 4u] = value;
    workgroupBarrier();
    var sums = array<vec4<f32>, 4>();
    for (var i = 0u; i < 4u; i++) {
        sums[i] = (sum_parts[i] + sum_parts[i + 4u]) + (sum_parts[i + 8u] + sum_parts[i + 12u]);
    }
    let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return (sum.x + sum.y) + (sum.z + sum.w);
}
