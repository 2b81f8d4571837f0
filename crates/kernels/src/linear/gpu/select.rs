//! Which kernel carries out a product: a pure function of shape and device.

use bessemer_hal::GpuLimits;

/// What a choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rows of `x`; slots, for experts.
    pub(super) rows: usize,
    /// Matrices in the stack.
    pub(super) experts: usize,
}

/// A kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// Workgroups stream panels, each for so many rows.
    Few {
        /// Rows of a workgroup.
        rows: usize,
    },
    /// Workgroups have tiles of the output: [`super::tile`] says which.
    Tile,
}

/// Rows from which on tiles pay.
const MANY_ROWS: usize = 17;
/// Slots of an expert, on average, from which on tiles pay.
const MANY_SLOTS: usize = 4;

/// Slots up to which their order is of no use to [`Variant::Few`]: the workgroups of a panel are all at work at once, so
/// those of one expert meet in the cache without being neighbours.
const FEW_SLOTS: usize = 128;

/// Whether the kernels of a product of experts read its slots by expert.
pub(super) fn reads_order(shape: Shape, limits: &GpuLimits) -> bool {
    shape.rows > FEW_SLOTS || select(shape, &[], limits) == Variant::Tile
}

/// Chooses; `few` are the variants of [`Variant::Few`] by rows, ascending. The bits of a row are the same in all of
/// them: the smallest that takes all rows at once, else the largest. A slot has an expert of its own.
pub(super) fn select(shape: Shape, few: &[usize], limits: &GpuLimits) -> Variant {
    let _ = limits;
    if shape.rows >= MANY_ROWS && (shape.experts == 1 || shape.rows >= MANY_SLOTS * shape.experts) {
        return Variant::Tile;
    }
    if shape.experts > 1 {
        return Variant::Few { rows: few.first().copied().unwrap_or(1) };
    }
    let rows = few.iter().find(|rows| **rows >= shape.rows).or(few.last());
    Variant::Few { rows: rows.copied().unwrap_or(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GpuLimits = GpuLimits {
        min_subgroup: 32,
        max_subgroup: 32,
        workgroup_memory: 32768,
        workgroup_threads: 1024,
        max_groups: [65535; 3],
        cooperative_matrix: false,
        int8_dot: true,
        software: false,
    };

    #[test]
    fn few_rows_share_a_workgroup() {
        let choose = |few: &[usize], rows| match select(Shape { rows, experts: 1 }, few, &LIMITS) {
            Variant::Few { rows } => rows,
            Variant::Tile => 0,
        };
        assert_eq!(
            [1, 2, 3, 4, 5, 8, 9, 16].map(|rows| choose(&[1, 2, 4, 8], rows)),
            [1, 2, 4, 4, 8, 8, 8, 8]
        );
        assert_eq!([1, 2, 9].map(|rows| choose(&[4], rows)), [4; 3]);
        assert_eq!([1, 2, 4, 5].map(|rows| choose(&[1, 4], rows)), [1, 4, 4, 4]);
    }

    #[test]
    fn many_rows_take_tiles() {
        let choose = |rows, experts| select(Shape { rows, experts }, &[1, 2, 4], &LIMITS);
        assert_eq!((choose(16, 1), choose(17, 1)), (Variant::Few { rows: 4 }, Variant::Tile));
        assert_eq!((choose(511, 128), choose(512, 128)), (Variant::Few { rows: 1 }, Variant::Tile));
        assert_eq!(choose(16, 2), Variant::Few { rows: 1 });
    }

    #[test]
    fn few_slots_need_no_order() {
        let reads = |rows, experts| reads_order(Shape { rows, experts }, &LIMITS);
        assert_eq!([8, 64, 128, 129, 512].map(|slots| reads(slots, 128)), [false, false, false, true, true]);
        // Tiles are made from the order.
        assert_eq!([16, 31, 32].map(|slots| reads(slots, 8)), [false, false, true]);
    }

    #[test]
    fn a_slot_has_a_workgroup_of_its_own() {
        let shape = Shape { rows: 64, experts: 128 };
        assert_eq!(select(shape, &[1, 2, 4], &LIMITS), Variant::Few { rows: 1 });
    }
}
