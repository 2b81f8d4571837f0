//! How a product of many rows is cut: a pure function of shape and device.

use bessemer_hal::GpuLimits;

/// What a choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rows of `x`; slots, for experts.
    pub(super) rows: usize,
    /// Matrices in the stack; 0 when this is no product of experts.
    pub(super) experts: usize,
    pub(super) out: usize,
    pub(super) inp: usize,
}

/// How a product is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// In f32.
    Plain,
    /// On matrix units.
    Cooperative(Cut),
}

/// Tiles of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Rows of a tile.
    pub(super) rows: usize,
    /// Outputs of a tile.
    pub(super) outputs: usize,
    /// Shares of the sum over the inputs that go to workgroups of their own.
    pub(super) splits: usize,
}

/// Inputs of a step.
pub(super) const STEP: usize = 32;

/// A tile that there are kernels for, and what is known of its speed.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: usize,
    outputs: usize,
    /// Nanoseconds of one compute unit for a step: about 4 TFLOP/s, and the unpacking of weights.
    step_ns: usize,
    /// Workgroups that share a compute unit.
    together: usize,
    /// Bytes of workgroup memory.
    memory: u32,
}

/// Tiles of 16 × 16 matrices (SPIR-V).
const TILES_16: [Tile; 4] = [
    Tile { rows: 128, outputs: 128, step_ns: 380, together: 2, memory: 47_120 },
    Tile { rows: 64, outputs: 128, step_ns: 230, together: 3, memory: 36_368 },
    Tile { rows: 32, outputs: 128, step_ns: 150, together: 4, memory: 30_992 },
    Tile { rows: 16, outputs: 128, step_ns: 110, together: 4, memory: 28_304 },
];

/// Tiles of 8 × 8 matrices (MSL).
const TILES_8: [Tile; 2] = [
    Tile { rows: 64, outputs: 64, step_ns: 1000, together: 2, memory: 22_544 },
    Tile { rows: 16, outputs: 64, step_ns: 400, together: 2, memory: 14_480 },
];

/// A step takes this long at least, however little there is to do: the way to memory and back, and a barrier.
const SHORTEST_STEP_NS: usize = 600;
/// What a launch more costs.
const LAUNCH_NS: usize = 4000;
/// Bytes of partial sums that pass in a nanosecond, on their way out and back.
const PARTS_PER_NS: usize = 1500;
/// Splits of a sum, at most.
const MOST_SPLITS: usize = 16;
/// Steps that make a workgroup worth its while.
const LEAST_STEPS: usize = 8;

/// Compute units that share a launch: those of a large GPU, and of a large one of Apple's. A smaller one gets smaller shares
/// than it needs.
const WORKERS_16: usize = 132;
const WORKERS_8: usize = 40;

/// Chooses. `matrix` is the size of the matrices that there are kernels for.
pub(super) fn plan(shape: Shape, limits: &GpuLimits, matrix: usize) -> Plan {
    if !limits.cooperative_matrix {
        return Plan::Plain;
    }
    let (tiles, workers): (&[Tile], _) =
        if matrix == 8 { (&TILES_8, WORKERS_8) } else { (&TILES_16, WORKERS_16) };
    let cuts = tiles.iter().filter(|tile| tile.memory <= limits.workgroup_memory).flat_map(|tile| {
        let splits = (0..).map(|n| 1 << n).take_while(|n| *n <= MOST_SPLITS);
        splits.map(move |splits| (cost(&shape, tile, splits, workers), tile, splits))
    });
    let best = cuts
        .filter_map(|(cost, tile, splits)| Some((cost?, tile, splits)))
        .min_by_key(|(cost, tile, _)| (*cost, tile.step_ns));
    best.map_or(Plan::Plain, |(_, tile, splits)| {
        Plan::Cooperative(Cut { rows: tile.rows, outputs: tile.outputs, splits })
    })
}

