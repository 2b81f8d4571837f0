// Rows that are spread over y and z of a launch: see `shaders::by_rows`.

fn row_of(group: vec3<u32>) -> u32 {
    return group.z * 32768u + group.y;
}
