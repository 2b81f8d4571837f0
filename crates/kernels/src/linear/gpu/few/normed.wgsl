// One row that is normalised by every workgroup for itself, in its own memory: for a matrix of so few panels that all are
// at work at once, that takes less time than a launch in front of it.
// x: f32 [inp] and the norm's weight, inp at most 4 THREADS: see `int8_row.wgsl`.

fn cells() -> u32 { return p.steps * 8u; }
fn lanes() -> u32 { return p.lanes; }
fn eps() -> f32 { return p.eps; }
