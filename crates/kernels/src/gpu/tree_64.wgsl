// The sum of 64 values in workgroup memory, sixteen fours of `sum_parts` from `first` on. Every thread that asks adds all of
// them: that takes one barrier, and no more time than to add some of them and pass them on.
fn tree_of(first: u32) -> f32 {
    var sums = array<vec4<f32>, 4>();
    for (var i = 0u; i < 4u; i++) {
        let at = first + i;
        sums[i] = (sum_parts[at] + sum_parts[at + 4u]) + (sum_parts[at + 8u] + sum_parts[at + 12u]);
    }
    let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return (sum.x + sum.y) + (sum.z + sum.w);
}
