// The sum of one value of each of the first 256 threads, in an order that no subgroup takes part in: sixteen columns of every
// sixteenth thread, then the columns, pair by pair.

var<workgroup> sum_parts: array<f32, 256>;
var<workgroup> sum_columns: array<vec4<f32>, 4>;

// Called at most once, by all threads. Has barriers: what was written to workgroup memory before is visible after it.
fn workgroup_sum(local: u32, value: f32) -> f32 {
    if (local < 256u) { sum_parts[local] = value; }
    workgroupBarrier();
    if (local < 16u) {
        var sum = vec4<f32>(0.0);
        for (var row = 0u; row < 16u; row += 4u) {
            let at = row * 16u + local;
            sum += vec4<f32>(
                sum_parts[at], sum_parts[at + 16u], sum_parts[at + 32u], sum_parts[at + 48u]);
        }
        sum_columns[local / 4u][local % 4u] = (sum.x + sum.y) + (sum.z + sum.w);
    }
    workgroupBarrier();
    let sum = (sum_columns[0] + sum_columns[1]) + (sum_columns[2] + sum_columns[3]);
    return (sum.x + sum.y) + (sum.z + sum.w);
}
