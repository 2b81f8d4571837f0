// Column c of eight neighbouring entries of `parts`, [entry][quad], added up as a tree; the first is at `at`.

fn eight(at: u32, c: u32) -> f32 {
    let low = (parts[at][c] + parts[at + 4u][c]) + (parts[at + 8u][c] + parts[at + 12u][c]);
    let high = (parts[at + 16u][c] + parts[at + 20u][c]) + (parts[at + 24u][c] + parts[at + 28u][c]);
    return low + high;
}