/// Nanoseconds that a cut takes, roughly; `None` where it makes no sense.
fn cost(shape: &Shape, tile: &Tile, splits: usize, workers: usize) -> Option<usize> {
    let steps = shape.inp.div_ceil(STEP);
    let share = steps.div_ceil(splits);
    if splits > 1 && (share < LEAST_STEPS || steps.div_ceil(share) != splits) {
        return None;
    }
    let down = match shape.experts {
        0 => shape.rows.div_ceil(tile.rows),
        // The last tile of an expert is half empty on average.
        experts => {
            let used = experts.min(shape.rows);
            (shape.rows / tile.rows + used / 2).max(used)
        }
    };
    let workgroups = (down * shape.out.div_ceil(tile.outputs) * splits).div_ceil(workers.max(1));
    let (rounds, rest) = (workgroups / tile.together, workgroups % tile.together);
    let round =
        |together: usize| if together == 0 { 0 } else { SHORTEST_STEP_NS.max(tile.step_ns * together) };
    let product = share * (rounds * round(tile.together) + round(rest));
    let join = if splits > 1 { LAUNCH_NS + splits * shape.rows * shape.out * 8 / PARTS_PER_NS } else { 0 };
    Some(product + join)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GpuLimits = GpuLimits {
        min_subgroup: 32,
        max_subgroup: 32,
        workgroup_memory: 49_152,
        workgroup_threads: 1024,
        max_groups: [65535; 3],
        cooperative_matrix: true,
        int8_dot: true,
        software: false,
    };

    fn cut(rows: usize, experts: usize, out: usize, inp: usize) -> Cut {
        match plan(Shape { rows, experts, out, inp }, &LIMITS, 16) {
            Plan::Cooperative(cut) => cut,
            Plan::Plain => panic!("the device has matrix units"),
        }
    }

    #[test]
    fn without_matrix_units_tiles_are_plain() {
        let limits = GpuLimits { cooperative_matrix: false, ..LIMITS };
        let shape = Shape { rows: 2048, experts: 0, out: 4608, inp: 3584 };
        assert_eq!(plan(shape, &limits, 16), Plan::Plain);
        assert_eq!(plan(shape, &GpuLimits { workgroup_memory: 16_384, ..LIMITS }, 16), Plan::Plain);
    }

    #[test]
    fn a_long_prompt_takes_large_tiles_whole() {
        for (out, inp) in [(37_888, 3584), (3584, 18_944), (4608, 3584)] {
            let cut = cut(2048, 0, out, inp);
            assert!(cut.rows >= 64 && cut.splits == 1, "{out} × {inp}: {cut:?}");
        }
    }

    #[test]
    fn what_would_leave_compute_units_idle_is_split() {
        let cut = cut(32, 0, 3584, 18_944);
        assert_eq!(cut.rows, 32);
        assert!(cut.splits * 3584usize.div_ceil(cut.outputs) >= 132, "{cut:?}");
    }

    #[test]
    fn no_split_is_empty() {
        for inp in [1, 32, 320, 2048, 3584, 9728, 18_944] {
            for rows in [17, 64, 300, 2048] {
                let cut = cut(rows, 0, 1024, inp);
                let share = inp.div_ceil(STEP).div_ceil(cut.splits);
                assert!(share * (cut.splits - 1) < inp.div_ceil(STEP), "{inp} × {rows}: {cut:?}");
            }
        }
    }

    #[test]
    fn experts_take_tiles_of_about_their_rows() {
        assert_eq!(cut(64 * 8, 128, 1536, 2048).rows, 16);
        assert!(matches!(cut(2048 * 8, 128, 1536, 2048).rows, 64 | 128));
    }

    #[test]
    fn no_shape_divides_by_zero() {
        cut(0, 0, 0, 0);
        assert!(cost(&Shape { rows: 1, experts: 0, out: 1, inp: 1 }, &TILES_16[0], 1, 1).is_some());
    }
}
